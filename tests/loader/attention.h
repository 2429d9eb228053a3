/* attention.h: a small attention for tests of loading and routing: inputs, a call, and what must
 * come out, in double precision. */
#ifndef TESTS_LOADER_ATTENTION_H
#define TESTS_LOADER_ATTENTION_H

#include "attn_abi.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { B = 2, H = 3, NQ = 5, NK = 7, D = 4 };

typedef struct {
    float q[B * H * NQ * D], k[B * H * NK * D], v[B * H * NK * D];
    float out[B * H * NQ * D], lse[B * H * NQ], key_mass[B * NK];
} attention;

static inline float attention_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(*state >> 40) / (float)(1 << 23) - 1;
}

/* Outputs are poisoned. */
static inline void attention_fill(attention *a, uint64_t seed)
{
    for (size_t i = 0; i < sizeof a->q / 4; i++) {
        a->q[i] = 2 * attention_random(&seed);
    }
    for (size_t i = 0; i < sizeof a->k / 4; i++) {
        a->k[i] = 2 * attention_random(&seed);
        a->v[i] = attention_random(&seed);
    }
    memset(a->out, 0xff, sizeof a->out);
    memset(a->lse, 0xff, sizeof a->lse);
    memset(a->key_mass, 0xff, sizeof a->key_mass);
}

static inline attn_tensor attention_tensor(void *data, uint32_t rank, int64_t a, int64_t b,
                                           int64_t c, int64_t d)
{
    const int64_t shape[4] = {a, b, c, d};
    attn_tensor t = {.data = data,
                     .device_type = ATTN_DEVICE_CPU,
                     .code = ATTN_CODE_FLOAT,
                     .bits = 32,
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

static inline attn_op_call attention_call(attention *a)
{
    attn_op_call call = {.size = sizeof call};
    call.q = attention_tensor(a->q, 4, B, H, NQ, D);
    call.k = attention_tensor(a->k, 4, B, H, NK, D);
    call.v = attention_tensor(a->v, 4, B, H, NK, D);
    call.out = attention_tensor(a->out, 4, B, H, NQ, D);
    call.lse = attention_tensor(a->lse, 3, B, H, NQ, 0);
    call.key_mass = attention_tensor(a->key_mass, 2, B, NK, 0, 0);
    return call;
}

/* One row in double precision: adds to out_error and to mass. */
static inline double attention_row(const attention *a, int bh, int i, double mass[NK])
{
    double s[NK], sum = 0, most = -1e300, worst = 0;
    for (int j = 0; j < NK; j++) {
        s[j] = 0;
        for (int d = 0; d < D; d++) {
            s[j] += (double)a->q[(bh * NQ + i) * D + d] * (double)a->k[(bh * NK + j) * D + d];
        }
        s[j] /= sqrt(D);
        most = fmax(most, s[j]);
    }
    for (int j = 0; j < NK; j++) {
        sum += exp(s[j] - most);
    }
    for (int d = 0; d < D; d++) {
        double o = 0;
        for (int j = 0; j < NK; j++) {
            o += exp(s[j] - most) / sum * (double)a->v[(bh * NK + j) * D + d];
        }
        double e = fabs(o - (double)a->out[(bh * NQ + i) * D + d]);
        worst = e > worst || isnan(e) ? e : worst;
    }
    for (int j = 0; j < NK; j++) {
        mass[j] += exp(s[j] - most) / sum / H;
    }
    double e = fabs(most + log(sum) - (double)a->lse[bh * NQ + i]);
    return isnan(e) || isnan(worst) ? (double)NAN : fmax(worst, e);
}

/* The largest absolute error over out, lse and key_mass; NaN if one is. */
static inline double attention_error(const attention *a)
{
    double worst = 0;
    for (int b = 0; b < B; b++) {
        double mass[NK] = {0};
        for (int h = 0; h < H; h++) {
            for (int i = 0; i < NQ; i++) {
                double e = attention_row(a, b * H + h, i, mass);
                worst = isnan(e) || isnan(worst) ? (double)NAN : fmax(worst, e);
            }
        }
        for (int j = 0; j < NK; j++) {
            double e = fabs(mass[j] - (double)a->key_mass[b * NK + j]);
            worst = isnan(e) || isnan(worst) ? (double)NAN : fmax(worst, e);
        }
    }
    return worst;
}

#endif
