/* attn_ggml.h: an attention plugin as a node of a ggml graph, in place of ggml_flash_attn_ext.
 *
 * Take this file and attn_abi.h along; there is nothing to link but -ldl.  C11 and C++11.
 *
 *   attn_ggml *a = attn_ggml_open("memory_efficient.so", n_threads, why, sizeof why);
 *   ...
 *   struct ggml_tensor *kqv = attn_ggml_attend(ctx, a, q, k, v, mask, scale);
 *   if (!kqv)                                       // the op does not take this one
 *       kqv = ggml_flash_attn_ext(ctx, q, k, v, mask, scale, 0, 0);
 *   ...  compute the graph as often as wanted  ...
 *   if (attn_ggml_failed(a)) ...                    // a node cannot return a status; look here
 *   attn_ggml_forget(a);                            // with the graph's context
 *   attn_ggml_close(a);
 *
 * Shapes are ggml_flash_attn_ext's, fastest first: q [D, Nq, H, B], k [D, Nk, Hk, B], v [Dv, Nk,
 * Hk, B], mask [Nk, Nq, 1 or H, 1 or B] added to the scaled scores; the result is fp32 [Dv, H, Nq,
 * B].  Any strides will do, so a permuted view of a projection needs no ggml_cont and no padding of
 * D or Nk; all three are fp32, or f16 or bf16 where the plugin says so.  A mask in f16 is converted
 * by a node of its own.
 *
 * Threads.  The node asks for all of the graph's threads: the first runs the plugin, the others
 * serve its parallel_for.  No thread is made.  One graph at a time for one attn_ggml: it has one
 * scratch.
 *
 * Nothing is allocated while a graph runs: plans and scratch are made when the node is built. */
#ifndef ATTN_GGML_H
#define ATTN_GGML_H

#include "attn_abi.h"
#include "ggml.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct attn_ggml_node attn_ggml_node;

/* One graph's threads as a pool.  All of them enter the node; ggml has a barrier after it, so none
 * is in two nodes at once.  Plain integers with __atomic functions: the file is C and C++. */
typedef struct {
    void (*body)(void *arg, int64_t begin, int64_t end, uint32_t thread);
    void *arg;
    int64_t n, step;  /* of the open job; step indices are taken at a time */
    int64_t next;     /* the first index that nobody has taken */
    uint32_t ticket;  /* odd while a job is open, another number for each */
    int32_t inside;   /* helpers that may be in a body */
    int32_t finished; /* the plugin has returned: helpers may leave */
    int32_t left;     /* threads that have left the node */
} attn_ggml_pool;

struct attn_ggml_node;

typedef struct {
    const attn_op_api *api;
    attn_op *op;
    attn_host host;
    attn_ggml_pool pool;
    struct attn_ggml_node *nodes; /* of the graph being built or run */
    void *scratch;                /* of the largest plan so far */
    uint64_t scratch_bytes;
    attn_status status; /* of the first node that failed, and why */
    char why[256];
} attn_ggml;

typedef struct attn_ggml_node {
    attn_ggml *a;
    struct attn_ggml_node *next;
    attn_op_plan *plan;
    attn_op_call call;
} attn_ggml_node;

/* ---------------------------------------------------------------------------------------------
 * Threads
 * ------------------------------------------------------------------------------------------ */

static inline void attn_ggml_wait(int *turns)
{
    if (++*turns > 2000) {
        sched_yield(); /* somebody else needs the core more */
    }
}

static inline void attn_ggml_take(attn_ggml_pool *p, uint32_t thread)
{
    for (;;) {
        int64_t begin = __atomic_fetch_add(&p->next, p->step, __ATOMIC_RELAXED);
        if (begin >= p->n) {
            return;
        }
        p->body(p->arg, begin, begin + p->step < p->n ? begin + p->step : p->n, thread);
    }
}

/* attn_host.parallel_for.  A call from within a body finds a job open and runs where it is. */
static inline void attn_ggml_parallel_for(void *ctx, int64_t n, int64_t grain,
                                          void (*body)(void *, int64_t, int64_t, uint32_t),
                                          void *arg)
{
    attn_ggml *a = (attn_ggml *)ctx;
    attn_ggml_pool *p = &a->pool;
    uint32_t ticket = __atomic_load_n(&p->ticket, __ATOMIC_SEQ_CST);
    if (n <= 0) {
        return;
    }
    if ((ticket & 1) || a->host.max_threads == 1) {
        body(arg, 0, n, 0);
        return;
    }
    int64_t grains = (n + grain - 1) / grain, parts = 4 * (int64_t)a->host.max_threads;
    p->body = body, p->arg = arg, p->n = n, p->next = 0;
    p->step = (grains + parts - 1) / parts * grain;
    __atomic_store_n(&p->ticket, ticket + 1, __ATOMIC_SEQ_CST);
    attn_ggml_take(p, 0);
    /* Closed first, then counted: a helper counts itself first and then looks whether it is open
     * still. */
    __atomic_store_n(&p->ticket, ticket + 2, __ATOMIC_SEQ_CST);
    for (int turns = 0; __atomic_load_n(&p->inside, __ATOMIC_SEQ_CST);) {
        attn_ggml_wait(&turns);
    }
}

static inline void attn_ggml_help(attn_ggml *a, uint32_t thread)
{
    attn_ggml_pool *p = &a->pool;
    for (int turns = 0; !__atomic_load_n(&p->finished, __ATOMIC_ACQUIRE);) {
        uint32_t ticket = __atomic_load_n(&p->ticket, __ATOMIC_SEQ_CST);
        if (!(ticket & 1) || thread >= a->host.max_threads) {
            attn_ggml_wait(&turns);
            continue;
        }
        __atomic_fetch_add(&p->inside, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&p->ticket, __ATOMIC_SEQ_CST) == ticket) {
            attn_ggml_take(p, thread);
        }
        __atomic_fetch_sub(&p->inside, 1, __ATOMIC_SEQ_CST);
        turns = 0;
    }
}

/* The last to leave makes the pool ready for the next node. */
static inline void attn_ggml_leave(attn_ggml_pool *p, int n_threads)
{
    if (__atomic_add_fetch(&p->left, 1, __ATOMIC_ACQ_REL) == n_threads) {
        p->left = 0;
        __atomic_store_n(&p->finished, 0, __ATOMIC_RELEASE);
    }
}

/* ---------------------------------------------------------------------------------------------
 * Opening and closing
 * ------------------------------------------------------------------------------------------ */

/* The file's op for the CPU; NULL and a line in `why` where there is none. */
static inline const attn_op_api *attn_ggml_file(const char *path, char *why, size_t bytes)
{
    /* Never closed: plugins stay mapped. */
    void *file = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const attn_op_api *api = file ? (const attn_op_api *)dlsym(file, "attn_op_v1") : NULL;
    if (!file) {
        snprintf(why, bytes, "%s", dlerror());
    } else if (!api) {
        snprintf(why, bytes, "%s: no attn_op_v1, expected an attention op", path);
    } else if (api->head.magic != ATTN_MAGIC || api->head.abi != ATTN_ABI ||
               api->head.size < sizeof *api) {
        snprintf(why, bytes, "%s: abi 0x%x, expected 0x%x", path, api->head.abi, ATTN_ABI);
    } else if (!(api->head.devices >> ATTN_DEVICE_CPU & 1)) {
        snprintf(why, bytes, "%s: %s is not for the CPU", path, api->head.id);
    } else {
        return api;
    }
    return NULL;
}

/* path: with a slash, so that the system's search path has no say.  n_threads: of the graphs to
 * come. NULL and a line in why[bytes] on failure. */
static inline attn_ggml *attn_ggml_open(const char *path, int n_threads, char *why, size_t bytes)
{
    const attn_op_api *api = attn_ggml_file(path, why, bytes);
    attn_ggml *a = api ? (attn_ggml *)calloc(1, sizeof *a) : NULL;
    if (!a) {
        return NULL;
    }
    attn_device cpu;
    memset(&cpu, 0, sizeof cpu);
    cpu.type = ATTN_DEVICE_CPU;
    memcpy(cpu.runtime, "cpu", 4);
    attn_error err = {sizeof err, (uint32_t)bytes, why, 0};
    a->api = api;
    a->host.size = sizeof a->host;
    a->host.max_threads = n_threads > 0 ? (uint32_t)n_threads : 1;
    a->host.ctx = a;
    a->host.parallel_for = attn_ggml_parallel_for;
    if (api->create(&a->host, &cpu, NULL, 0, &a->op, &err) != ATTN_OK) {
        free(a);
        return NULL;
    }
    return a;
}

/* The nodes built so far are gone with their graph: releases their plans. */
static inline void attn_ggml_forget(attn_ggml *a)
{
    while (a->nodes) {
        attn_ggml_node *node = a->nodes;
        a->nodes = node->next;
        a->api->release(node->plan);
        free(node);
    }
}

static inline void attn_ggml_close(attn_ggml *a)
{
    if (a) {
        attn_ggml_forget(a);
        a->api->destroy(a->op);
        free(a->scratch);
        free(a);
    }
}

/* Why the first node failed since the last call, or NULL; that node's result is NaN. */
static inline const char *attn_ggml_failed(attn_ggml *a)
{
    const char *why = a->status != ATTN_OK ? a->why : NULL;
    a->status = ATTN_OK;
    return why;
}

/* ---------------------------------------------------------------------------------------------
 * The node
 * ------------------------------------------------------------------------------------------ */

static inline bool attn_ggml_dtype(enum ggml_type type, attn_tensor *t)
{
    t->code = type == GGML_TYPE_BF16 ? ATTN_CODE_BFLOAT : ATTN_CODE_FLOAT;
    t->bits = type == GGML_TYPE_F32 ? 32 : 16;
    t->lanes = 1;
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
}

/* ggml counts dimensions from the fastest and strides in bytes.  A dimension of 1 in `x` stretches.
 */
static inline bool attn_ggml_view(const struct ggml_tensor *x, int64_t b, int64_t h, int64_t rows,
                                  int64_t columns, attn_tensor *t)
{
    const int64_t want[4] = {b, h, rows, columns};
    memset(t, 0, sizeof *t);
    t->rank = 4;
    t->device_type = ATTN_DEVICE_CPU;
    bool fits = attn_ggml_dtype(x->type, t);
    for (int i = 0; i < 4 && fits; i++) {
        size_t stride = x->nb[3 - i];
        t->shape[i] = want[i];
        t->stride[i] =
            x->ne[3 - i] == 1 && want[i] != 1 ? 0 : (int64_t)(stride / ggml_type_size(x->type));
        fits =
            (x->ne[3 - i] == want[i] || x->ne[3 - i] == 1) && stride % ggml_type_size(x->type) == 0;
    }
    return fits;
}

static inline void attn_ggml_run(struct ggml_tensor *dst, int ith, int nth, void *userdata)
{
    attn_ggml_node *node = (attn_ggml_node *)userdata;
    attn_ggml *a = node->a;
    if (ith) {
        attn_ggml_help(a, (uint32_t)ith);
        attn_ggml_leave(&a->pool, nth);
        return;
    }
    char text[256] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    attn_op_call *call = &node->call;
    call->q.data = dst->src[0]->data;
    call->k.data = dst->src[1]->data;
    call->v.data = dst->src[2]->data;
    call->bias.data = call->bias.rank ? dst->src[3]->data : NULL;
    call->out.data = dst->data;
    call->scratch = a->scratch;
    call->scratch_bytes = a->scratch_bytes;
    attn_status status = a->api->run(node->plan, call, &err);
    if (status != ATTN_OK) {
        memset(dst->data, 0xff, ggml_nbytes(dst)); /* NaN: not to be taken for a result */
        if (a->status == ATTN_OK) {
            a->status = status;
            snprintf(a->why, sizeof a->why, "%s: %s", a->api->head.id, text);
        }
    }
    __atomic_store_n(&a->pool.finished, 1, __ATOMIC_RELEASE);
    attn_ggml_leave(&a->pool, nth);
}

static inline bool attn_ggml_reserve(attn_ggml *a, uint64_t bytes)
{
    void *larger = NULL;
    if (bytes <= a->scratch_bytes) {
        return true;
    }
    if (posix_memalign(&larger, 256, bytes)) {
        return false;
    }
    free(a->scratch);
    a->scratch = larger;
    a->scratch_bytes = bytes;
    return true;
}

static inline bool attn_ggml_shapes(attn_op_call *call, const struct ggml_tensor *q,
                                    const struct ggml_tensor *k, const struct ggml_tensor *v,
                                    const struct ggml_tensor *mask, float scale)
{
    int64_t b = q->ne[3], h = q->ne[2], nq = q->ne[1];
    memset(call, 0, sizeof *call);
    call->size = sizeof *call;
    call->scale = scale;
    bool fits = attn_ggml_view(q, b, h, nq, q->ne[0], &call->q) &&
                attn_ggml_view(k, b, k->ne[2], k->ne[1], q->ne[0], &call->k) &&
                attn_ggml_view(v, b, k->ne[2], k->ne[1], v->ne[0], &call->v) &&
                (!mask || attn_ggml_view(mask, b, h, nq, k->ne[1], &call->bias));
    call->out =
        call->q; /* for all but the shape and strides: fp32 [Dv, H, Nq, B] in ggml's order */
    call->out.bits = 32;
    call->out.code = ATTN_CODE_FLOAT;
    call->out.shape[3] = v->ne[0];
    call->out.stride[3] = 1;
    call->out.stride[1] = v->ne[0];
    call->out.stride[2] = v->ne[0] * h;
    call->out.stride[0] = v->ne[0] * h * nq;
    return fits;
}

/* The node, or NULL where the op does not take the call (nothing is left behind).  k and v of
 * another type than q, and a mask that is not fp32, are converted by nodes of their own. */
static inline struct ggml_tensor *attn_ggml_attend(struct ggml_context *ctx, attn_ggml *a,
                                                   struct ggml_tensor *q, struct ggml_tensor *k,
                                                   struct ggml_tensor *v, struct ggml_tensor *mask,
                                                   float scale)
{
    struct ggml_tensor *args[4] = {
        q, k->type == q->type ? k : ggml_cast(ctx, k, q->type),
        v->type == q->type ? v : ggml_cast(ctx, v, q->type),
        !mask || mask->type == GGML_TYPE_F32 ? mask : ggml_cast(ctx, mask, GGML_TYPE_F32)};
    attn_ggml_node *node = (attn_ggml_node *)calloc(1, sizeof *node);
    uint64_t scratch = 0;
    if (!node) {
        return NULL;
    }
    if (!attn_ggml_shapes(&node->call, args[0], args[1], args[2], args[3], scale) ||
        a->api->prepare(a->op, &node->call, &node->plan, &scratch, NULL) != ATTN_OK) {
        free(node);
        return NULL;
    }
    if (!attn_ggml_reserve(a, scratch)) {
        a->api->release(node->plan);
        free(node);
        return NULL;
    }
    node->a = a;
    node->next = a->nodes;
    a->nodes = node;
    return ggml_custom_4d(ctx, GGML_TYPE_F32, v->ne[0], q->ne[2], q->ne[1], q->ne[3], args,
                          mask ? 4 : 3, attn_ggml_run, GGML_N_TASKS_MAX, node);
}

#endif
