/* verify.c: nothing is timed that is not right. */
#include "bench.h"

#include "../cli.h"
#include "error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

uint64_t bench_bytes(const attn_tensor *t)
{
    uint64_t n = t->bits / 8;
    for (uint32_t i = 0; i < t->rank; i++) {
        n *= (uint64_t)t->shape[i];
    }
    return t->rank ? n : 0;
}

static attn_tensor packed(const attn_device *device, uint8_t code, uint8_t bits, uint32_t rank,
                          const int64_t *shape)
{
    attn_tensor t = cli_tensor(device, code, bits, rank, shape);
    t.align = 256;
    return t;
}

attn_op_call bench_call(const struct bench *b, const struct bench_shape *s, uint8_t code,
                        uint8_t bits)
{
    const attn_device *device = &b->place->device;
    const int64_t q[4] = {s->b, s->h, s->nq, s->d}, k[4] = {s->b, s->h, s->nk, s->d},
                  mass[2] = {s->b, s->nk};
    attn_op_call call = {.size = sizeof call};
    call.q = call.out = packed(device, code, bits, 4, q);
    call.k = call.v = packed(device, code, bits, 4, k);
    if (b->key_mass) {
        call.key_mass = packed(device, ATTN_CODE_FLOAT, 32, 2, mass);
    }
    return call;
}

/* One run through the device's memory; out and mass are the host's. */
struct once {
    const struct bench *b;
    attn_host_op *op;
    attn_op_call call;
    attn_host_op_plan *plan;
    uint64_t scratch;
};

static attn_status run_one(void *ctx, int i, void *stream, attn_error *err)
{
    struct once *o = ctx;
    (void)i;
    o->call.stream = stream;
    return attn_host_op_run(o->plan, &o->call, err);
}

enum { SLOTS = 6 };

static attn_status fill(struct once *o, const void *const from[SLOTS], void *const to[SLOTS],
                        attn_error *err)
{
    struct bench_place *p = o->b->place;
    attn_tensor *tensors[SLOTS] = {&o->call.q,   &o->call.k,        &o->call.v,
                                   &o->call.out, &o->call.key_mass, NULL};
    attn_status status = ATTN_OK;
    for (int i = 0; i < SLOTS && status == ATTN_OK; i++) {
        const uint64_t bytes = i == 5 ? o->scratch : bench_bytes(tensors[i]);
        void **data = i == 5 ? &o->call.scratch : &tensors[i]->data;
        if (!bytes) {
            continue;
        }
        status = p->alloc(p, bytes, data, err);
        if (status == ATTN_OK && i < 5) {
            status = p->put(p, *data, from[i] ? from[i] : to[i], bytes, err);
        }
    }
    o->call.scratch_bytes = o->scratch;
    return status;
}

/* out and mass hold NaN before and the results after. */
static attn_status run_once(const struct bench *b, attn_host_op *op, const struct bench_shape *s,
                            uint8_t code, uint8_t bits, const struct bench_inputs *in, void *out,
                            void *mass, double *ms, attn_error *err)
{
    struct bench_place *p = b->place;
    double start = 0;
    struct once o = {.b = b, .op = op, .call = bench_call(b, s, code, bits)};
    const void *const from[SLOTS] = {in->q, in->k, in->v};
    void *const to[SLOTS] = {NULL, NULL, NULL, out, mass};
    attn_status status = attn_host_op_prepare(op, &o.call, &o.plan, &o.scratch, err);
    if (status != ATTN_OK) {
        return status;
    }
    status = fill(&o, from, to, err);
    if (status == ATTN_OK) {
        start = bench_now_ms();
        status = p->once(p, run_one, &o, 1, err);
        *ms = bench_now_ms() - start;
    }
    if (status == ATTN_OK) {
        status = p->get(p, out, o.call.out.data, bench_bytes(&o.call.out), err);
    }
    if (status == ATTN_OK && mass) {
        status = p->get(p, mass, o.call.key_mass.data, bench_bytes(&o.call.key_mass), err);
    }
    void *const taken[SLOTS] = {o.call.q.data,   o.call.k.data,        o.call.v.data,
                                o.call.out.data, o.call.key_mass.data, o.call.scratch};
    for (int i = 0; i < SLOTS; i++) {
        p->free(p, taken[i]);
    }
    attn_host_op_release(o.plan);
    return status;
}

static double distance(const float *got, const float *want, int64_t n)
{
    double off = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        const double d = (double)got[i] - (double)want[i];
        off += d * d;
        norm += (double)want[i] * (double)want[i];
    }
    return norm > 0 ? sqrt(off / norm) : (off > 0 ? INFINITY : 0);
}

/* What verification holds on the host. */
struct both {
    struct bench_shape part;     /* what the reference computes */
    int64_t out, rows_q, rows_k; /* elements: of out in all, of the part's q and of its k */
    void *got;
    float *got_mass, *want, *want_mass, *wide, *got_wide;
};

static void *nothing_yet(uint64_t bytes)
{
    void *p = malloc(bytes + 1);
    if (p) {
        memset(p, 0xFF, bytes); /* NaN in every type */
    }
    return p;
}

static bool both_open(const struct bench *b, const struct bench_shape *s, struct both *v)
{
    const int64_t limit = b->place->verified;
    v->part = *s;
    if (limit && !b->key_mass) {
        v->part.b = v->part.h = 1;
        v->part.nq = s->nq < limit ? s->nq : limit;
    }
    v->out = s->b * s->h * s->nq * s->d;
    v->rows_q = v->part.b * v->part.h * v->part.nq * s->d;
    v->rows_k = v->part.b * v->part.h * s->nk * s->d;
    v->got = nothing_yet((uint64_t)v->out * (b->bits / 8));
    v->got_wide = nothing_yet((uint64_t)v->rows_q * 4);
    v->want = nothing_yet((uint64_t)v->rows_q * 4);
    v->wide = nothing_yet((uint64_t)(v->rows_q + 2 * v->rows_k) * 4);
    v->got_mass = nothing_yet((uint64_t)(s->b * s->nk) * 4);
    v->want_mass = nothing_yet((uint64_t)(s->b * s->nk) * 4);
    return v->got && v->got_wide && v->want && v->wide && v->got_mass && v->want_mass;
}

static void both_close(struct both *v)
{
    free(v->got);
    free(v->got_wide);
    free(v->want);
    free(v->wide);
    free(v->got_mass);
    free(v->want_mass);
}

/* The part is the last rows of the last head, or everything: the ends of the packed tensors. */
static const void *tail(const void *all, int64_t elements, int64_t last, uint8_t bits)
{
    return (const char *)all + (elements - last) * (bits / 8);
}

attn_status bench_verify(const struct bench *b, const struct bench_shape *s, attn_host_op *op,
                         attn_host_op *reference, const struct bench_inputs *in, double *error,
                         double *reference_ms, attn_error *err)
{
    struct both v = {0};
    double ms = 0;
    const int64_t keys = s->b * s->h * s->nk * s->d;
    attn_status status = ATTN_OK;
    if (!both_open(b, s, &v)) {
        status = attn_fail(err, ATTN_NOMEM, "no memory to verify %lld elements", (long long)v.out);
    }
    if (status == ATTN_OK) {
        status = run_once(b, op, s, b->code, b->bits, in, v.got, b->key_mass ? v.got_mass : NULL,
                          &ms, err);
    }
    if (status == ATTN_OK) {
        const struct bench_inputs wide = {v.wide, v.wide + v.rows_q, v.wide + v.rows_q + v.rows_k};
        bench_widen(tail(in->q, v.out, v.rows_q, b->bits), wide.q, v.rows_q, b->code, b->bits);
        bench_widen(tail(in->k, keys, v.rows_k, b->bits), wide.k, v.rows_k, b->code, b->bits);
        bench_widen(tail(in->v, keys, v.rows_k, b->bits), wide.v, v.rows_k, b->code, b->bits);
        status = run_once(b, reference, &v.part, ATTN_CODE_FLOAT, 32, &wide, v.want,
                          b->key_mass ? v.want_mass : NULL, &ms, err);
        *reference_ms = ms * bench_flop(s) / bench_flop(&v.part);
    }
    if (status == ATTN_OK) {
        bench_widen(tail(v.got, v.out, v.rows_q, b->bits), v.got_wide, v.rows_q, b->code, b->bits);
        *error = distance(v.got_wide, v.want, v.rows_q);
        if (b->key_mass) {
            *error = fmax(*error, distance(v.got_mass, v.want_mass, s->b * s->nk));
        }
    }
    both_close(&v);
    return status;
}
