/* tensor.h: small questions about an attn_tensor. */
#ifndef ATTNPLUG_COMPUTE_TENSOR_H
#define ATTNPLUG_COMPUTE_TENSOR_H

#include "attn_abi.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static inline bool tensor_here(const attn_tensor *t)
{
    return t && t->rank != 0;
}

static inline bool tensor_is(const attn_tensor *t, uint8_t code, uint8_t bits)
{
    return t->code == code && t->bits == bits;
}

static inline bool tensor_f32(const attn_tensor *t)
{
    return tensor_is(t, ATTN_CODE_FLOAT, 32);
}

/* fp32, fp16 or bf16: what every operation takes. */
static inline bool tensor_is_float(const attn_tensor *t)
{
    return tensor_f32(t) || tensor_is(t, ATTN_CODE_FLOAT, 16) || tensor_is(t, ATTN_CODE_BFLOAT, 16);
}

static inline int64_t tensor_count(const attn_tensor *t)
{
    int64_t n = 1;
    for (uint32_t i = 0; i < t->rank; ++i)
        n *= t->shape[i];
    return n;
}

static inline uint64_t tensor_bytes(const attn_tensor *t)
{
    return (uint64_t)tensor_count(t) * (t->bits / 8u);
}

static inline int64_t tensor_last(const attn_tensor *t)
{
    return t->shape[t->rank - 1];
}

static inline bool tensor_same_shape(const attn_tensor *a, const attn_tensor *b)
{
    return a->rank == b->rank && !memcmp(a->shape, b->shape, a->rank * sizeof a->shape[0]);
}

static inline bool tensor_same_leading(const attn_tensor *a, const attn_tensor *b)
{
    return a->rank == b->rank && !memcmp(a->shape, b->shape, (a->rank - 1) * sizeof a->shape[0]);
}

/* Strides of dimensions of size 1 do not count. */
static inline bool tensor_contiguous(const attn_tensor *t)
{
    int64_t expected = 1;
    for (uint32_t i = t->rank; i-- > 0;) {
        if (t->shape[i] != 1 && t->stride[i] != expected)
            return false;
        expected *= t->shape[i];
    }
    return true;
}

static inline bool tensor_last_contiguous(const attn_tensor *t)
{
    return t->stride[t->rank - 1] == 1 || t->shape[t->rank - 1] == 1;
}

static inline void tensor_pack_strides(attn_tensor *t)
{
    int64_t stride = 1;
    for (uint32_t i = t->rank; i-- > 0;) {
        t->stride[i] = stride;
        stride *= t->shape[i];
    }
}

/* A contiguous view of `data`, of the element type and device of `like`. */
static inline attn_tensor tensor_of(void *data, const attn_tensor *like, uint32_t rank,
                                    const int64_t *shape)
{
    attn_tensor t = {.data = data,
                     .device_type = like->device_type,
                     .device_id = like->device_id,
                     .code = like->code,
                     .bits = like->bits,
                     .lanes = 1,
                     .rank = rank};
    memcpy(t.shape, shape, rank * sizeof shape[0]);
    tensor_pack_strides(&t);
    return t;
}

/* The same elements as [1, .., d0, d1, ..]: leading dimensions of size 1 up to rank 4. */
static inline attn_tensor tensor_rank4(const attn_tensor *t)
{
    attn_tensor r = *t;
    uint32_t shift = 4 - t->rank;
    for (uint32_t i = 0; i < 4; ++i) {
        r.shape[i] = i < shift ? 1 : t->shape[i - shift];
        r.stride[i] = i < shift ? 0 : t->stride[i - shift];
    }
    r.rank = 4;
    return r;
}

/* [B, C, H, W] seen as [B, H, W, C]. */
static inline attn_tensor tensor_channels_last(const attn_tensor *t)
{
    attn_tensor r = *t;
    const int from[] = {0, 2, 3, 1};
    for (int i = 0; i < 4; ++i) {
        r.shape[i] = t->shape[from[i]];
        r.stride[i] = t->stride[from[i]];
    }
    return r;
}

/* "[2, 77, 768] f16", for texts of errors. */
struct tensor_text {
    char text[112];
};
struct tensor_text tensor_describe(const attn_tensor *t);

#endif
