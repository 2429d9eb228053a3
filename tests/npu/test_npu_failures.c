/* Failures of every call of CANN: the status, nothing lost, and the op works again. */
#include "fakecann.h"
#include "fixture.h"
#include "problems.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { RANDOM_CALLS = 10000, KINDS = 6 };

/* One that takes every step: bias, mask, attention, lse of rows that may be hidden. */
static const struct problem whole = {
    .batch = 1, .heads = 2, .nq = 5, .nk = 7, .d = 8, .bias = FULL, .mask = FULL, .lse = 1};
static const struct problem banded = {
    .batch = 1, .heads = 1, .nq = 5, .nk = 5, .d = 8, .band = 1, .lo = -2, .hi = 0, .lse = 1};

static const struct {
    const char *function;
    int32_t code;
    attn_status status;
} failures[] = {
    {"aclrtMalloc", 207001, ATTN_NOMEM},
    {"aclrtMalloc", 507015, ATTN_DEVICE},
    {"aclrtMemcpy", 107000, ATTN_INTERNAL},
    {"aclrtSynchronizeStream", 507014, ATTN_DEVICE},
    {"aclrtSynchronizeStream", 507015, ATTN_DEVICE},
    {"aclCreateTensor", 207001, ATTN_NOMEM},
    {"aclCreateScalar", 207001, ATTN_NOMEM},
    {"aclnnMulsGetWorkspaceSize", 161002, ATTN_INTERNAL},
    {"aclnnMulsGetWorkspaceSize", 361001, ATTN_DEVICE},
    {"aclnnLogicalNotGetWorkspaceSize", 561002, ATTN_UNSUPPORTED},
    {"aclnnLogGetWorkspaceSize", 207001, ATTN_NOMEM},
    {"aclnnAddGetWorkspaceSize", 161001, ATTN_INTERNAL},
    {"aclnnFlashAttentionScoreGetWorkspaceSize", 207001, ATTN_NOMEM},
    {"aclnnFlashAttentionScoreGetWorkspaceSize", 361001, ATTN_DEVICE},
    {"aclnnFlashAttentionScore", 561002, ATTN_UNSUPPORTED},
    {"aclnnFlashAttentionScore", 361001, ATTN_DEVICE},
    {"aclnnFlashAttentionScore", 161002, ATTN_INTERNAL},
    {"aclnnMuls", 207001, ATTN_NOMEM},
    {"aclnnLogicalNot", 561002, ATTN_UNSUPPORTED},
    {"aclnnLog", 361001, ATTN_DEVICE},
    {"aclnnAdd", 207001, ATTN_NOMEM},
};

static uint64_t alive(void)
{
    fakecann_live_counts l = fakecann_live();
    return l.tensors + l.scalars + l.executors + l.allocations;
}

/* What an op holds by itself: its anchor, and the band's mask once there was a band. */
static uint64_t held;

static void assert_works(struct npu *npu, struct attention *a)
{
    attn_status status = attention_do(npu, a, NULL);
    if (status != ATTN_OK)
        fail_msg("%d: %s", status, npu->text);
    assert_true(attention_error(a) <= attention_bound(a));
}

/* After a failure that only destruction follows, a new op. */
static void op_renew(struct npu *npu, attn_status status)
{
    if (status != ATTN_DEVICE)
        return;
    npu_destroy(npu);
    while (npu_create(npu) != ATTN_OK)
        continue;
}

static void test_each(void **state)
{
    struct npu *npu = *state;
    struct attention a;
    attention_make(&a, &whole);
    assert_works(npu, &a);
    held = alive();
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++)
        for (uint64_t nth = 1; nth <= 2; nth++) {
            uint64_t failed = fakecann_failed();
            npu->text[0] = '\0';
            npu->err.vendor_code = 0;
            fakecann_fail(failures[i].function, nth, failures[i].code);
            attn_status status = attention_do(npu, &a, NULL);
            if (fakecann_failed() == failed) { /* the call is not made as often: let it go */
                (void)attention_do(npu, &a, NULL);
                assert_int_not_equal(fakecann_failed(), failed);
            } else if (status != failures[i].status || !npu->text[0]) {
                fail_msg("%s:%d:%d gives %d, expected %d: \"%s\"", failures[i].function, (int)nth,
                         failures[i].code, status, failures[i].status, npu->text);
            }
            op_renew(npu, status);
            assert_int_equal(alive(), held);
            assert_works(npu, &a);
        }
    attention_free(&a);
}

/* The band's mask is made once and lost by no failure. */
static void test_band_mask(void **state)
{
    static const char *const steps[] = {"aclrtMalloc", "aclrtMemcpy"};
    struct npu *npu = *state;
    struct attention a;
    attention_make(&a, &banded);
    for (int i = 0; i < 2; i++) {
        fakecann_fail(steps[i], 1, 207001);
        assert_int_equal(attention_do(npu, &a, NULL), ATTN_NOMEM);
        assert_int_equal(alive(), held);
    }
    assert_works(npu, &a);
    assert_works(npu, &a);
    assert_int_equal(alive(), held + 1);
    npu_destroy(npu);
    assert_int_equal(npu_create(npu), ATTN_OK);
    assert_int_equal(alive(), held);
    attention_free(&a);
}

static void test_create(void **state)
{
    static const struct {
        const char *function;
        int32_t code;
        attn_status status;
    } all[] = {
        {"aclInit", 507015, ATTN_DEVICE},
        {"aclrtSetDevice", 207001, ATTN_NOMEM},
        {"aclrtSetDevice", 107001, ATTN_UNSUPPORTED},
        {"aclrtMalloc", 207001, ATTN_NOMEM},
    };
    struct npu *npu = *state;
    npu_destroy(npu);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        fakecann_fail(all[i].function, 1, all[i].code);
        assert_int_equal(npu_create(npu), all[i].status);
        assert_int_equal(npu->err.vendor_code, all[i].code);
        fakecann_live_counts l = fakecann_live();
        assert_int_equal(l.allocations + l.devices + l.inits, 0);
    }
    assert_int_equal(npu_create(npu), ATTN_OK);
}

/* A variant that refuses the shapes gives place to the next, by what it returns. */
static void test_variants(void **state)
{
    struct npu *npu = *state;
    struct attention a;
    attention_make(&a, &whole);
    uint64_t v2 = fakecann_calls("aclnnFlashAttentionScoreV2");
    fakecann_fail("aclnnFlashAttentionScoreGetWorkspaceSize", 1, 561002);
    assert_works(npu, &a);
    assert_int_equal(fakecann_calls("aclnnFlashAttentionScoreV2"), v2 + 1);
    uint64_t v4 = fakecann_calls("aclnnFlashAttentionScoreV4");
    fakecann_fail("aclnnFlashAttentionScoreGetWorkspaceSize", 1, 161002);
    fakecann_fail("aclnnFlashAttentionScoreV2GetWorkspaceSize", 1, 561003);
    fakecann_fail("aclnnFlashAttentionScoreV3GetWorkspaceSize", 1, 161002);
    assert_works(npu, &a);
    assert_int_equal(fakecann_calls("aclnnFlashAttentionScoreV4"), v4 + 1);
    fakecann_fail("aclnnFlashAttentionScoreGetWorkspaceSize", 1, 161002);
    fakecann_fail("aclnnFlashAttentionScoreV2GetWorkspaceSize", 1, 161002);
    fakecann_fail("aclnnFlashAttentionScoreV3GetWorkspaceSize", 1, 161002);
    fakecann_fail("aclnnFlashAttentionScoreV4GetWorkspaceSize", 1, 161002);
    assert_int_equal(attention_do(npu, &a, NULL), ATTN_UNSUPPORTED);
    assert_non_null(strstr(npu->text, "161002"));
    assert_works(npu, &a);
    attention_free(&a);
}

/* CANN's own words come through, on one line. */
static void test_words(void **state)
{
    struct npu *npu = *state;
    struct attention a;
    attention_make(&a, &whole);
    fakecann_fail("aclnnFlashAttentionScore", 1, 361001);
    assert_int_equal(attention_do(npu, &a, NULL), ATTN_DEVICE);
    assert_non_null(strstr(npu->text, "aclnnFlashAttentionScore returned 361001"));
    assert_non_null(strstr(npu->text, "was told to fail"));
    assert_null(strchr(npu->text, '\n'));
    op_renew(npu, ATTN_DEVICE);
    attention_free(&a);
}

/* Random failures anywhere, for long; whatever failed, what is alive is what the op holds. */
static void test_random(void **state)
{
    struct npu *npu = *state;
    struct attention a[KINDS];
    const struct problem kinds[KINDS] = {
        whole,
        banded,
        {.batch = 1, .heads = 1, .nq = 3, .nk = 4, .d = 8},
        {.batch = 2, .heads = 1, .nq = 3, .nk = 4, .d = 8, .lse = 1, .bfloat = 1},
        {.batch = 1, .heads = 2, .nq = 4, .nk = 3, .d = 8, .mask = BY_HEADS, .lse = 1},
        {.batch = 2, .heads = 2, .nq = 3, .nk = 4, .d = 8, .bias = BY_BATCH}};
    uint64_t failed = fakecann_failed(), bad = 0, renewed = 0;
    for (int i = 0; i < KINDS; i++)
        attention_make(&a[i], &kinds[i]);
    npu_destroy(npu);
    assert_int_equal(npu_create(npu), ATTN_OK);
    assert_works(npu, &a[1]); /* so that the band's mask is there */
    held = alive();
    for (int i = 0; i < RANDOM_CALLS; i++) {
        fakecann_fail_randomly((uint32_t)i * 2654435761u + 1, 40);
        attn_status status = attention_steps(npu, &a[i % KINDS], NULL);
        fakecann_fail_randomly(0, 0); /* a wait that fails leaves nothing that one could free */
        attention_undo(npu, &a[i % KINDS]);
        bad += status != ATTN_OK;
        if (status == ATTN_DEVICE) {
            renewed++;
            op_renew(npu, status);
            assert_works(npu, &a[1]);
        }
        assert_int_equal(alive(), held);
        assert_works(npu, &a[(i + 1) % KINDS]); /* recovered */
    }
    for (int i = 0; i < KINDS; i++)
        attention_free(&a[i]);
    print_message("%d calls, %llu failures injected, %llu calls failed, %llu ops renewed\n",
                  RANDOM_CALLS, (unsigned long long)(fakecann_failed() - failed),
                  (unsigned long long)bad, (unsigned long long)renewed);
    assert_true(bad > RANDOM_CALLS / 10 && bad < RANDOM_CALLS * 9 / 10);
}

static int set_up(void **state)
{
    static struct npu npu;
    npu_begin(&npu);
    *state = &npu;
    return npu_create(&npu) != ATTN_OK;
}

static int tear_down(void **state)
{
    npu_destroy(*state);
    fakecann_live_counts l = fakecann_live();
    print_message("violations %llu %s\n", (unsigned long long)fakecann_violations(),
                  fakecann_violation());
    return fakecann_violations() != 0 ||
           l.allocations + l.tensors + l.scalars + l.executors + l.devices + l.inits != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each),   cmocka_unit_test(test_band_mask),
        cmocka_unit_test(test_create), cmocka_unit_test(test_variants),
        cmocka_unit_test(test_words),  cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
