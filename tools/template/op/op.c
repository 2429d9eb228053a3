/* @NAME@: softmax(scale Q K^T + bias) V, as a plugin for whatever engine loads it.
 *
 * Written by tools/new-plugin: plain loops that keep every rule of the contract.  Put your kernel
 * in the place of attend_head(), which has one head's keys and values packed before it, or of
 * run(); narrow what supports() takes to what your kernel can do, and say so in the text.
 *
 * Build: make          Check: make check          Time: attnplug bench --op @ID@
 */
#include "attn_abi.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* What create keeps for run. */
struct attn_op {
    const attn_host *host;
};

__attribute__((format(printf, 3, 4))) static attn_status refuse(attn_error *err, attn_status status,
                                                                const char *format, ...)
{
    if (err && err->text && err->capacity) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, err->capacity, format, args);
        va_end(args);
    }
    return status;
}

/* -- what calls look like
 * -------------------------------------------------------------------------------- */

static int is_float32(const attn_tensor *t)
{
    return t->code == ATTN_CODE_FLOAT && t->bits == 32 && t->lanes == 1;
}

static int is_float(const attn_tensor *t)
{
    return t->lanes == 1 &&
           ((t->code == ATTN_CODE_FLOAT && (t->bits == 16 || t->bits == 32 || t->bits == 64)) ||
            (t->code == ATTN_CODE_BFLOAT && t->bits == 16));
}

static int same_type(const attn_tensor *a, const attn_tensor *b)
{
    return a->code == b->code && a->bits == b->bits && a->lanes == b->lanes;
}

static int is_bytes(const attn_tensor *t)
{
    return t->code == ATTN_CODE_UINT && t->bits == 8 && t->lanes == 1;
}

/* A tensor of this rank and shape on the CPU, or a status and a text that names it. */
static attn_status want(const attn_tensor *t, const char *name, uint32_t rank, const int64_t *shape,
                        int output, attn_error *err)
{
    if (t->rank != rank)
        return refuse(err, ATTN_INVALID, "%s: rank %u, expected %u", name, t->rank, rank);
    if (t->device_type != ATTN_DEVICE_CPU)
        return refuse(err, ATTN_INVALID, "%s: device type %d, expected %d (CPU)", name,
                      t->device_type, ATTN_DEVICE_CPU);
    for (uint32_t a = 0; a < rank; a++) {
        if (t->shape[a] < 0 || t->shape[a] != shape[a])
            return refuse(err, ATTN_INVALID, "%s: shape[%u] is %lld, expected %lld", name, a,
                          (long long)t->shape[a], (long long)shape[a]);
        if (output && t->stride[a] == 0 && t->shape[a] > 1)
            return refuse(err, ATTN_INVALID, "%s: stride[%u] is 0 in an output", name, a);
    }
    return ATTN_OK;
}

static attn_status check_shapes(const attn_op_call *c, attn_error *err)
{
    const int64_t B = c->q.shape[0], H = c->q.shape[1], Nq = c->q.shape[2], D = c->q.shape[3];
    const int64_t Hk = c->k.shape[1], Nk = c->k.shape[2], Dv = c->v.shape[3];
    const int64_t query[] = {B, H, Nq, D}, key[] = {B, Hk, Nk, D}, value[] = {B, Hk, Nk, Dv};
    const int64_t out[] = {B, H, Nq, Dv}, map[] = {B, H, Nq, Nk}, mass[] = {B, Nk};
    const struct {
        const attn_tensor *tensor;
        const char *name;
        uint32_t rank;
        const int64_t *shape;
        int optional, output;
    } wanted[] = {
        {&c->q, "q", 4, query, 0, 0},       {&c->k, "k", 4, key, 0, 0},
        {&c->v, "v", 4, value, 0, 0},       {&c->out, "out", 4, out, 0, 1},
        {&c->bias, "bias", 4, map, 1, 0},   {&c->mask, "mask", 4, map, 1, 0},
        {&c->lse, "lse", 3, query, 1, 1},   {&c->key_mass, "key_mass", 2, mass, 1, 1},
        {&c->probs, "probs", 4, map, 1, 1},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        if (wanted[i].optional && !wanted[i].tensor->rank)
            continue;
        attn_status s = want(wanted[i].tensor, wanted[i].name, wanted[i].rank, wanted[i].shape,
                             wanted[i].output, err);
        if (s != ATTN_OK)
            return s;
    }
    if (Hk < 1 ? H > 0 : H % Hk != 0)
        return refuse(err, ATTN_INVALID, "k: %lld heads, expected a divisor of q's %lld",
                      (long long)Hk, (long long)H);
    return ATTN_OK;
}

/* Types that are wrong for any op. */
static attn_status check_types(const attn_op_call *c, attn_error *err)
{
    if (!is_float(&c->q) || (c->bias.rank && !is_float(&c->bias)))
        return refuse(err, ATTN_INVALID, "q: type code %u, %u bits, bias: %u, %u, expected floats",
                      c->q.code, c->q.bits, c->bias.code, c->bias.bits);
    if (!same_type(&c->k, &c->q) || !same_type(&c->v, &c->q) || !same_type(&c->out, &c->q))
        return refuse(err, ATTN_INVALID, "k, v, out: expected the type of q, code %u, %u bits",
                      c->q.code, c->q.bits);
    if (c->mask.rank && !is_bytes(&c->mask))
        return refuse(err, ATTN_INVALID, "mask: type code %u, %u bits, expected unsigned bytes",
                      c->mask.code, c->mask.bits);
    if ((c->lse.rank && !is_float32(&c->lse)) || (c->key_mass.rank && !is_float32(&c->key_mass)) ||
        (c->probs.rank && !is_float32(&c->probs)))
        return refuse(err, ATTN_INVALID, "lse, key_mass, probs: expected fp32");
    return ATTN_OK;
}

static attn_status supports(attn_op *op, const attn_op_call *c, attn_error *err)
{
    (void)op;
    if (c->size < sizeof *c)
        return refuse(err, ATTN_INVALID, "call: size %u, expected %zu", c->size, sizeof *c);
    if (c->flags & ~(ATTN_CALL_BAND | ATTN_CALL_F32_SCORES | ATTN_CALL_F32_SOFTMAX))
        return refuse(err, ATTN_UNSUPPORTED, "call: flags %#x, some unknown", c->flags);
    for (const attn_ext *e = c->ext; e; e = e->next)
        if (e->flags & ATTN_EXT_REQUIRED)
            return refuse(err, ATTN_UNSUPPORTED, "extension %s is not known", e->id);
    attn_status s = check_shapes(c, err);
    if (s == ATTN_OK)
        s = check_types(c, err);
    if (s != ATTN_OK)
        return s;
    if (!is_float32(&c->q) || (c->bias.rank && !is_float32(&c->bias)))
        return refuse(err, ATTN_UNSUPPORTED, "@NAME@ computes in fp32 only");
    return ATTN_OK;
}

/* -- life
 * ------------------------------------------------------------------------------------------------
 */

static attn_status create(const attn_host *host, const attn_device *device,
                          const attn_param *params, uint32_t n_params, attn_op **out,
                          attn_error *err)
{
    if (device->type != ATTN_DEVICE_CPU)
        return refuse(err, ATTN_UNSUPPORTED, "device type %d; @NAME@ runs on the CPU",
                      device->type);
    if (n_params)
        return refuse(err, ATTN_INVALID, "parameter '%s' is not known", params[0].name);
    attn_op *op = malloc(sizeof *op);
    if (!op)
        return refuse(err, ATTN_NOMEM, "no memory for @NAME@");
    op->host = host;
    *out = op;
    return ATTN_OK;
}

static void destroy(attn_op *op)
{
    free(op);
}

static uint32_t slots(const attn_op *op)
{
    return op->host->parallel_for ? op->host->max_threads : 1;
}

/* What one slot of parallel_for works in: keys and values of one head, gathered so that the kernel
 * sees plain arrays, and for each key a probability and a column sum. */
struct memory {
    double *p, *column; /* [Nk] */
    float *q, *k, *v;   /* [D], [Nk, D], [Nk, Dv] */
};

static uint64_t memory_bytes(const attn_op_call *c)
{
    const uint64_t D = (uint64_t)c->q.shape[3], Dv = (uint64_t)c->v.shape[3];
    const uint64_t Nk = (uint64_t)c->k.shape[2];
    const uint64_t bytes = 2 * Nk * sizeof(double) + (D + Nk * (D + Dv)) * sizeof(float);
    return (bytes + 63) / 64 * 64; /* slots share no cache line */
}

static struct memory memory_of(const attn_op_call *c, uint32_t slot)
{
    const int64_t Nk = c->k.shape[2], D = c->q.shape[3];
    double *p = (double *)((char *)c->scratch + slot * memory_bytes(c));
    float *q = (float *)(p + 2 * Nk);
    return (struct memory){p, p + Nk, q, q + D, q + D + Nk * D};
}

/* Nothing to plan but scratch, which is the host's: one piece for each slot. */
static attn_status prepare(attn_op *op, const attn_op_call *c, attn_op_plan **plan,
                           uint64_t *scratch, attn_error *err)
{
    attn_status s = supports(op, c, err);
    if (s != ATTN_OK)
        return s;
    *plan = (attn_op_plan *)op;
    *scratch = slots(op) * memory_bytes(c);
    return ATTN_OK;
}

static void release(attn_op_plan *plan)
{
    (void)plan;
}

/* -- the kernel
 * ------------------------------------------------------------------------------------------ */

#define AT(type, t, a, b, c, d)                                                                    \
    ((type *)(t).data)[(a) * (t).stride[0] + (b) * (t).stride[1] + (c) * (t).stride[2] +           \
                       (d) * (t).stride[3]]

/* Rows [begin, end) of head h of one of k and v, packed. */
static void gather(const attn_tensor *t, int64_t b, int64_t h, int64_t begin, int64_t end,
                   float *to)
{
    for (int64_t j = begin; j < end; j++)
        for (int64_t d = 0; d < t->shape[3]; d++)
            *to++ = AT(const float, *t, b, h, j, d);
}

/* Whether query i may see key j. */
static int sees(const attn_op_call *c, int64_t b, int64_t h, int64_t i, int64_t j)
{
    if ((c->flags & ATTN_CALL_BAND) && (j - i < c->band_lo || j - i > c->band_hi))
        return 0;
    return !c->mask.rank || AT(const unsigned char, c->mask, b, h, i, j) != 0;
}

/* The scores of query i, minus infinity where it may not see; the largest. */
static double scores(const attn_op_call *c, double scale, int64_t b, int64_t h, int64_t i,
                     const struct memory *m)
{
    const int64_t Nk = c->k.shape[2], D = c->q.shape[3];
    double top = -INFINITY;
    for (int64_t j = 0; j < Nk; j++) {
        double s = 0;
        for (int64_t d = 0; d < D; d++)
            s += (double)m->q[d] * (double)m->k[j * D + d];
        s = scale * s + (c->bias.rank ? (double)AT(const float, c->bias, b, h, i, j) : 0);
        m->p[j] = sees(c, b, h, i, j) ? s : -INFINITY;
        top = m->p[j] > top ? m->p[j] : top;
    }
    return top;
}

/* One row: out, lse and probs; m->p ends as the row of the softmax. */
static void attend_row(const attn_op_call *c, double scale, int64_t b, int64_t h, int64_t i,
                       const struct memory *m)
{
    const int64_t Nk = c->k.shape[2], Dv = c->v.shape[3];
    gather(&c->q, b, h, i, i + 1, m->q);
    double top = scores(c, scale, b, h, i, m), sum = 0;
    for (int64_t j = 0; j < Nk; j++)
        sum += m->p[j] = m->p[j] == -INFINITY ? 0 : exp(m->p[j] - top);
    for (int64_t j = 0; sum > 0 && j < Nk; j++) /* a row that sees nothing stays 0 */
        m->p[j] /= sum;
    for (int64_t d = 0; d < Dv; d++) {
        double o = 0;
        for (int64_t j = 0; j < Nk; j++)
            o += m->p[j] * (double)m->v[j * Dv + d];
        AT(float, c->out, b, h, i, d) = (float)o;
    }
    for (int64_t j = 0; c->probs.rank && j < Nk; j++)
        AT(float, c->probs, b, h, i, j) = (float)m->p[j];
    if (c->lse.rank)
        ((float *)c->lse.data)[b * c->lse.stride[0] + h * c->lse.stride[1] + i * c->lse.stride[2]] =
            sum == 0 ? -INFINITY : (float)(top + log(sum));
}

/* One head of one sample: what a kernel of yours takes the place of.  Query head h reads key head
 * hk; k and v lie packed in m; Nk may be 0, and then out is 0 and lse minus infinity. */
static void attend_head(const attn_op_call *c, double scale, int64_t b, int64_t h,
                        const struct memory *m)
{
    const int64_t Nk = c->k.shape[2], hk = h / (c->q.shape[1] / c->k.shape[1]);
    gather(&c->k, b, hk, 0, Nk, m->k);
    gather(&c->v, b, hk, 0, Nk, m->v);
    for (int64_t i = 0; i < c->q.shape[2]; i++) {
        attend_row(c, scale, b, h, i, m);
        for (int64_t j = 0; c->key_mass.rank && j < Nk; j++)
            m->column[j] += m->p[j];
    }
}

struct job {
    const attn_op_call *call;
    double scale;
};

/* Units of work are heads of samples. */
static void heads_body(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct job *job = arg;
    const struct memory m = memory_of(job->call, thread);
    const int64_t H = job->call->q.shape[1];
    for (int64_t n = begin; n < end; n++)
        attend_head(job->call, job->scale, n / H, n % H, &m);
}

/* key_mass is a sum over all heads: with it the units are samples, so that the order of the sums
 * never changes. */
static void samples_body(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct job *job = arg;
    const attn_op_call *c = job->call;
    const attn_tensor *mass = &c->key_mass;
    const struct memory m = memory_of(c, thread);
    const int64_t H = c->q.shape[1], Nk = c->k.shape[2];
    for (int64_t b = begin; b < end; b++) {
        for (int64_t j = 0; j < Nk; j++)
            m.column[j] = 0;
        for (int64_t h = 0; h < H; h++)
            attend_head(c, job->scale, b, h, &m);
        for (int64_t j = 0; j < Nk; j++)
            ((float *)mass->data)[b * mass->stride[0] + j * mass->stride[1]] =
                H ? (float)(m.column[j] / (double)H) : 0;
    }
}

static attn_status run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    const attn_host *host = ((attn_op *)plan)->host;
    struct job job = {c, c->scale != 0 ? (double)c->scale : 1 / sqrt((double)c->q.shape[3])};
    const int64_t B = c->q.shape[0], units = c->key_mass.rank ? B : B * c->q.shape[1];
    void (*body)(void *, int64_t, int64_t, uint32_t) = c->key_mass.rank ? samples_body : heads_body;
    (void)err;
    if (host->parallel_for)
        host->parallel_for(host->ctx, units, 1, body, &job);
    else
        body(&job, 0, units, 0);
    return ATTN_OK;
}

const attn_op_api attn_op_v1 = {
    .head = {.magic = ATTN_MAGIC,
             .abi = ATTN_ABI,
             .size = sizeof(attn_op_api),
             .devices = UINT64_C(1) << ATTN_DEVICE_CPU,
             .dtypes = ATTN_DTYPE_F32,
             .id = "@ID@",
             .version = "0.1.0",
             .vendor = "@VENDOR@",
             .summary = "plain loops"},
    .create = create,
    .destroy = destroy,
    .supports = supports,
    .prepare = prepare,
    .run = run,
    .release = release,
};
