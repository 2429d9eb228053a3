/* Which plans of the cudnn op share a compiled graph, and that none is lost: over a fake of cuDNN,
 * so that neither GPU nor library is needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cudnn_calls.h"
#include "fake_cudnn.h"

static struct cudnn_device device = {
    .lock = PTHREAD_MUTEX_INITIALIZER, .api = &fake_api, .handle = (cudnnHandle_t)&fake};

/* The linker's --wrap=calloc leads the cache here. */
static int no_memory;
void *__real_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes)
{
    return no_memory ? NULL : __real_calloc(n, bytes);
}

static struct cudnn_key key_of(const attn_op_call *call)
{
    struct cudnn_call what;
    assert_int_equal(cudnn_take(call, 0, HOPPER, VERSION, &what, NULL), ATTN_OK);
    return cudnn_graph_key(call, &what);
}

static struct cudnn_shared *get(const attn_op_call *call)
{
    const struct cudnn_key key = key_of(call);
    struct cudnn_shared *shared = NULL;
    assert_int_equal(cudnn_cache_get(&device, &key, &shared, NULL), ATTN_OK);
    assert_int_equal(shared->graph.workspace, FAKE_WORKSPACE);
    assert_non_null(shared->graph.plan);
    return shared;
}

static void put(struct cudnn_shared *shared)
{
    cudnn_cache_put(&device, shared);
}

static attn_status fails(const attn_op_call *call, int from, int to, int code)
{
    const struct cudnn_key key = key_of(call);
    struct cudnn_shared *shared = NULL;
    fake.calls = 0;
    fake.fail_from = from, fake.fail_to = to, fake.code = code;
    const attn_status status = cudnn_cache_get(&device, &key, &shared, NULL);
    fake.fail_from = fake.fail_to = 0;
    if (status == ATTN_OK)
        put(shared);
    return status;
}

static int opened(void **state)
{
    (void)state;
    memset(&fake, 0, sizeof fake);
    return 0;
}

/* Memory that is short takes what is only kept: afterwards nothing is left, each descriptor was
 * destroyed once and none was used when it was gone. */
static int closed(void **state)
{
    (void)state;
    const attn_op_call other = call_of(8, 8, 8);
    assert_int_equal(fails(&other, 1, INT32_MAX, CUDNN_STATUS_HOST_ALLOCATION_FAILED), ATTN_NOMEM);
    assert_null(device.graphs);
    assert_int_equal(device.idle, 0);
    assert_int_equal(fake.made, fake.destroyed);
    assert_int_equal(fake.wrong, 0);
    return 0;
}

/* ---- what is shared ---- */

static void test_equal_calls_share(void **state)
{
    (void)state;
    attn_op_call c = call_of(64, 77, 40);
    struct cudnn_shared *first = get(&c);
    const int made = fake.made;
    int here;
    c.scale = 3;
    c.q.data = c.k.data = c.v.data = c.out.data = &here;
    c.q.align = 256;
    c.flags = ATTN_CALL_BAND; /* that hides nothing */
    c.band_lo = INT64_MIN, c.band_hi = INT64_MAX;
    struct cudnn_shared *second = get(&c);
    assert_ptr_equal(first, second);
    assert_int_equal(first->users, 2);
    assert_int_equal(fake.compiled, 1);
    assert_int_equal(fake.made, made);
    put(first);
    assert_int_equal(fake.destroyed, 0);
    put(second);
    assert_ptr_equal(get(&c), first); /* kept, though nobody used it */
    assert_int_equal(fake.compiled, 1);
    put(first);
}

/* Strides of dimensions of one element are nobody's. */
static void test_strides_that_are_not_read(void **state)
{
    (void)state;
    attn_op_call c = call_of(64, 64, 40);
    c.q.shape[0] = c.k.shape[0] = c.v.shape[0] = c.out.shape[0] = 1;
    c.lse = rows_of(&c.q);
    struct cudnn_shared *first = get(&c);
    c.q.stride[0] = 7, c.k.stride[0] = -1, c.out.stride[0] = 0, c.lse.stride[0] = 3;
    c.lse.shape[3] = 5, c.lse.stride[3] = 5; /* past its rank */
    assert_ptr_equal(get(&c), first);
    c.lse.stride[0] = 0;
    assert_ptr_equal(get(&c), first);
    for (int i = 0; i < 3; i++)
        put(first);
}

enum { OTHERS = 16 };

static attn_op_call other(int i)
{
    attn_op_call c = call_of(64, 64, 64);
    attn_tensor *four[] = {&c.q, &c.k, &c.v, &c.out};
    if (i >= 1 && i <= 4)
        four[i - 1]->stride[2] += 8;
    if (i >= 5 && i <= 8)
        four[i - 5]->stride[0] *= 2;
    if (i == 9)
        c.q.code = c.k.code = c.v.code = c.out.code = ATTN_CODE_BFLOAT;
    if (i == 10)
        c = causal_of(64, 64, 0);
    if (i == 11)
        c = causal_of(64, 72, 8);
    if (i == 12)
        c = causal_of(64, 72, 0);
    if (i == 13)
        c.k.shape[1] = c.v.shape[1] = 2; /* grouped heads, of which the strides do not tell */
    if (i >= 14)
        c.lse = rows_of(&c.q);
    if (i == 15)
        c.lse.stride[1] *= 2, c.lse.stride[0] *= 2;
    return c;
}

static void test_other_calls_do_not(void **state)
{
    (void)state;
    struct cudnn_shared *all[OTHERS];
    for (int i = 0; i < OTHERS; i++) {
        const attn_op_call c = other(i);
        all[i] = get(&c);
        assert_int_equal(fake.compiled, i + 1);
    }
    for (int i = 0; i < OTHERS; i++) {
        const attn_op_call c = other(i);
        assert_ptr_equal(get(&c), all[i]);
        put(all[i]);
        put(all[i]);
    }
    assert_int_equal(fake.compiled, OTHERS);
}

static void tensor_is(int64_t uid, int type, const int64_t dims[4], const int64_t strides[4])
{
    const struct fake_tensor *t = fake_tensor_of(uid);
    assert_non_null(t);
    assert_int_equal(t->type, type);
    assert_memory_equal(t->dims, dims, sizeof t->dims);
    assert_memory_equal(t->strides, strides, sizeof t->strides);
}

/* What cuDNN is told of the tensors: keys as their transpose, a stride for each layout also where a
 * dimension has one element. */
static void test_tensors(void **state)
{
    (void)state;
    const int half = CUDNN_DATA_HALF;
    attn_op_call c = causal_of(100, 300, 200);
    c.q.stride[2] = 72, c.q.stride[1] = 7200, c.q.stride[0] = 57600;
    c.k.shape[1] = c.v.shape[1] = 1;
    c.v.stride[1] = 5;
    c.lse = rows_of(&c.q);
    put(get(&c));
    tensor_is(UID_Q, half, (int64_t[]){2, 8, 100, 64}, (int64_t[]){57600, 7200, 72, 1});
    tensor_is(UID_K, half, (int64_t[]){2, 1, 64, 300}, (int64_t[]){153600, 19200, 1, 64});
    tensor_is(UID_V, half, (int64_t[]){2, 1, 300, 64}, (int64_t[]){153600, 19200, 64, 1});
    tensor_is(UID_OUT, half, (int64_t[]){2, 8, 100, 64}, (int64_t[]){51200, 6400, 64, 1});
    tensor_is(UID_STATS, CUDNN_DATA_FLOAT, (int64_t[]){2, 8, 100, 1}, (int64_t[]){800, 100, 1, 1});
    for (int64_t uid = UID_SCALE; uid <= UID_NQ; uid++)
        assert_true(fake_tensor_of(uid)->by_value);
    c = call_of(100, 300, 64);
    const int made = fake.made;
    put(get(&c));
    for (int64_t uid = UID_STATS; uid <= UID_NQ; uid++) /* numbers of the graph before, or scale */
        assert_int_equal(fake_tensor_of(uid) > &fake.tensors[made], uid == UID_SCALE);
}

/* ---- failures ---- */

/* Whichever call of cuDNN fails, nothing is left of what was begun. */
static void test_failures_leave_nothing(void **state)
{
    (void)state;
    attn_op_call c = causal_of(100, 300, 200);
    c.lse = rows_of(&c.q);
    attn_status status;
    int n = 0;
    while ((status = fails(&c, n + 1, n + 1, CUDNN_STATUS_INTERNAL_ERROR)) != ATTN_OK) {
        n++;
        assert_int_equal(status, ATTN_DEVICE);
        assert_int_equal(fake.made, fake.destroyed);
        assert_null(device.graphs);
        assert_int_equal(device.idle, 0);
        fake.made = fake.destroyed = 0;
    }
    assert_int_equal(n, fake.calls); /* each was tried, of more than a hundred */
    assert_true(n > 100);
    assert_int_equal(device.idle, 1);
}

static void test_no_memory(void **state)
{
    (void)state;
    const attn_op_call c = call_of(64, 64, 64);
    const struct cudnn_key key = key_of(&c);
    struct cudnn_shared *shared = NULL;
    char text[128] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    no_memory = 1;
    assert_int_equal(cudnn_cache_get(&device, &key, &shared, &err), ATTN_NOMEM);
    no_memory = 0;
    assert_non_null(strstr(text, "no memory for"));
    assert_null(shared);
    assert_int_equal(fake.calls, 0);
    assert_int_equal(fails(&c, 9, 9, CUDNN_STATUS_DEVICE_ALLOCATION_FAILED), ATTN_NOMEM);
    assert_null(device.graphs);
}

/* What is only kept is not why memory is short; what is used stays. */
static void test_idle_graphs_give_way(void **state)
{
    (void)state;
    const attn_op_call a = call_of(64, 64, 64), b = call_of(64, 64, 72), c = call_of(64, 64, 80);
    struct cudnn_shared *used = get(&a);
    put(get(&b));
    assert_int_equal(device.idle, 1);
    assert_int_equal(fails(&c, 20, 20, CUDNN_STATUS_DEVICE_ALLOCATION_FAILED), ATTN_OK);
    assert_int_equal(device.idle, 1); /* c, for b is gone */
    assert_int_equal(fake.compiled, 3);
    put(get(&c));
    assert_int_equal(fake.compiled, 3);
    assert_ptr_equal(get(&a), used);
    put(get(&b));
    assert_int_equal(fake.compiled, 4);
    put(used);
    put(used);
}

/* ---- what is kept ---- */

static attn_op_call numbered(int i)
{
    return call_of(2 + i, 64, 64);
}

static int is_kept(int i)
{
    const attn_op_call c = numbered(i);
    const struct cudnn_key key = key_of(&c);
    for (const struct cudnn_shared *at = device.graphs; at; at = at->next)
        if (memcmp(&at->key, &key, sizeof key) == 0)
            return 1;
    return 0;
}

/* A device keeps so many without users, and those that were released last. */
static void test_longest_released_goes(void **state)
{
    (void)state;
    struct cudnn_shared *all[CUDNN_MOST_IDLE + 4];
    const int n = CUDNN_MOST_IDLE + 4;
    for (int i = 0; i < n; i++) {
        const attn_op_call c = numbered(i);
        all[i] = get(&c);
    }
    assert_int_equal(fake.compiled, n); /* used ones are not bounded */
    assert_int_equal(fake.destroyed, 0);
    for (int i = 1; i < n; i++)
        put(all[i]);
    assert_int_equal(device.idle, CUDNN_MOST_IDLE);
    const attn_op_call again = numbered(4);
    put(get(&again)); /* now released after all others */
    put(all[0]);
    assert_int_equal(fake.compiled, n);
    for (int i = 0; i < n; i++)
        assert_int_equal(is_kept(i), i == 0 || i == 4 || i > 5);
    assert_int_equal(fake.made - fake.destroyed, CUDNN_MOST_IDLE * (fake.made / n));
}

/* ---- threads ---- */

enum { THREADS = 4, ROUNDS = 60, MANY = CUDNN_MOST_IDLE + 8 };

struct worker {
    pthread_t thread;
    unsigned seed;
    int few;
    const struct cudnn_key *keys;
    struct cudnn_shared *seen[MANY];
    int bad;
};

/* Two plans at a time; of `few` calls the graph is always the same one. */
static void *work(void *arg)
{
    struct worker *w = arg;
    for (int round = 0; round < ROUNDS; round++) {
        struct cudnn_shared *held[2] = {NULL, NULL};
        for (int i = 0; i < 2; i++) {
            w->seed = w->seed * 1664525u + 1013904223u;
            const int k = (int)((w->seed >> 8) % (unsigned)w->few);
            w->bad += cudnn_cache_get(&device, &w->keys[k], &held[i], NULL) != ATTN_OK;
            w->bad += memcmp(&held[i]->key, &w->keys[k], sizeof held[i]->key) != 0;
            w->seen[k] = held[i];
        }
        put(held[0]);
        put(held[1]);
    }
    return NULL;
}

static void work_together(struct worker *workers, int few, const struct cudnn_key *keys)
{
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.seed = (unsigned)(i + few), .few = few, .keys = keys};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        assert_int_equal(workers[i].bad, 0);
    }
}

static void test_threads(void **state)
{
    (void)state;
    static struct worker workers[THREADS];
    static struct cudnn_key keys[MANY];
    for (int i = 0; i < MANY; i++) {
        const attn_op_call c = numbered(i);
        keys[i] = key_of(&c);
    }
    work_together(workers, 3, keys);
    assert_int_equal(fake.compiled, 3);
    for (int i = 1; i < THREADS; i++)
        assert_memory_equal(workers[i].seen, workers[0].seen, sizeof workers[0].seen);
    work_together(workers, MANY, keys);
    assert_in_range(fake.compiled, MANY, THREADS * ROUNDS * 2);
    assert_int_equal(device.idle, CUDNN_MOST_IDLE);
    for (const struct cudnn_shared *at = device.graphs; at; at = at->next)
        assert_int_equal(at->users, 0);
}

int main(void)
{
#define CACHE_TEST(name) cmocka_unit_test_setup_teardown(name, opened, closed)
    const struct CMUnitTest tests[] = {
        CACHE_TEST(test_equal_calls_share),
        CACHE_TEST(test_other_calls_do_not),
        CACHE_TEST(test_strides_that_are_not_read),
        CACHE_TEST(test_tensors),
        CACHE_TEST(test_failures_leave_nothing),
        CACHE_TEST(test_no_memory),
        CACHE_TEST(test_idle_graphs_give_way),
        CACHE_TEST(test_longest_released_goes),
        CACHE_TEST(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
