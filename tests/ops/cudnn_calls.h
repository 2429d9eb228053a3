/* Calls that the cudnn op takes, for its tests to alter. */
#ifndef CUDNN_CALLS_H
#define CUDNN_CALLS_H

#include "cudnn.h"

enum { HOPPER = 90, AMPERE = 80, VERSION = 91900 };

static inline attn_tensor tensor(int64_t b, int64_t h, int64_t n, int64_t d)
{
    return (attn_tensor){.shape = {b, h, n, d},
                         .stride = {h * n * d, n * d, d, 1},
                         .device_type = ATTN_DEVICE_CUDA,
                         .code = ATTN_CODE_FLOAT,
                         .bits = 16,
                         .lanes = 1,
                         .rank = 4,
                         .align = 16};
}

static inline attn_op_call call_of(int64_t nq, int64_t nk, int64_t d)
{
    attn_op_call c = {.size = sizeof c};
    c.q = c.out = tensor(2, 8, nq, d);
    c.k = c.v = tensor(2, 8, nk, d);
    return c;
}

static inline attn_op_call causal_of(int64_t nq, int64_t nk, int64_t hi)
{
    attn_op_call c = call_of(nq, nk, 64);
    c.flags = ATTN_CALL_BAND;
    c.band_lo = INT64_MIN;
    c.band_hi = hi;
    return c;
}

/* lse of those queries, packed */
static inline attn_tensor rows_of(const attn_tensor *q)
{
    attn_tensor t = *q;
    t.rank = 3;
    t.bits = 32;
    t.code = ATTN_CODE_FLOAT;
    t.stride[2] = 1;
    t.stride[1] = q->shape[2];
    t.stride[0] = q->shape[1] * q->shape[2];
    return t;
}

#endif
