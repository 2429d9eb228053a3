/* math: softmax(scale Q K^T + bias) V in plain loops with double sums: the reference.
 *
 * A task takes one query row: all its scores, their maximum, their exponentials, the weighted sum
 * of values.  key_mass takes a second pass, in which a task owns keys and adds up the rows that see
 * them, so that its sums too have one order.  Inputs of any of its types are widened to double;
 * nothing is rounded before the result is written.
 *
 *   math.c        this file
 *   ../../common  half.h (element types), op_call.h (what a call must look like)
 *
 * Check: meson test -C build ops      Time: build/tests/ops/test_ops --bench
 */
#include "attn_abi.h"
#include "half.h"
#include "op_call.h"

#include <stdlib.h>
#include <string.h>

#define NAME      "math"
#define ALIGNMENT 256
#define MASS_KEYS 16 /* keys of a task in the second pass */

struct attn_op {
    const attn_host *host;
};

struct attn_op_plan {
    const struct attn_op *op;
    struct op_shape shape;
    uint64_t lse_bytes; /* [B, H, Nq] doubles for the second pass, 0 without it */
    uint64_t thread_bytes;
    uint64_t scratch;
};

struct job {
    const struct attn_op_plan *plan;
    const attn_op_call *call;
    double *lse; /* NULL without a second pass */
    char *scratch;
};

/* A row of a tensor as bytes: stride in bytes, type by code and bits. */
struct row {
    char *data;
    int64_t step;
    uint64_t dtype; /* 0: bytes of a mask */
};

static uint64_t round_up(uint64_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static struct row row_at(const attn_tensor *t, int64_t b, int64_t h, int64_t i)
{
    int64_t size = t->bits / 8;
    struct row row = {t->data, t->stride[3] * size, op_dtype(t)};
    row.data += (b * t->stride[0] + h * t->stride[1] + i * t->stride[2]) * size;
    return row;
}

static double row_get(const struct row *row, int64_t i)
{
    const char *p = row->data + i * row->step;
    uint16_t h;
    float f;
    if (row->dtype == ATTN_DTYPE_F32) {
        memcpy(&f, p, sizeof f);
        return (double)f;
    }
    if (row->dtype == 0)
        return *p ? 1.0 : 0.0;
    memcpy(&h, p, sizeof h);
    return (double)(row->dtype == ATTN_DTYPE_F16 ? fp16_to_float(h) : bf16_to_float(h));
}

static void row_set(const struct row *row, int64_t i, double value)
{
    char *p = row->data + i * row->step;
    float f = (float)value;
    uint16_t h;
    if (row->dtype == ATTN_DTYPE_F32) {
        memcpy(p, &f, sizeof f);
        return;
    }
    h = row->dtype == ATTN_DTYPE_F16 ? fp16_from_float(f) : bf16_from_float(f);
    memcpy(p, &h, sizeof h);
}

static void row_read(const struct row *row, int64_t n, double *values)
{
    for (int64_t i = 0; i < n; i++)
        values[i] = row_get(row, i);
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Whether query i of head (b, h) may see key j. */
static int may_see(const attn_op_call *c, int64_t b, int64_t h, int64_t i, int64_t j)
{
    if ((c->flags & ATTN_CALL_BAND) && (j - i < c->band_lo || j - i > c->band_hi))
        return 0;
    if (c->mask.rank == 0)
        return 1;
    struct row row = row_at(&c->mask, b, h, i);
    return row_get(&row, j) != 0.0;
}

/* The score of a pair that may see each other; q holds the query, k is room for a key. */
static double score(const struct job *job, const double *q, double *k, int64_t b, int64_t h,
                    int64_t i, int64_t j)
{
    const struct op_shape *s = &job->plan->shape;
    const attn_op_call *c = job->call;
    struct row key = row_at(&c->k, b, h / (s->heads / s->kv_heads), j);
    row_read(&key, s->d, k);
    double x = (double)s->scale * dot(q, k, s->d);
    if (c->bias.rank != 0) {
        struct row bias = row_at(&c->bias, b, h, i);
        x += row_get(&bias, j);
    }
    return x;
}

/* Scores to probabilities in place; returns the log-sum-exp. */
static double softmax(double *x, int64_t n)
{
    double max = -INFINITY, sum = 0.0;
    for (int64_t j = 0; j < n; j++)
        max = x[j] > max || isnan(x[j]) ? x[j] : max;
    if (max == -INFINITY) {
        memset(x, 0, (size_t)n * sizeof *x);
        return -INFINITY;
    }
    for (int64_t j = 0; j < n; j++) {
        x[j] = exp(x[j] - max);
        sum += x[j];
    }
    for (int64_t j = 0; j < n; j++)
        x[j] /= sum;
    return max + log(sum);
}

/* One query row. Room of a thread: scores [Nk], query [D], key [D], value [Dv], sum [Dv]. */
static void attend_row(const struct job *job, int64_t task, double *room)
{
    const struct op_shape *s = &job->plan->shape;
    const attn_op_call *c = job->call;
    int64_t i = task % s->nq, h = task / s->nq % s->heads, b = task / s->nq / s->heads;
    double *p = room, *q = p + s->nk, *k = q + s->d, *v = k + s->d, *sum = v + s->dv;
    struct row query = row_at(&c->q, b, h, i), out = row_at(&c->out, b, h, i);
    row_read(&query, s->d, q);
    for (int64_t j = 0; j < s->nk; j++)
        p[j] = may_see(c, b, h, i, j) ? score(job, q, k, b, h, i, j) : -INFINITY;
    double lse = softmax(p, s->nk);
    memset(sum, 0, (size_t)s->dv * sizeof *sum);
    for (int64_t j = 0; j < s->nk; j++) {
        if (p[j] == 0.0)
            continue;
        struct row value = row_at(&c->v, b, h / (s->heads / s->kv_heads), j);
        row_read(&value, s->dv, v);
        for (int64_t d = 0; d < s->dv; d++)
            sum[d] += p[j] * v[d];
    }
    for (int64_t d = 0; d < s->dv; d++)
        row_set(&out, d, sum[d]);
    if (c->probs.rank != 0) {
        struct row probs = row_at(&c->probs, b, h, i);
        for (int64_t j = 0; j < s->nk; j++)
            row_set(&probs, j, p[j]);
    }
    if (c->lse.rank != 0)
        ((float *)c->lse.data)[b * c->lse.stride[0] + h * c->lse.stride[1] + i * c->lse.stride[2]] =
            (float)lse;
    if (job->lse)
        job->lse[task] = lse;
}

/* The mass of MASS_KEYS keys of one batch entry. */
static void mass_keys(const struct job *job, int64_t task, double *room)
{
    const struct op_shape *s = &job->plan->shape;
    const attn_op_call *c = job->call;
    int64_t tiles = (s->nk + MASS_KEYS - 1) / MASS_KEYS, b = task / tiles;
    int64_t first = task % tiles * MASS_KEYS, last = first + MASS_KEYS;
    double *q = room, *k = q + s->d, mass[MASS_KEYS] = {0.0};
    last = last < s->nk ? last : s->nk;
    for (int64_t h = 0; h < s->heads; h++)
        for (int64_t i = 0; i < s->nq; i++) {
            double lse = job->lse[(b * s->heads + h) * s->nq + i];
            struct row query = row_at(&c->q, b, h, i);
            row_read(&query, s->d, q);
            for (int64_t j = first; j < last; j++)
                if (lse != -INFINITY && may_see(c, b, h, i, j))
                    mass[j - first] += exp(score(job, q, k, b, h, i, j) - lse);
        }
    for (int64_t j = first; j < last; j++)
        ((float *)c->key_mass.data)[b * c->key_mass.stride[0] + j * c->key_mass.stride[1]] =
            (float)(s->heads ? mass[j - first] / (double)s->heads : 0.0);
}

static void attend_body(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct job *job = arg;
    for (int64_t task = begin; task < end; task++)
        attend_row(job, task, (double *)(job->scratch + thread * job->plan->thread_bytes));
}

static void mass_body(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct job *job = arg;
    for (int64_t task = begin; task < end; task++)
        mass_keys(job, task, (double *)(job->scratch + thread * job->plan->thread_bytes));
}

static void run_tasks(const attn_host *host, struct job *job, int64_t n,
                      void (*body)(void *, int64_t, int64_t, uint32_t))
{
    if (host->parallel_for && n > 1)
        host->parallel_for(host->ctx, n, 1, body, job);
    else if (n > 0)
        body(job, 0, n, 0);
}

static attn_status op_create(const attn_host *host, const attn_device *device,
                             const attn_param *params, uint32_t n_params, attn_op **op,
                             attn_error *err)
{
    attn_status status = op_create_check(NAME, host, device, params, n_params, err);
    if (status != ATTN_OK)
        return status;
    struct attn_op *made = malloc(sizeof *made);
    if (!made)
        return attn_fail(err, ATTN_NOMEM, NAME ": no memory for %zu bytes", sizeof *made);
    made->host = host;
    *op = made;
    return ATTN_OK;
}

static void op_destroy(attn_op *op)
{
    free(op);
}

static attn_status op_supports(attn_op *op, const attn_op_call *call, attn_error *err)
{
    struct op_shape shape;
    (void)op;
    return op_cpu_call_check(NAME, call, &shape, err);
}

static attn_status op_prepare(attn_op *op, const attn_op_call *call, attn_op_plan **plan,
                              uint64_t *scratch, attn_error *err)
{
    struct op_shape s;
    attn_status status = op_cpu_call_check(NAME, call, &s, err);
    if (status != ATTN_OK)
        return status;
    struct attn_op_plan *made = malloc(sizeof *made);
    if (!made)
        return attn_fail(err, ATTN_NOMEM, NAME ": no memory for %zu bytes", sizeof *made);
    uint32_t threads = op->host->parallel_for ? op->host->max_threads : 1;
    *made = (struct attn_op_plan){.op = op, .shape = s};
    if (call->key_mass.rank != 0)
        made->lse_bytes = round_up((uint64_t)(s.batch * s.heads * s.nq) * sizeof(double));
    made->thread_bytes = round_up((uint64_t)(s.nk + 2 * s.d + 2 * s.dv) * sizeof(double));
    made->scratch = made->lse_bytes + made->thread_bytes * threads;
    *scratch = made->scratch;
    *plan = made;
    return ATTN_OK;
}

static attn_status op_run(attn_op_plan *plan, const attn_op_call *call, attn_error *err)
{
    attn_status status = op_run_check(NAME, call, plan->scratch, err);
    if (status != ATTN_OK)
        return status;
    const struct op_shape *s = &plan->shape;
    struct job job = {plan, call, NULL, NULL};
    if (call->scratch)
        job.scratch = (char *)call->scratch + plan->lse_bytes;
    if (plan->lse_bytes)
        job.lse = call->scratch;
    run_tasks(plan->op->host, &job, s->batch * s->heads * s->nq, attend_body);
    if (call->key_mass.rank != 0)
        run_tasks(plan->op->host, &job, s->batch * ((s->nk + MASS_KEYS - 1) / MASS_KEYS),
                  mass_body);
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
            .id = "org.attnplug.math",
            .version = ATTNPLUG_VERSION,
            .vendor = "attnplug",
            .summary = "the reference on the CPU: plain loops, double sums",
        },
    .create = op_create,
    .destroy = op_destroy,
    .supports = op_supports,
    .prepare = op_prepare,
    .run = op_run,
    .release = op_release,
};
