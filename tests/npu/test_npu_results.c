/* Every kind of call gives the right numbers, against double precision on the rounded inputs. */
#include "fixture.h"
#include "problems.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_results(void **state)
{
    struct npu *npu = *state;
    int bad = 0;
    for (int i = 0; i < PROBLEMS; i++) {
        struct attention a;
        attention_make(&a, &problems[i]);
        attn_status status = attention_do(npu, &a, NULL);
        double error = status == ATTN_OK ? attention_error(&a) : -1.0;
        int right = status == ATTN_OK && error <= attention_bound(&a);
        print_message("  %-34s %s %.2e%s%s\n", problems[i].name, right ? "ok" : "WRONG", error,
                      status == ATTN_OK ? "" : ": ", status == ATTN_OK ? "" : npu->text);
        bad += !right;
        attention_free(&a);
    }
    assert_int_equal(bad, 0);
}

/* A plan serves again, on new data and other addresses. */
static void test_again(void **state)
{
    struct npu *npu = *state;
    struct attention a, b;
    struct problem p = problems[1];
    attention_make(&a, &p);
    p.seed = 77;
    attention_make(&b, &p);
    assert_int_equal(attention_prepare(npu, &a), ATTN_OK);
    assert_int_equal(attention_in(npu, &a, NULL), ATTN_OK);
    assert_int_equal(attention_run(npu, &a, NULL), ATTN_OK);
    assert_int_equal(attention_out(npu, &a, NULL), ATTN_OK);
    assert_true(attention_error(&a) <= attention_bound(&a));
    b.scratch_bytes = a.scratch_bytes;
    assert_int_equal(attention_in(npu, &b, NULL), ATTN_OK);
    attn_op_plan *plan = a.plan;
    b.plan = plan;
    assert_int_equal(attention_run(npu, &b, NULL), ATTN_OK);
    assert_int_equal(attention_out(npu, &b, NULL), ATTN_OK);
    assert_true(attention_error(&b) <= attention_bound(&b));
    b.plan = NULL;
    attention_undo(npu, &b);
    attention_undo(npu, &a);
    attention_free(&a);
    attention_free(&b);
}

static int set_up(void **state)
{
    static struct npu npu;
    npu_begin(&npu);
    *state = &npu;
    if (npu_create(&npu) == ATTN_OK)
        return 0;
    print_error("create: %s\n", npu.text);
    return -1;
}

static int tear_down(void **state)
{
    npu_destroy(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_again),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
