/* norm_layer.cu: layer norm over the last dimension, each row in the registers of one warp; rows
 * that lie otherwise are read twice by one block. */
#include "device.cuh"
#include "launchers.h"

#define WARPS     4   /* of a block: rows of packs */
#define THREADS   128 /* of a block: rows of elements */
#define PACKS_MAX 8   /* of a lane */

struct rows {
    void *data;
    int64_t stride[4]; /* leading dimensions and the last */
    int32_t type;
};

struct layer_norm {
    struct rows x, y;
    struct vector weight, bias;
    int64_t shape[3], count; /* leading dimensions; rows */
    int32_t length, act;
    float eps;
};

static __device__ __forceinline__ int64_t row_at(const struct layer_norm &l, const struct rows &t,
                                                 int64_t row)
{
    if (l.shape[0] == 1 && l.shape[1] == 1)
        return row * t.stride[2];
    const int64_t rest = row / l.shape[2], i1 = rest % l.shape[1];
    return rest / l.shape[1] * t.stride[0] + i1 * t.stride[1] +
           (row - rest * l.shape[2]) * t.stride[2];
}

static __device__ __forceinline__ float warp_sum(float v)
{
#pragma unroll
    for (int i = 16; i > 0; i /= 2)
        v += __shfl_xor_sync(0xFFFFFFFFu, v, i);
    return v;
}

static __device__ __forceinline__ pack<PACK> vector_pack(const struct vector &v,
                                                         const struct raw_pack &raw, float absent)
{
    if (v.data)
        return raw_value(raw, v.type);
    pack<PACK> p;
#pragma unroll
    for (int i = 0; i < PACK; ++i)
        p.v[i] = absent;
    return p;
}

template <int N>
static __global__ void __launch_bounds__(WARPS * 32)
    layer_packs(const __grid_constant__ struct layer_norm l)
{
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (row >= l.count)
        return;
    const int64_t from = row_at(l, l.x, row), to = row_at(l, l.y, row);
    struct raw_pack raw[N], weight[N], bias[N];
    pack<PACK> x[N];
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        const int at = (k * 32 + lane) * PACK;
        raw[k] = weight[k] = bias[k] = raw_pack{};
        if (at >= l.length)
            continue;
        raw[k] = raw_load(l.x.data, from + at, l.x.type);
        if (l.weight.data)
            weight[k] = raw_load(l.weight.data, at, l.weight.type);
        if (l.bias.data)
            bias[k] = raw_load(l.bias.data, at, l.bias.type);
    }
#pragma unroll
    for (int k = 0; k < N; ++k) {
        x[k] = raw_value(raw[k], l.x.type);
#pragma unroll
        for (int i = 0; i < PACK; ++i)
            sum += x[k].v[i];
    }
    const float mean = warp_sum(sum) / (float)l.length;
#pragma unroll
    for (int k = 0; k < N; ++k) {
#pragma unroll
        for (int i = 0; i < PACK; ++i) {
            x[k].v[i] -= mean;
            squares += (k * 32 + lane) * PACK < l.length ? x[k].v[i] * x[k].v[i] : 0.0f;
        }
    }
    const float inverse = 1.0f / sqrtf(warp_sum(squares) / (float)l.length + l.eps);
#pragma unroll
    for (int k = 0; k < N; ++k) {
        const int at = (k * 32 + lane) * PACK;
        if (at >= l.length)
            break;
        const pack<PACK> by = vector_pack(l.weight, weight[k], 1.0f);
        const pack<PACK> plus = vector_pack(l.bias, bias[k], 0.0f);
#pragma unroll
        for (int i = 0; i < PACK; ++i)
            x[k].v[i] = x[k].v[i] * inverse * by.v[i] + plus.v[i];
        pack_store<PACK>(l.y.data, to + at, l.y.type, x[k]);
    }
}

/* Sum over the block, the same in every thread. */
static __device__ float block_sum(float v, float *part)
{
    v = warp_sum(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = v;
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < THREADS / 32; ++i)
        sum += part[i];
    return sum;
}

static __global__ void __launch_bounds__(THREADS)
    layer_elements(const __grid_constant__ struct layer_norm l)
{
    __shared__ float part[THREADS / 32];
    const int64_t from = row_at(l, l.x, blockIdx.x), to = row_at(l, l.y, blockIdx.x);
    float sum = 0.0f, squares = 0.0f;
    for (int i = threadIdx.x; i < l.length; i += THREADS)
        sum += load1(l.x.data, from + i * l.x.stride[3], l.x.type);
    const float mean = block_sum(sum, part) / (float)l.length;
    for (int i = threadIdx.x; i < l.length; i += THREADS) {
        float v = load1(l.x.data, from + i * l.x.stride[3], l.x.type) - mean;
        squares += v * v;
    }
    const float inverse = 1.0f / sqrtf(block_sum(squares, part) / (float)l.length + l.eps);
    for (int i = threadIdx.x; i < l.length; i += THREADS) {
        pack<1> v;
        v.v[0] = (load1(l.x.data, from + i * l.x.stride[3], l.x.type) - mean) * inverse *
                     vector_at(l.weight, 0, i, 1.0f) +
                 vector_at(l.bias, 0, i, 0.0f);
        activate(v, l.act);
        store1(l.y.data, to + i * l.y.stride[3], l.y.type, v.v[0]);
    }
}

static bool rows_in_packs(const struct rows *t)
{
    const int64_t size = t->type == F32 ? 4 : 2;
    bool fits = aligned16(t->data) && t->stride[3] == 1;
    for (int d = 0; d < 3; ++d)
        fits = fits && t->stride[d] * size % 16 == 0;
    return fits;
}

static bool vector_in_packs(const struct vector *v)
{
    return !v->data || (v->each == 1 && aligned16(v->data));
}

/* Leading dimensions that x and y both lay out as one become one, the last of three. */
static void layer_open(struct layer_norm *l, const attn_tensor *x, const attn_tensor *y)
{
    const attn_tensor in = tensor_rank4(x), out = tensor_rank4(y);
    l->x.data = in.data;
    l->y.data = out.data;
    l->x.type = tensor_type(x);
    l->y.type = tensor_type(y);
    memcpy(l->x.stride, in.stride, sizeof in.stride);
    memcpy(l->y.stride, out.stride, sizeof out.stride);
    memcpy(l->shape, in.shape, sizeof l->shape);
    l->count = in.shape[0] * in.shape[1] * in.shape[2];
    l->length = (int32_t)in.shape[3];
    bool even = true;
    int64_t inner = l->shape[2];
    for (int d = 1; d >= 0; --d) {
        even = even && (l->shape[d] == 1 || (in.stride[d] == in.stride[2] * inner &&
                                             out.stride[d] == out.stride[2] * inner));
        inner *= l->shape[d];
    }
    if (!even || l->shape[2] == 1)
        return;
    l->shape[0] = l->shape[1] = 1;
    l->shape[2] = l->count;
}

template <int N> static void layer_launch(const struct layer_norm *l, void *stream)
{
    layer_packs<N><<<blocks_of(l->count, WARPS), WARPS * 32, 0, (cudaStream_t)stream>>>(*l);
}

extern "C" int kernel_layer_norm(const struct kernel_norm *n, void *stream)
{
    struct layer_norm l = {};
    layer_open(&l, n->x, n->y);
    l.weight = vector_of(n->weight);
    l.bias = vector_of(n->bias);
    l.act = n->act;
    l.eps = n->eps;
    if (!l.count || !l.length)
        return 0;
    if (l.count > INT32_MAX)
        return cudaErrorInvalidValue;
    /* activations after a layer norm are rare: they go element by element */
    const int packs =
        l.act != KERNEL_ACT_NONE || l.length % PACK ? PACKS_MAX + 1 : (l.length / PACK + 31) / 32;
    if (!rows_in_packs(&l.x) || !rows_in_packs(&l.y) || !vector_in_packs(&l.weight) ||
        !vector_in_packs(&l.bias) || packs > PACKS_MAX)
        layer_elements<<<(unsigned)l.count, THREADS, 0, (cudaStream_t)stream>>>(l);
    else if (packs == 1)
        layer_launch<1>(&l, stream);
    else if (packs == 2)
        layer_launch<2>(&l, stream);
    else if (packs == 3)
        layer_launch<3>(&l, stream);
    else if (packs <= 5)
        layer_launch<5>(&l, stream);
    else
        layer_launch<PACKS_MAX>(&l, stream);
    return (int)cudaGetLastError();
}
