/* The stand-in knows the runtime's rules: each is kept once and broken once. */
#include "fakecann.h"
#include "rule.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Violations since the last question. */
static uint64_t violations(void)
{
    uint64_t n = fakecann_violations();
    fakecann_forget_violations();
    return n;
}

static void test_init(void **state)
{
    (void)state;
    void *data = NULL;
    uint64_t left = 99;
    assert_int_equal(RUNTIME(aclrtMalloc)(&data, 64, 0), 100001);
    assert_int_equal(RUNTIME(aclrtSetDevice)(0), 100001);
    assert_int_equal(RUNTIME(aclInit)(NULL), 0);
    assert_int_equal(RUNTIME(aclInit)(NULL), 100002); /* counted all the same */
    assert_int_equal(RUNTIME(aclFinalizeReference)(&left), 0);
    assert_int_equal(left, 1);
    assert_int_equal(RUNTIME(aclFinalizeReference)(&left), 0);
    assert_int_equal(left, 0);
    assert_int_equal(RUNTIME(aclFinalizeReference)(NULL), 100001);
    assert_int_equal(violations(), 0);
    assert_int_equal(RUNTIME(aclInit)(NULL), 0);
    assert_int_equal(RUNTIME(aclInit)(NULL), 100002);
    assert_int_equal(RUNTIME(aclFinalize)(), 0); /* takes everybody's back */
    assert_int_equal(violations(), 1);
    assert_int_equal(RUNTIME(aclrtSetDevice)(0), 100001);
    assert_int_equal(fakecann_live().inits, 0);
}

static void *without_device(void *codes)
{
    int32_t *code = codes;
    void *data = NULL;
    struct use u;
    aclrtContext context = NULL;
    code[0] = RUNTIME(aclrtMalloc)(&data, 64, 0);
    code[1] = RUNTIME(aclrtGetCurrentContext)(&context);
    use_default(&u);
    code[2] = use_size(&u); /* 361001: an operator's word for it */
    return NULL;
}

/* aclrtSetDevice is for the thread that called it, and counted. */
static void test_device(void **state)
{
    (void)state;
    pthread_t thread;
    int32_t code[3] = {0};
    void *data = NULL;
    assert_int_equal(RUNTIME(aclInit)(NULL), 0);
    assert_int_equal(RUNTIME(aclrtMalloc)(&data, 64, 0), 107002);
    assert_int_equal(RUNTIME(aclrtSetDevice)(99), 107001);
    assert_int_equal(RUNTIME(aclrtSetDevice)(0), 0);
    assert_int_equal(RUNTIME(aclrtSetDevice)(0), 0);
    assert_int_equal(pthread_create(&thread, NULL, without_device, code), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(code[0], 107002);
    assert_int_equal(code[1], 107002);
    assert_int_equal(code[2], 361001);
    assert_int_equal(RUNTIME(aclrtResetDevice)(0), 0);
    assert_int_equal(RUNTIME(aclrtMalloc)(&data, 64, 0), 0); /* one use is left */
    assert_int_equal(RUNTIME(aclrtFree)(data), 0);
    assert_int_equal(RUNTIME(aclrtResetDevice)(0), 0);
    assert_int_equal(RUNTIME(aclrtMalloc)(&data, 64, 0), 107002);
    assert_int_equal(RUNTIME(aclrtResetDevice)(0), 107001);
    assert_int_equal(RUNTIME(aclFinalizeReference)(NULL), 0);
}

static int begin(void **state)
{
    (void)state;
    return RUNTIME(aclInit)(NULL) != 0 || RUNTIME(aclrtSetDevice)(0) != 0;
}

static int end(void **state)
{
    (void)state;
    fakecann_live_counts live = fakecann_live();
    uint64_t alive = live.allocations + live.tensors + live.scalars + live.executors + live.streams;
    return RUNTIME(aclrtResetDevice)(0) != 0 || RUNTIME(aclFinalizeReference)(NULL) != 0 ||
           alive != 0;
}

static void test_allocation(void **state)
{
    (void)state;
    void *data = NULL;
    assert_int_equal(RUNTIME(aclrtMalloc)(&data, 0, 0), 107000);
    assert_int_equal(RUNTIME(aclrtMalloc)(&data, (size_t)1 << 50, 0), 207001);
    assert_int_equal(RUNTIME(aclrtMalloc)(&data, 3, 0), 0);
    assert_int_equal((uintptr_t)data % 32, 0);
    assert_int_equal(RUNTIME(aclrtFree)(data), 0);
    assert_int_equal(violations(), 0);
    assert_int_not_equal(RUNTIME(aclrtFree)(data), 0);
    assert_int_equal(violations(), 1);
}

static void test_memcpy(void **state)
{
    (void)state;
    char host[64] = {1, 2, 3}, back[64] = {0};
    void *data = NULL;
    assert_int_equal(RUNTIME(aclrtMalloc)(&data, 64, 0), 0);
    assert_int_equal(RUNTIME(aclrtMemcpy)(data, 64, host, 64, ACL_MEMCPY_HOST_TO_DEVICE), 0);
    assert_int_equal(RUNTIME(aclrtMemcpy)(back, 64, data, 64, ACL_MEMCPY_DEVICE_TO_HOST), 0);
    assert_memory_equal(back, host, 64);
    assert_int_equal(RUNTIME(aclrtMemcpy)(data, 32, host, 64, ACL_MEMCPY_HOST_TO_DEVICE), 107000);
    assert_int_equal(RUNTIME(aclrtMemcpy)(data, 64, host, 64, ACL_MEMCPY_DEVICE_TO_HOST), 107000);
    assert_int_equal(RUNTIME(aclrtMemcpy)(back, 64, data, 64, ACL_MEMCPY_HOST_TO_DEVICE), 107000);
    assert_int_equal(RUNTIME(aclrtMemcpy)(data, 64, NULL, 64, ACL_MEMCPY_HOST_TO_DEVICE), 107000);
    assert_int_equal(violations(), 0);
    assert_int_equal(RUNTIME(aclrtMemcpy)((char *)data + 32, 64, host, 64, 1), 107000);
    assert_int_equal(violations(), 1);
    assert_int_equal(RUNTIME(aclrtFree)(data), 0);
}

/* The device's addresses are nobody's memory. */
static void test_addresses(void **state)
{
    (void)state;
    void *data = NULL;
    unsigned char page = 0;
    assert_int_equal(RUNTIME(aclrtMalloc)(&data, 4096, 0), 0);
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    assert_int_equal(write(fd[1], data, 1), -1); /* the kernel may not read it either */
    assert_int_equal(write(fd[1], &page, 1), 1);
    (void)close(fd[0]);
    (void)close(fd[1]);
    assert_int_equal(RUNTIME(aclrtFree)(data), 0);
}

/* Nothing is computed, and what is to be written reads as NaN, until somebody waits. */
static void test_queue(void **state)
{
    (void)state;
    struct use u;
    unsigned char out[2 * 2 * 4 * 6 * 8], poison[sizeof out];
    memset(poison, 0xff, sizeof poison);
    use_default(&u);
    use_begin(&u);
    assert_int_equal(use_size(&u), 0);
    assert_int_equal(use_launch(&u, NULL), 0);
    assert_int_equal(RUNTIME(aclrtMemcpy)(out, sizeof out, u.data[OUT], sizeof out, 2), 0);
    assert_memory_equal(out, poison, sizeof out);
    assert_int_equal(violations(), 1);
    assert_int_equal(use_wait(NULL), 0);
    assert_int_equal(RUNTIME(aclrtMemcpy)(out, sizeof out, u.data[OUT], sizeof out, 2), 0);
    assert_memory_not_equal(out, poison, sizeof out);
    assert_int_equal(violations(), 0);
    use_end(&u);
}

/* Memory that is freed before the work is done. */
static void free_early(int slot)
{
    struct use u;
    use_default(&u);
    use_begin(&u);
    assert_int_equal(use_size(&u), 0);
    assert_int_equal(use_launch(&u, NULL), 0);
    void **data = slot < 0 ? &u.workspace : &u.data[slot];
    assert_int_equal(RUNTIME(aclrtFree)(*data), 0);
    *data = NULL;
    assert_int_equal(use_wait(NULL), 507015);
    assert_int_equal(use_wait(NULL), 0);
    assert_true(violations() >= 2);
    use_end(&u);
}

static void test_freed_buffers(void **state)
{
    (void)state;
    free_early(QUERY);
    free_early(OUT);
    free_early(-1);
}

/* Descriptors may die once phase two has returned. */
static void test_descriptors_die_early(void **state)
{
    (void)state;
    struct use u;
    use_default(&u);
    use_begin(&u);
    assert_int_equal(use_size(&u), 0);
    assert_int_equal(use_launch(&u, NULL), 0);
    for (int i = 0; i < SLOTS; i++) {
        if (u.tensor[i])
            (void)DESCRIPTORS(aclDestroyTensor)(u.tensor[i]);
        u.tensor[i] = NULL;
    }
    assert_int_equal(use_wait(NULL), 0);
    assert_int_equal(violations(), 0);
    use_end(&u);
}

static void test_executor(void **state)
{
    (void)state;
    struct use u;
    use_default(&u);
    use_begin(&u);
    assert_int_equal(use_size(&u), 0);
    aclOpExecutor *executor = u.executor;
    assert_int_equal(use_launch(&u, NULL), 0);
    assert_int_equal(use_wait(NULL), 0);
    u.executor = executor;
    assert_int_equal(use_launch(&u, NULL), 561000); /* a second time */
    assert_int_equal(violations(), 1);
    assert_int_equal(DESCRIPTORS(aclDestroyAclOpExecutor)(executor), 561000);
    assert_int_equal(violations(), 1);
    use_end(&u);

    use_default(&u); /* consumed even where phase two fails */
    use_begin(&u);
    assert_int_equal(use_size(&u), 0);
    executor = u.executor;
    fakecann_fail("aclnnFlashAttentionScore", 1, 361001);
    assert_int_equal(use_launch(&u, NULL), 361001);
    u.executor = executor;
    assert_int_equal(use_launch(&u, NULL), 561000);
    assert_int_equal(violations(), 1);
    use_end(&u);

    use_default(&u); /* destroyed instead */
    use_begin(&u);
    assert_int_equal(use_size(&u), 0);
    assert_int_equal(DESCRIPTORS(aclDestroyAclOpExecutor)(u.executor), 0);
    u.executor = NULL;
    assert_int_equal(violations(), 0);
    use_end(&u);
}

static void test_workspace(void **state)
{
    (void)state;
    struct use u;
    use_default(&u);
    use_begin(&u);
    assert_int_equal(use_size(&u), 0);
    assert_true(u.workspace_bytes > 0);
    u.workspace_bytes--;
    assert_int_equal(use_launch(&u, NULL), 161002);
    use_end(&u);
    use_default(&u);
    use_begin(&u);
    assert_int_equal(use_size(&u), 0);
    assert_int_equal(RUNTIME(aclrtFree)(u.workspace), 0);
    u.workspace = NULL;
    assert_int_equal(use_launch(&u, NULL), 161001);
    use_end(&u);
}

static void test_streams(void **state)
{
    (void)state;
    struct use u;
    aclrtStream stream = NULL;
    char none;
    assert_int_equal(RUNTIME(aclrtCreateStream)(&stream), 0);
    assert_int_equal(use_wait(stream), 0);
    assert_int_equal(use_wait(&none), 107000);
    use_default(&u);
    use_begin(&u);
    assert_int_equal(use_size(&u), 0);
    assert_int_equal(RUNTIME(aclrtSetDevice)(1), 0); /* the stream is device 0's */
    assert_int_equal(use_launch(&u, stream), 107003);
    assert_int_equal(RUNTIME(aclrtResetDevice)(1), 0);
    assert_int_equal(RUNTIME(aclrtSetDevice)(0), 0);
    assert_int_equal(RUNTIME(aclrtResetDevice)(0), 0);
    use_end(&u);
    assert_int_equal(RUNTIME(aclrtDestroyStream)(stream), 0);
}

/* Got and forgotten, by each thread; only the last pointer lives. */
static void test_messages(void **state)
{
    (void)state;
    void *data = NULL;
    (void)RUNTIME(aclGetRecentErrMsg)();
    assert_null(RUNTIME(aclGetRecentErrMsg)());
    assert_int_equal(RUNTIME(aclrtMalloc)(&data, 0, 0), 107000);
    const char *first = RUNTIME(aclGetRecentErrMsg)();
    assert_non_null(first);
    assert_non_null(strstr(first, "size is 0"));
    assert_null(RUNTIME(aclGetRecentErrMsg)());
}

static void test_tensors(void **state)
{
    (void)state;
    const int64_t shape[2] = {2, 3}, stride[2] = {3, 1}, back[2] = {3, -1}, one = 6, few = 5;
    __typeof__(aclCreateTensor) *make = DESCRIPTORS(aclCreateTensor);
    char place[64];
    void *at = place;
    aclTensor *t = make(shape, 2, ACL_FLOAT, stride, 0, ACL_FORMAT_ND, &one, 1, at);
    assert_non_null(t);
    assert_int_equal(DESCRIPTORS(aclDestroyTensor)(t), 0);
    assert_null(make(shape, 2, ACL_FLOAT, stride, 0, ACL_FORMAT_ND, &few, 1, at)); /* beyond */
    assert_null(make(shape, 2, ACL_FLOAT, stride, 1, ACL_FORMAT_ND, &one, 1, at));
    assert_null(make(shape, 2, ACL_FLOAT, back, 2, ACL_FORMAT_ND, &one, 1, at));
    assert_null(make(shape, 2, 99, stride, 0, ACL_FORMAT_ND, &one, 1, at));
    assert_int_equal(DESCRIPTORS(aclDestroyTensor)(NULL), 161001);
}

/* FAKECANN_FAIL is set by the test's environment: the third aclrtFree fails, having freed. */
static void test_failure_by_environment(void **state)
{
    (void)state;
    void *data = NULL;
    uint64_t already = fakecann_calls("aclrtFree");
    assert_int_equal(already, 0);
    for (int i = 1; i <= 4; i++) {
        assert_int_equal(RUNTIME(aclrtMalloc)(&data, 64, 0), 0);
        assert_int_equal(RUNTIME(aclrtFree)(data), i == 3 ? 507014 : 0);
    }
    assert_int_equal(fakecann_failed(), 1);
    assert_int_equal(fakecann_calls("aclrtFree"), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_init),
        cmocka_unit_test_setup_teardown(test_failure_by_environment, begin, end),
        cmocka_unit_test(test_device),
        cmocka_unit_test_setup_teardown(test_allocation, begin, end),
        cmocka_unit_test_setup_teardown(test_memcpy, begin, end),
        cmocka_unit_test_setup_teardown(test_addresses, begin, end),
        cmocka_unit_test_setup_teardown(test_queue, begin, end),
        cmocka_unit_test_setup_teardown(test_freed_buffers, begin, end),
        cmocka_unit_test_setup_teardown(test_descriptors_die_early, begin, end),
        cmocka_unit_test_setup_teardown(test_executor, begin, end),
        cmocka_unit_test_setup_teardown(test_workspace, begin, end),
        cmocka_unit_test_setup_teardown(test_streams, begin, end),
        cmocka_unit_test_setup_teardown(test_messages, begin, end),
        cmocka_unit_test_setup_teardown(test_tensors, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
