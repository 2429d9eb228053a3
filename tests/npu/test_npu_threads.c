/* Eight threads, each with a stream, on one op; and eight that create their own. */
#include "fakecann.h"
#include "fixture.h"
#include "problems.h"
#include "table.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { THREADS = 8, ROUNDS = 40 };

struct worker {
    struct npu *shared; /* NULL: an op of its own */
    int index;
    int wrong;
};

static int compute(struct npu *npu, const struct problem *p, aclrtStream stream)
{
    struct attention a;
    attention_make(&a, p);
    int right =
        attention_do(npu, &a, stream) == ATTN_OK && attention_error(&a) <= attention_bound(&a);
    attention_free(&a);
    return right;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct npu npu;
    aclrtStream stream = NULL;
    npu_begin(&npu);
    w->wrong = RUNTIME(aclrtSetDevice)(0) != 0 || RUNTIME(aclrtCreateStream)(&stream) != 0;
    for (int i = 0; i < ROUNDS && !w->wrong; i++) {
        struct problem p = problems[(w->index * 5 + i) % PROBLEMS];
        p.seed = (uint32_t)(w->index * ROUNDS + i + 1);
        if (p.nk > 1000)
            continue;
        if (w->shared)
            npu.op = w->shared->op;
        else
            w->wrong += npu_create(&npu) != ATTN_OK;
        w->wrong += !compute(&npu, &p, stream);
        if (!w->shared)
            npu_destroy(&npu);
    }
    w->wrong += RUNTIME(aclrtDestroyStream)(stream) != 0;
    w->wrong += RUNTIME(aclrtResetDevice)(0) != 0;
    return NULL;
}

static void run_all(struct npu *shared)
{
    pthread_t thread[THREADS];
    struct worker worker[THREADS];
    for (int i = 0; i < THREADS; i++) {
        worker[i] = (struct worker){.shared = shared, .index = i};
        assert_int_equal(pthread_create(&thread[i], NULL, work, &worker[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(worker[i].wrong, 0);
    assert_int_equal(fakecann_violations(), 0);
}

static void test_one_op(void **state)
{
    run_all(*state);
}

static void test_own_ops(void **state)
{
    (void)state;
    run_all(NULL);
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
    return l.allocations + l.tensors + l.scalars + l.executors + l.devices + l.inits + l.streams !=
           0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_op),
        cmocka_unit_test(test_own_ops),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
