/* probe_call.c: builds the calls of a probe and checks their results in double precision. */
#include "probe_call.h"

#include "error.h"

#include <math.h>
#include <string.h>

enum { OUTPUTS = 1, MASKED = 2 };

static const struct {
    int64_t b, h, nq, nk, d;
    int flags;
} cases[] = {
    {1, 2, 3, 5, 8, 0},          {1, 2, 3, 5, 8, OUTPUTS},
    {2, 3, 5, 7, 4, OUTPUTS},    {2, 3, PROBE_QUERIES, PROBE_KEYS, PROBE_DIM, 0},
    {1, 2, 32, 64, 32, OUTPUTS}, {2, 3, PROBE_QUERIES, PROBE_KEYS, PROBE_DIM, OUTPUTS | MASKED},
};

static attn_tensor view(void *data, uint8_t code, uint8_t bits, uint32_t rank,
                        const int64_t shape[4])
{
    attn_tensor t = {.data = data,
                     .device_type = ATTN_DEVICE_CPU,
                     .code = code,
                     .bits = bits,
                     .lanes = 1,
                     .rank = rank};
    int64_t stride = 1;
    for (uint32_t i = rank; i-- > 0;) {
        t.shape[i] = shape[i];
        t.stride[i] = stride;
        stride *= shape[i];
    }
    return t;
}

static void fill(float *data, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (float)(int32_t)seed / 2147483648.0f;
    }
}

bool probe_call_make(int number, probe_call *c)
{
    if (number < 0 || (size_t)number >= sizeof cases / sizeof *cases) {
        return false;
    }
    int64_t b = cases[number].b, h = cases[number].h, nq = cases[number].nq;
    int64_t nk = cases[number].nk, d = cases[number].d;
    const int64_t q[4] = {b, h, nq, d}, k[4] = {b, h, nk, d}, map[4] = {b, h, nq, nk};
    const int64_t mass[4] = {b, nk, 0, 0};
    memset(c, 0xff, sizeof *c);
    fill(c->q, sizeof c->q / 4, 1);
    fill(c->k, sizeof c->k / 4, 2);
    fill(c->v, sizeof c->v / 4, 3);
    c->call = (attn_op_call){.size = sizeof c->call};
    c->call.q = view(c->q, ATTN_CODE_FLOAT, 32, 4, q);
    c->call.k = view(c->k, ATTN_CODE_FLOAT, 32, 4, k);
    c->call.v = view(c->v, ATTN_CODE_FLOAT, 32, 4, k);
    c->call.out = view(c->out, ATTN_CODE_FLOAT, 32, 4, q);
    if (cases[number].flags & OUTPUTS) {
        c->call.lse = view(c->lse, ATTN_CODE_FLOAT, 32, 3, q);
        c->call.key_mass = view(c->key_mass, ATTN_CODE_FLOAT, 32, 2, mass);
    }
    if (cases[number].flags & MASKED) {
        c->call.flags = ATTN_CALL_BAND;
        c->call.band_lo = -20;
        c->call.band_hi = nk - nq;
        for (size_t i = 0; i < sizeof c->mask; i++) {
            c->mask[i] = i % 5 != 0;
        }
        c->call.mask = view(c->mask, ATTN_CODE_UINT, 8, 4, map);
    }
    return true;
}

/* Probabilities of one row and its log-sum-exp. */
static double row(const attn_op_call *c, int64_t bh, int64_t i, double p[PROBE_KEYS])
{
    int64_t nq = c->q.shape[2], nk = c->k.shape[2], d = c->q.shape[3];
    const float *q = (const float *)c->q.data + (bh * nq + i) * d;
    double sum = 0;
    for (int64_t j = 0; j < nk; j++) {
        const float *k = (const float *)c->k.data + (bh * nk + j) * d;
        const uint8_t *mask = (const uint8_t *)c->mask.data + (bh * nq + i) * nk + j;
        double s = 0;
        for (int64_t e = 0; e < d; e++) {
            s += (double)q[e] * (double)k[e];
        }
        bool seen = (!c->mask.rank || *mask) &&
                    (!(c->flags & ATTN_CALL_BAND) || (j - i >= c->band_lo && j - i <= c->band_hi));
        p[j] = seen ? exp(s / sqrt((double)d)) : 0;
        sum += p[j];
    }
    for (int64_t j = 0; j < nk && sum > 0; j++) {
        p[j] /= sum;
    }
    return log(sum);
}

/* The larger error; NaN wins. */
static double worse(double worst, double expected, float got)
{
    double e = expected == (double)got ? 0 : fabs(expected - (double)got);
    return isnan(worst) || isnan(e) || e > worst ? (isnan(worst) ? worst : e) : worst;
}

static double head_error(const attn_op_call *c, int64_t bh, double mass[PROBE_KEYS])
{
    int64_t nq = c->q.shape[2], nk = c->k.shape[2], d = c->v.shape[3];
    double worst = 0;
    for (int64_t i = 0; i < nq; i++) {
        double p[PROBE_KEYS];
        double lse = row(c, bh, i, p);
        for (int64_t e = 0; e < d; e++) {
            double o = 0;
            for (int64_t j = 0; j < nk; j++) {
                o += p[j] * (double)((const float *)c->v.data)[(bh * nk + j) * d + e];
            }
            worst = worse(worst, o, ((const float *)c->out.data)[(bh * nq + i) * d + e]);
        }
        if (c->lse.rank) {
            worst = worse(worst, lse, ((const float *)c->lse.data)[bh * nq + i]);
        }
        for (int64_t j = 0; j < nk; j++) {
            mass[j] += p[j] / (double)c->q.shape[1];
        }
    }
    return worst;
}

bool probe_call_right(const probe_call *p, bool approximate, attn_error *err)
{
    const attn_op_call *c = &p->call;
    const double bound = approximate ? 0.1 : 1e-3; /* a fault of the code, not of its rounding */
    double worst = 0;
    for (int64_t b = 0; b < c->q.shape[0]; b++) {
        double mass[PROBE_KEYS] = {0};
        for (int64_t h = 0; h < c->q.shape[1]; h++) {
            double e = head_error(c, b * c->q.shape[1] + h, mass);
            worst = isnan(e) || e > worst ? e : worst;
            if (!(worst < bound)) {
                break;
            }
        }
        for (int64_t j = 0; j < c->k.shape[2] && c->key_mass.rank; j++) {
            worst = worse(worst, mass[j], ((const float *)c->key_mass.data)[b * c->k.shape[2] + j]);
        }
        if (!(worst < bound)) {
            attn_fail(err, ATTN_INTERNAL,
                      "an attention of %lld heads, %lld x %lld, dimension %lld is off by %g",
                      (long long)c->q.shape[1], (long long)c->q.shape[2], (long long)c->k.shape[2],
                      (long long)c->q.shape[3], worst);
            return false;
        }
    }
    return true;
}
