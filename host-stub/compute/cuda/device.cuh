/* device.cuh: element types, packs of elements and activations, shared by the kernels. */
#ifndef ATTNPLUG_CUDA_DEVICE_CUH
#define ATTNPLUG_CUDA_DEVICE_CUH

#include "kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <stdint.h>
#include <string.h>

#define PACK 8 /* elements that one thread moves at once: 16 bytes of a 16-bit type */

enum type { F32, F16, BF16 };

/* W floats in registers. */
template <int W> struct pack {
    float v[W];
};

static __device__ __forceinline__ float2 unpack2(uint32_t word, int type)
{
    if (type == BF16)
        return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xFFFF0000u));
    __half2 h;
    memcpy(&h, &word, sizeof h);
    return __half22float2(h);
}

static __device__ __forceinline__ uint32_t pack2(float a, float b, int type)
{
    uint32_t word;
    if (type == BF16) {
        __nv_bfloat162 h = __floats2bfloat162_rn(a, b);
        memcpy(&word, &h, sizeof word);
    } else {
        __half2 h = __floats2half2_rn(a, b);
        memcpy(&word, &h, sizeof word);
    }
    return word;
}

/* 16 bytes: 4 floats or 8 of a 16-bit type. */
static __device__ __forceinline__ void unpack16(uint4 raw, int type, float *v)
{
    const uint32_t word[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (type == F32) {
            v[i] = __uint_as_float(word[i]);
        } else {
            float2 two = unpack2(word[i], type);
            v[2 * i] = two.x;
            v[2 * i + 1] = two.y;
        }
    }
}

static __device__ __forceinline__ uint4 pack16(const float *v, int type)
{
    uint32_t word[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
        word[i] = type == F32 ? __float_as_uint(v[i]) : pack2(v[2 * i], v[2 * i + 1], type);
    return make_uint4(word[0], word[1], word[2], word[3]);
}

static __device__ __forceinline__ float load1(const void *data, int64_t at, int type)
{
    if (type == F32)
        return ((const float *)data)[at];
    if (type == F16)
        return __half2float(((const __half *)data)[at]);
    return __bfloat162float(((const __nv_bfloat16 *)data)[at]);
}

static __device__ __forceinline__ void store1(void *data, int64_t at, int type, float v)
{
    if (type == F32)
        ((float *)data)[at] = v;
    else if (type == F16)
        ((__half *)data)[at] = __float2half_rn(v);
    else
        ((__nv_bfloat16 *)data)[at] = __float2bfloat16_rn(v);
}

/* W elements from element `at` on; W of PACK wants 16-byte alignment. */
template <int W>
static __device__ __forceinline__ pack<W> pack_load(const void *data, int64_t at, int type)
{
    pack<W> p;
    if constexpr (W == 1) {
        p.v[0] = load1(data, at, type);
    } else if (type == F32) {
        const uint4 *from = (const uint4 *)((const float *)data + at);
        unpack16(from[0], F32, p.v);
        unpack16(from[1], F32, p.v + 4);
    } else {
        unpack16(*(const uint4 *)((const uint16_t *)data + at), type, p.v);
    }
    return p;
}

template <int W>
static __device__ __forceinline__ void pack_store(void *data, int64_t at, int type,
                                                  const pack<W> &p)
{
    if constexpr (W == 1) {
        store1(data, at, type, p.v[0]);
    } else if (type == F32) {
        uint4 *to = (uint4 *)((float *)data + at);
        to[0] = pack16(p.v, F32);
        to[1] = pack16(p.v + 4, F32);
    } else {
        *(uint4 *)((uint16_t *)data + at) = pack16(p.v, type);
    }
}

/* A pack as it lies in memory: apart from its meaning, so that several loads can be under way
 * before the first is waited for. */
struct raw_pack {
    uint4 low, high; /* high: the second half of a pack of fp32 */
};

static __device__ __forceinline__ struct raw_pack raw_load(const void *data, int64_t at, int type)
{
    struct raw_pack raw = {};
    raw.low = *(const uint4 *)((const char *)data + (type == F32 ? 4 * at : 2 * at));
    if (type == F32)
        raw.high = *(const uint4 *)((const float *)data + at + 4);
    return raw;
}

static __device__ __forceinline__ pack<PACK> raw_value(const struct raw_pack &raw, int type)
{
    pack<PACK> p;
    if (type == F32) {
        unpack16(raw.low, F32, p.v);
        unpack16(raw.high, F32, p.v + 4);
    } else {
        unpack16(raw.low, type, p.v);
    }
    return p;
}

/* -- activations ------------------------------------------------------------------------------- */

static __device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

static __device__ __forceinline__ float inverse_fast(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* x / (1 + exp(-k x)): the instructions are good to two units in the last place, and where the
 * exponent is large the result is small. */
static __device__ __forceinline__ float sigmoid_times(float x, float k)
{
    return x * inverse_fast(1.0f + exp2_fast(-1.44269504f * k * x));
}

static __device__ __forceinline__ float silu(float x)
{
    return sigmoid_times(x, 1.0f);
}

/* With the error function's complement as exp(-z^2) times a polynomial in 1 / (1 + 0.44 z), the
 * same as on the CPU (cpu/kernels_math.h). */
static __device__ __forceinline__ float gelu(float x)
{
    const float z = 0.70710678f * fabsf(x), t = inverse_fast(1.0f + 0.44f * z);
    float q = t * 0.07122400f - 0.27795024f;
    q = q * t + 0.29669131f;
    q = q * t - 0.02018417f;
    q = q * t + 0.21581407f;
    q = q * t + 0.21731311f;
    q = q * t + 0.24887127f;
    q = q * t + 0.24822095f;
    const float tail = 0.5f * t * q * exp2_fast(-1.44269504f * z * z);
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

template <int W> static __device__ __forceinline__ void activate(pack<W> &p, int act)
{
    if (act == KERNEL_ACT_SILU) {
#pragma unroll
        for (int i = 0; i < W; ++i)
            p.v[i] = silu(p.v[i]);
    } else if (act == KERNEL_ACT_GELU) {
#pragma unroll
        for (int i = 0; i < W; ++i)
            p.v[i] = gelu(p.v[i]);
    } else if (act == KERNEL_ACT_QUICK_GELU) {
#pragma unroll
        for (int i = 0; i < W; ++i)
            p.v[i] = sigmoid_times(p.v[i], 1.702f);
    }
}

/* Which of `in` a position of `out` takes, as torch's nearest interpolation has it. */
static __device__ __forceinline__ int nearest_index(int at, int in, int out)
{
    int i = (int)__fmul_rn((float)at, __fdiv_rn((float)in, (float)out));
    return i < in ? i : in - 1;
}

/* -- tensors on the host's side ---------------------------------------------------------------- */

static inline bool tensor_here(const attn_tensor *t)
{
    return t && t->rank != 0;
}

static inline int tensor_type(const attn_tensor *t)
{
    return t->bits == 32 ? F32 : t->code == ATTN_CODE_BFLOAT ? BF16 : F16;
}

static inline int64_t tensor_count(const attn_tensor *t)
{
    int64_t n = 1;
    for (uint32_t i = 0; i < t->rank; ++i)
        n *= t->shape[i];
    return n;
}

static inline int64_t tensor_last(const attn_tensor *t)
{
    return t->shape[t->rank - 1];
}

/* The same elements as [1, .., d0, d1, ..]; dimensions of size 1 get stride 0. */
static inline attn_tensor tensor_rank4(const attn_tensor *t)
{
    attn_tensor r = *t;
    uint32_t shift = 4 - t->rank;
    for (uint32_t i = 0; i < 4; ++i) {
        r.shape[i] = i < shift ? 1 : t->shape[i - shift];
        r.stride[i] = i < shift || r.shape[i] == 1 ? 0 : t->stride[i - shift];
    }
    r.rank = 4;
    return r;
}

static inline bool aligned16(const void *data)
{
    return (uintptr_t)data % 16 == 0;
}

/* A vector [n] or a matrix [B, n] that a kernel reads element by element; data NULL: absent. */
struct vector {
    const void *data;
    int64_t batch, each; /* strides */
    int type;
};

static inline struct vector vector_of(const attn_tensor *t)
{
    struct vector v = {};
    if (tensor_here(t)) {
        v.data = t->data;
        v.type = tensor_type(t);
        v.each = t->stride[t->rank - 1];
        v.batch = t->rank > 1 ? t->stride[0] : 0;
    }
    return v;
}

static __device__ __forceinline__ float vector_at(const struct vector &v, int64_t batch, int64_t i,
                                                  float absent)
{
    return v.data ? load1(v.data, batch * v.batch + i * v.each, v.type) : absent;
}

/* Its bits as they lie in memory, and what they mean: apart, so that several loads can be under way
 * before the first is waited for. */
static __device__ __forceinline__ uint32_t vector_bits(const struct vector &v, int64_t batch,
                                                       int64_t i)
{
    const int64_t at = batch * v.batch + i * v.each;
    if (!v.data)
        return 0;
    return v.type == F32 ? ((const uint32_t *)v.data)[at] : ((const uint16_t *)v.data)[at];
}

static __device__ __forceinline__ float vector_value(const struct vector &v, uint32_t bits,
                                                     float absent)
{
    if (!v.data)
        return absent;
    return v.type == F32 ? __uint_as_float(bits) : unpack2(bits, v.type).x;
}

static inline unsigned blocks_of(int64_t n, int64_t each)
{
    return (unsigned)((n + each - 1) / each);
}

#endif
