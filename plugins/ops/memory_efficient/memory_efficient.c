/* memory_efficient: softmax(scale Q K^T + bias) V on the CPU, tile by tile.
 *
 * The scores of a tile of keys are computed, exponentiated against the largest score so far and
 * multiplied with V while they are in the cache; a row's earlier sum is scaled down when its
 * maximum grows (Milakov and Gimelshein 2018, arXiv:1805.02867; Rabe and Staats 2021,
 * arXiv:2112.05682). Memory is a few tiles a thread, whatever the length.  key_mass takes a second
 * pass over the scores, in which a task owns keys, so that nothing is added in an order that
 * threads decide.
 *
 *   memory_efficient.c         this file: the contract's side, and the choice of kernels
 *   memory_efficient.h         what the two sides share
 *   tiles.h windows.h pack.h fetch.h products.h
 *                              the algorithm, written once over a few vector operations
 *   memory_efficient_c.c, memory_efficient_avx2.c, memory_efficient_avx512.c
 *                              those operations in plain C, AVX2 and AVX-512, each with its own
 *                              compiler flags
 *   memory_efficient_amx.c     the products on AMX's tile unit instead of products.h
 *
 * ATTNPLUG_CPU=c|avx2|avx512|amx forces the kernels; else the widest that the CPU has.
 *
 * Check: meson test -C build ops      Time: build/tests/ops/test_ops --bench
 */
#include "memory_efficient.h"

#include "attn_abi.h"
#include "op_call.h"

#include <stdlib.h>
#include <string.h>

#define NAME "memory_efficient"

#define ALIGNMENT 256

struct attn_op {
    const attn_host *host;
    const struct me_kernels *kernels;
    int forced; /* by ATTNPLUG_CPU: taken for every shape */
};

struct attn_op_plan {
    const struct attn_op *op;
    const struct me_kernels *kernels;
    struct me_problem problem; /* without data pointers */
    uint64_t lse_bytes;        /* of the row sums that the second pass needs and nobody asked for */
    uint64_t thread_bytes;
    uint64_t scratch;
};

struct job {
    const struct me_problem *problem;
    const struct me_kernels *kernels;
    int mass; /* the second pass */
    char *scratch;
    uint64_t thread_bytes;
};

static uint64_t round_up(uint64_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Kernels in rising order; the last that the CPU has is taken. */
static const struct me_kernels *const all_kernels[] = {
    &memory_efficient_c,
#ifdef MEMORY_EFFICIENT_X86
    &memory_efficient_avx2,
    &memory_efficient_avx512,
    &memory_efficient_amx,
#endif
};
#define N_KERNELS ((int)(sizeof all_kernels / sizeof *all_kernels))

static attn_status choose_kernels(const struct me_kernels **kernels, int *is_forced,
                                  attn_error *err)
{
    const char *forced = secure_getenv("ATTNPLUG_CPU");
    *kernels = NULL;
    *is_forced = forced && *forced;
    for (int i = 0; i < N_KERNELS; i++) {
        if (*is_forced && strcmp(forced, all_kernels[i]->name) != 0)
            continue;
        if (all_kernels[i]->usable())
            *kernels = all_kernels[i];
        else if (*is_forced)
            return attn_fail(err, ATTN_UNSUPPORTED,
                             NAME ": ATTNPLUG_CPU is %s, which this CPU lacks", forced);
    }
    if (*kernels)
        return ATTN_OK;
    return attn_fail(err, ATTN_INVALID, NAME ": ATTNPLUG_CPU is %s, expected c%s", forced,
                     N_KERNELS > 1 ? ", avx2, avx512 or amx" : "");
}

static attn_status op_create(const attn_host *host, const attn_device *device,
                             const attn_param *params, uint32_t n_params, attn_op **op,
                             attn_error *err)
{
    const struct me_kernels *kernels;
    int forced;
    attn_status status = op_create_check(NAME, host, device, params, n_params, err);
    if (status == ATTN_OK)
        status = choose_kernels(&kernels, &forced, err);
    if (status != ATTN_OK)
        return status;
    struct attn_op *made = malloc(sizeof *made);
    if (!made)
        return attn_fail(err, ATTN_NOMEM, NAME ": no memory for %zu bytes", sizeof *made);
    *made = (struct attn_op){host, kernels, forced};
    if (host->log) {
        char text[64];
        (void)snprintf(text, sizeof text, NAME ": kernels %s", kernels->name);
        host->log(host->ctx, 3, text);
    }
    *op = made;
    return ATTN_OK;
}

static void op_destroy(attn_op *op)
{
    free(op);
}

static attn_status op_check(const attn_op_call *call, struct op_shape *shape, attn_error *err)
{
    attn_status status = op_cpu_call_check(NAME, call, shape, err);
    if (status == ATTN_OK && call->probs.rank != 0)
        status = attn_fail(err, ATTN_UNSUPPORTED,
                           NAME ": does not give probs, which are as large as "
                                "what it avoids; math does");
    return status;
}

static attn_status op_supports(attn_op *op, const attn_op_call *call, attn_error *err)
{
    struct op_shape shape;
    (void)op;
    return op_check(call, &shape, err);
}

static enum me_type type_of(const attn_tensor *t)
{
    uint64_t dtype = op_dtype(t);
    return dtype == ATTN_DTYPE_F32    ? ME_F32
           : dtype == ATTN_DTYPE_F16  ? ME_F16
           : dtype == ATTN_DTYPE_BF16 ? ME_BF16
                                      : ME_BYTES;
}

/* A view as [batch][heads][rows][columns]; `axes` has the tensor's own axis of each, -1 for none.
 */
static struct me_view view_of(const attn_tensor *t, const int axes[4])
{
    struct me_view view = {.data = t->rank ? t->data : NULL};
    view.type = type_of(t);
    for (int i = 0; i < 4; i++)
        view.stride[i] = axes[i] < 0 ? 0 : t->stride[axes[i]];
    return view;
}

static void fill_views(struct me_problem *p, const attn_op_call *c)
{
    static const int all[4] = {0, 1, 2, 3}, rows[4] = {0, 1, 2, -1}, keys[4] = {0, -1, -1, 1};
    p->q = view_of(&c->q, all);
    p->k = view_of(&c->k, all);
    p->v = view_of(&c->v, all);
    p->out = view_of(&c->out, all);
    p->bias = view_of(&c->bias, all);
    p->mask = view_of(&c->mask, all);
    p->lse = view_of(&c->lse, rows);
    p->mass = view_of(&c->key_mass, keys);
}

/* Queries of a task: as many as keep packing cheap, as few as give every thread the same work. */
static void cut_blocks(struct me_problem *p, const struct me_kernels *kernels, int64_t threads)
{
    int64_t rows = kernels->rows, row_bytes = (p->d + p->dv + 2) * (int64_t)sizeof(float);
    int64_t most = me_min(kernels->block_rows, kernels->block_bytes / row_bytes) / rows * rows;
    int64_t heads = me_max(p->batch * p->heads, 1), units = me_ceil_div(p->nq, rows);
    int64_t blocks =
        me_max(me_ceil_div(p->nq, me_max(most, rows)), me_ceil_div(2 * threads, heads));
    if (heads < threads)
        blocks = me_round_up(blocks, threads);
    p->blocks = me_max(1, me_min(blocks, units));
    p->unit = rows;
    p->block_q = me_max(1, me_ceil_div(units, p->blocks)) * rows;
}

static uint64_t thread_scratch(const struct me_kernels *kernels, const struct me_problem *p)
{
    uint64_t own = round_up(kernels->scratch(p));
    uint64_t other = kernels->fallback ? round_up(kernels->fallback->scratch(p)) : 0;
    return own > other ? own : other;
}

static attn_status op_prepare(attn_op *op, const attn_op_call *call, attn_op_plan **plan,
                              uint64_t *scratch, attn_error *err)
{
    struct op_shape s;
    attn_status status = op_check(call, &s, err);
    if (status != ATTN_OK)
        return status;
    struct attn_op_plan *made = malloc(sizeof *made);
    if (!made)
        return attn_fail(err, ATTN_NOMEM, NAME ": no memory for %zu bytes", sizeof *made);
    uint32_t threads = op->host->parallel_for ? op->host->max_threads : 1;
    struct me_problem p = {
        .batch = s.batch,
        .heads = s.heads,
        .kv_heads = s.kv_heads,
        .nq = s.nq,
        .nk = s.nk,
        .d = s.d,
        .dv = s.dv,
        .scale = s.scale,
        .products = call->flags & (ATTN_CALL_F32_SCORES | ATTN_CALL_F32_SOFTMAX)
                        ? ME_F32
                        : type_of(&call->q),
        .wants_mass = call->key_mass.rank != 0,
        .band = (call->flags & ATTN_CALL_BAND) != 0,
        /* Beyond these bounds nothing changes, and sums of them cannot overflow. */
        .lo = me_max(call->band_lo, -s.nq - 1),
        .hi = me_min(call->band_hi, s.nk + 1),
    };
    p.lo = me_min(p.lo, s.nk + 1);
    p.hi = me_max(p.hi, -s.nq - 1);
    const struct me_kernels *kernels = op->kernels;
    if (!op->forced && s.nk < kernels->least_keys)
        kernels = kernels->fallback;
    cut_blocks(&p, kernels, threads);
    *made = (struct attn_op_plan){.op = op, .kernels = kernels, .problem = p};
    if (p.wants_mass && call->lse.rank == 0)
        made->lse_bytes = round_up((uint64_t)(s.batch * s.heads * s.nq) * sizeof(float));
    made->thread_bytes = thread_scratch(kernels, &p);
    made->scratch = made->lse_bytes + made->thread_bytes * threads;
    *scratch = made->scratch;
    *plan = made;
    return ATTN_OK;
}

static int task_run(const struct job *job, const struct me_kernels *kernels, int64_t task,
                    void *scratch)
{
    return (job->mass ? kernels->mass : kernels->attend)(job->problem, task, scratch);
}

static void job_body(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct job *job = arg;
    void *scratch = job->scratch + thread * job->thread_bytes;
    for (int64_t i = begin; i < end; i++)
        if (!task_run(job, job->kernels, i, scratch))
            task_run(job, job->kernels->fallback, i, scratch);
}

static void job_run(const attn_host *host, struct job *job, int64_t tasks)
{
    if (host->parallel_for && tasks > 1)
        host->parallel_for(host->ctx, tasks, 1, job_body, job);
    else if (tasks > 0)
        job_body(job, 0, tasks, 0);
}

static attn_status op_run(attn_op_plan *plan, const attn_op_call *call, attn_error *err)
{
    attn_status status = op_run_check(NAME, call, plan->scratch, err);
    if (status != ATTN_OK)
        return status;
    struct me_problem p = plan->problem;
    fill_views(&p, call);
    if (plan->lse_bytes)
        p.lse = (struct me_view){call->scratch, {p.heads * p.nq, p.nq, 1, 0}, ME_F32};
    struct job job = {&p, plan->kernels, 0, (char *)call->scratch + plan->lse_bytes,
                      plan->thread_bytes};
    job_run(plan->op->host, &job, p.batch * p.heads * p.blocks);
    job.mass = 1;
    if (p.wants_mass)
        job_run(plan->op->host, &job, p.batch * me_ceil_div(p.nk, ME_MASS_KEYS));
    return ATTN_OK;
}

static void op_release(attn_op_plan *plan)
{
    free(plan);
}

ATTN_EXPORT const attn_op_api attn_op_v1 = {
    .head =
        {
            .magic = ATTN_MAGIC,
            .abi = ATTN_ABI,
            .size = sizeof(attn_op_api),
            .devices = UINT64_C(1) << ATTN_DEVICE_CPU,
            .dtypes = ATTN_DTYPE_F32 | ATTN_DTYPE_F16 | ATTN_DTYPE_BF16,
            .id = "org.attnplug.memory_efficient",
            .version = ATTNPLUG_VERSION,
            .vendor = "attnplug",
            .summary = "tiled attention on the CPU: AVX-512, AVX2 or plain C, chosen at run time",
        },
    .create = op_create,
    .destroy = op_destroy,
    .supports = op_supports,
    .prepare = op_prepare,
    .run = op_run,
    .release = op_release,
};
