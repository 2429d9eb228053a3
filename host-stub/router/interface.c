/* interface.c: what the router lends to plugins: the caller's host table, with "attn.attend/1". */
#include "router.h"

#include <stdlib.h>
#include <string.h>

static void host_log(void *ctx, int32_t level, const char *text)
{
    const attn_host *base = ((attn_router *)ctx)->base;
    base->log(base->ctx, level, text);
}

static void registry_only_log(void *ctx, int32_t level, const char *text)
{
    registry_log(((attn_router *)ctx)->registry, level, "%s", text);
}

static void host_parallel_for(void *ctx, int64_t n, int64_t grain,
                              void (*body)(void *arg, int64_t begin, int64_t end, uint32_t thread),
                              void *arg)
{
    const attn_host *base = ((attn_router *)ctx)->base;
    base->parallel_for(base->ctx, n, grain, body, arg);
}

static const void *host_query(void *ctx, const char *id)
{
    attn_router *router = ctx;
    const attn_host *base = router->base;
    if (id && strcmp(id, "attn.attend/1") == 0) {
        return &router->attend;
    }
    return base->query && id ? base->query(base->ctx, id) : NULL;
}

/* An inner op's plan is a plan like any other. */
static attn_status inner_prepare(void *ctx, const char *op, const attn_op_call *call,
                                 attn_inner **inner, uint64_t *scratch, attn_error *err)
{
    attn_router *router = ctx;
    char id[64];
    attn_plan *plan = NULL;
    attn_status status = attn_op_id_in(router->registry, op, router->device.runtime, id, err);
    if (status != ATTN_OK) {
        return status == ATTN_NOT_FOUND ? ATTN_INVALID : status;
    }
    status = plan_try(router, id, NULL, 0, 0, call, &plan, scratch, err);
    if (status == ATTN_OK) {
        *inner = (attn_inner *)plan;
    }
    /* A plugin hands on what the contract knows. */
    return status == ATTN_NOT_FOUND ? ATTN_UNSUPPORTED
           : status > ATTN_INTERNAL ? ATTN_INTERNAL
                                    : status;
}

static attn_status inner_run(attn_inner *inner, const attn_op_call *call, attn_error *err)
{
    attn_status status = attn_plan_run((attn_plan *)inner, call, err);
    return status > ATTN_INTERNAL ? ATTN_INTERNAL : status;
}

static void inner_release(attn_inner *inner)
{
    attn_plan_release((attn_plan *)inner);
}

static attn_status check_sum(const attn_tensor *x, const attn_tensor *y, attn_error *err)
{
    bool f32 = x->code == ATTN_CODE_FLOAT && x->bits == 32 && y->code == ATTN_CODE_FLOAT &&
               y->bits == 32 && x->lanes == 1 && y->lanes == 1;
    if (!f32 || x->rank != y->rank || x->rank < 1 || x->rank > 4) {
        return attn_fail(err, ATTN_INVALID, "sum: ranks %u and %u, expected fp32 of one rank",
                         x->rank, y->rank);
    }
    for (uint32_t i = 0; i < x->rank; i++) {
        if (x->shape[i] != y->shape[i]) {
            return attn_fail(err, ATTN_INVALID, "sum: shape[%u] is %lld and %lld", i,
                             (long long)x->shape[i], (long long)y->shape[i]);
        }
    }
    return ATTN_OK;
}

/* Shape and strides with leading axes of 1. */
typedef struct {
    int64_t shape[4], stride[4];
} axes;

static axes axes_of(const attn_tensor *t)
{
    axes a = {{1, 1, 1, 1}, {0}};
    for (uint32_t i = 0; i < t->rank; i++) {
        a.shape[4 - t->rank + i] = t->shape[i];
        a.stride[4 - t->rank + i] = t->stride[i];
    }
    return a;
}

static void sum_cpu(float a, const attn_tensor *x, float b, const attn_tensor *y)
{
    const axes ax = axes_of(x), ay = axes_of(y);
    for (int64_t i = 0; i < ax.shape[0]; i++) {
        for (int64_t j = 0; j < ax.shape[1]; j++) {
            for (int64_t k = 0; k < ax.shape[2]; k++) {
                const float *from =
                    (const float *)x->data + i * ax.stride[0] + j * ax.stride[1] + k * ax.stride[2];
                float *to =
                    (float *)y->data + i * ay.stride[0] + j * ay.stride[1] + k * ay.stride[2];
                for (int64_t l = 0; l < ax.shape[3]; l++) {
                    float *sum = to + l * ay.stride[3];
                    *sum = a * from[l * ax.stride[3]] + (b == 0 ? 0 : b * *sum);
                }
            }
        }
    }
}

static attn_status host_sum(void *ctx, void *stream, float a, const attn_tensor *x, float b,
                            const attn_tensor *y, attn_error *err)
{
    attn_router *router = ctx;
    const attn_host *base = router->base;
    attn_status status = check_sum(x, y, err);
    if (status != ATTN_OK) {
        return status;
    }
    if (router->device.type == ATTN_DEVICE_CPU) {
        sum_cpu(a, x, b, y);
        return ATTN_OK;
    }
    const attn_device_sum *at =
        base->query ? (const attn_device_sum *)base->query(base->ctx, "attnplug.sum/1") : NULL;
    if (!at || at->size < sizeof *at) {
        return attn_fail(err, ATTN_UNSUPPORTED, "sum: this host adds on a CPU only, this is %s",
                         router->device.runtime);
    }
    return at->sum(at->ctx, stream, a, x, b, y, err);
}

void interface_init(attn_router *router)
{
    const attn_host *base = router->base;
    router->host = (attn_host){.size = sizeof(attn_host),
                               .max_threads = base->max_threads,
                               .ctx = router,
                               .log = base->log ? host_log : registry_only_log,
                               .parallel_for = base->parallel_for ? host_parallel_for : NULL,
                               .query = host_query};
    router->attend = (attn_attend){.size = sizeof(attn_attend),
                                   .ctx = router,
                                   .prepare = inner_prepare,
                                   .run = inner_run,
                                   .release = inner_release,
                                   .sum = host_sum};
}
