#include "harness.h"

#include "half.h"

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_THREADS 8

static char plugin_folder[4096];
const char *const dtype_names[] = {"f32", "f16", "bf16"};

/* ---- the host ---- */

struct work {
    void (*body)(void *, int64_t, int64_t, uint32_t);
    void *arg;
    int64_t n, grain;
    atomic_llong next;
    atomic_uint slot;
};

static void *work_loop(void *arg)
{
    struct work *work = arg;
    uint32_t slot = atomic_fetch_add(&work->slot, 1);
    for (;;) {
        int64_t begin = atomic_fetch_add(&work->next, work->grain);
        if (begin >= work->n)
            return NULL;
        int64_t end = begin + work->grain < work->n ? begin + work->grain : work->n;
        work->body(work->arg, begin, end, slot);
    }
}

static void host_parallel(void *ctx, int64_t n, int64_t grain,
                          void (*body)(void *, int64_t, int64_t, uint32_t), void *arg)
{
    uint32_t threads = (uint32_t)(uintptr_t)ctx;
    struct work work = {.body = body, .arg = arg, .n = n, .grain = grain};
    pthread_t ids[MAX_THREADS];
    for (uint32_t i = 1; i < threads; i++)
        if (pthread_create(&ids[i], NULL, work_loop, &work) != 0)
            abort();
    work_loop(&work);
    for (uint32_t i = 1; i < threads; i++)
        pthread_join(ids[i], NULL);
}

struct attn_inner {
    struct plugin plugin;
    attn_op_plan *plan;
};

static void inner_release(attn_inner *inner)
{
    inner->plugin.api->release(inner->plan);
    inner->plugin.api->destroy(inner->plugin.op);
    free(inner);
}

static attn_status inner_prepare(void *ctx, const char *op, const attn_op_call *call,
                                 attn_inner **inner, uint64_t *scratch, attn_error *err)
{
    static const attn_device cpu = {ATTN_DEVICE_CPU, 0, "cpu"};
    uint32_t threads = (uint32_t)(uintptr_t)ctx;
    attn_inner *made = calloc(1, sizeof *made);
    if (!made)
        return ATTN_NOMEM;
    made->plugin.api = harness_api(op);
    attn_status status =
        made->plugin.api->create(harness_host(threads), &cpu, NULL, 0, &made->plugin.op, err);
    if (status == ATTN_OK) {
        status = made->plugin.api->prepare(made->plugin.op, call, &made->plan, scratch, err);
        if (status != ATTN_OK)
            made->plugin.api->destroy(made->plugin.op);
    }
    if (status == ATTN_OK)
        *inner = made;
    else
        free(made);
    return status;
}

static attn_status inner_run(attn_inner *inner, const attn_op_call *call, attn_error *err)
{
    return inner->plugin.api->run(inner->plan, call, err);
}

static attn_status inner_sum(void *ctx, void *stream, float a, const attn_tensor *x, float b,
                             const attn_tensor *y, attn_error *err)
{
    (void)ctx;
    (void)stream;
    (void)err;
    for (int64_t i = 0; i < x->shape[0]; i++)
        for (int64_t j = 0; j < x->shape[1]; j++) {
            int64_t at[4] = {i, j, 0, 0};
            double old = b == 0.0f ? 0.0 : (double)b * tensor_get(y, at);
            tensor_set(y, at, (double)a * tensor_get(x, at) + old);
        }
    return ATTN_OK;
}

static const void *host_query(void *ctx, const char *id)
{
    static attn_attend attend[MAX_THREADS + 1];
    uint32_t threads = (uint32_t)(uintptr_t)ctx;
    attend[threads] = (attn_attend){sizeof(attn_attend), 0,        ctx, inner_prepare, inner_run,
                                    inner_release,       inner_sum};
    return strcmp(id, "attn.attend/1") == 0 ? &attend[threads] : NULL;
}

const attn_host *harness_host(uint32_t threads)
{
    static attn_host hosts[MAX_THREADS + 1];
    if (threads < 1 || threads > MAX_THREADS)
        abort();
    hosts[threads] = (attn_host){sizeof(attn_host), threads,   (void *)(uintptr_t)threads, NULL,
                                 host_parallel,     host_query};
    return &hosts[threads];
}

/* ---- plugins ---- */

void harness_folder(const char *folder)
{
    (void)snprintf(plugin_folder, sizeof plugin_folder, "%s", folder);
}

const attn_op_api *harness_api(const char *name)
{
    char path[4200];
    (void)snprintf(path, sizeof path, "%s/%s.so", plugin_folder, name);
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!so)
        fail_msg("%s", dlerror());
    const attn_op_api *api = dlsym(so, "attn_op_v1");
    if (!api || api->head.magic != ATTN_MAGIC || api->head.abi != ATTN_ABI)
        fail_msg("%s: no op of this contract", path);
    return api;
}

struct plugin plugin_open(const char *name, const char *cpu, uint32_t threads)
{
    static const attn_device device = {ATTN_DEVICE_CPU, 0, "cpu"};
    char text[256] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    struct plugin plugin = {.api = harness_api(name)};
    if (cpu)
        setenv("ATTNPLUG_CPU", cpu, 1);
    else
        unsetenv("ATTNPLUG_CPU");
    if (plugin.api->create(harness_host(threads), &device, NULL, 0, &plugin.op, &err) != ATTN_OK)
        fail_msg("%s: %s", name, text);
    return plugin;
}

void plugin_close(struct plugin *plugin)
{
    plugin->api->destroy(plugin->op);
    plugin->op = NULL;
}

int harness_variant(const char *cpu)
{
    static const attn_device device = {ATTN_DEVICE_CPU, 0, "cpu"};
    attn_op *op = NULL;
    const attn_op_api *api = harness_api("memory_efficient");
    setenv("ATTNPLUG_CPU", cpu, 1);
    attn_status status = api->create(harness_host(1), &device, NULL, 0, &op, NULL);
    unsetenv("ATTNPLUG_CPU");
    if (status == ATTN_OK)
        api->destroy(op);
    return status == ATTN_OK;
}

/* ---- elements ---- */

static char *element(const attn_tensor *t, const int64_t index[4])
{
    int64_t at = 0;
    for (uint32_t i = 0; i < t->rank; i++)
        at += index[i] * t->stride[i];
    return (char *)t->data + at * (t->bits / 8);
}

double tensor_get(const attn_tensor *t, const int64_t index[4])
{
    const char *p = element(t, index);
    uint16_t h;
    float f;
    if (t->bits == 8)
        return (double)*(const unsigned char *)p;
    if (t->bits == 32) {
        memcpy(&f, p, sizeof f);
        return (double)f;
    }
    memcpy(&h, p, sizeof h);
    return (double)(t->code == ATTN_CODE_FLOAT ? fp16_to_float(h) : bf16_to_float(h));
}

void tensor_set(const attn_tensor *t, const int64_t index[4], double value)
{
    char *p = element(t, index);
    float f = (float)value;
    if (t->bits == 8) {
        *(unsigned char *)p = (unsigned char)value;
    } else if (t->bits == 32) {
        memcpy(p, &f, sizeof f);
    } else {
        uint16_t h = t->code == ATTN_CODE_FLOAT ? fp16_from_float(f) : bf16_from_float(f);
        memcpy(p, &h, sizeof h);
    }
}

/* The next index within the shape, last axis fastest; 0 after the last. */
static int index_next(const attn_tensor *t, int64_t index[4])
{
    for (uint32_t i = t->rank; i-- > 0;) {
        if (++index[i] < t->shape[i])
            return 1;
        index[i] = 0;
    }
    return 0;
}

static int tensor_empty(const attn_tensor *t)
{
    for (uint32_t i = 0; i < t->rank; i++)
        if (t->shape[i] == 0)
            return 1;
    return t->rank == 0;
}

struct distance tensor_distance(const attn_tensor *got, const attn_tensor *expected)
{
    int64_t index[4] = {0};
    double error = 0.0, norm = 0.0;
    struct distance result = {0};
    if (tensor_empty(expected))
        return result;
    do {
        double a = tensor_get(got, index), b = tensor_get(expected, index);
        if (!isfinite(b) || !isfinite(a)) {
            result.wrong |= !(a == b || (isnan(a) && isnan(b)));
            continue;
        }
        error += (a - b) * (a - b);
        norm += b * b;
    } while (index_next(expected, index));
    result.relative = error == 0.0 ? 0.0 : sqrt(error / norm);
    return result;
}

uint64_t random_bits(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

double random_unit(uint64_t *state)
{
    return (double)(random_bits(state) >> 11) * 0x1p-53;
}

double random_normal(uint64_t *state)
{
    double radius = sqrt(-2.0 * log(1.0 - random_unit(state)));
    double x = radius * cos(2.0 * 3.14159265358979323846 * random_unit(state));
    return random_unit(state) < 0.01 ? 8.0 * x : x;
}
