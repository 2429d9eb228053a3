/* norm_slab.cu: group norm of vectors, in slabs; see norm_group.cuh. */
#include "launchers.h"
#include "norm_group.cuh"

#include <cooperative_groups.h>

namespace cg = cooperative_groups;

template <int TYPE> constexpr int vector_of_type = TYPE == F32 ? 4 : 8;

/* Shared memory of a block.  A vector touches two groups at most; a quad is its sums of two figures
 * over its channels in the first (x, y) and in the second (z, w). */
struct slab_memory {
    float4 *part;               /* [lanes][slab_vectors] */
    float4 *column;             /* [slab_vectors] */
    float *weight, *bias, *add; /* [slab_channels], modulation folded in */
    float *mean, *squares;      /* [slab_groups] of this block; other blocks read them */
    float *middle, *inverse;    /* [slab_groups] of the whole group */
};

static __host__ __device__ __forceinline__ int slab_floats(const struct group_shape &s)
{
    return 4 * s.slab_vectors * (s.lanes + 1) + 3 * s.slab_channels + 4 * s.slab_groups;
}

static __device__ __forceinline__ struct slab_memory slab_memory_at(float4 *at,
                                                                    const struct group_shape &s)
{
    struct slab_memory m;
    m.part = at;
    m.column = m.part + s.lanes * s.slab_vectors;
    m.weight = (float *)(m.column + s.slab_vectors);
    m.bias = m.weight + s.slab_channels;
    m.add = m.bias + s.slab_channels;
    m.mean = m.add + s.slab_channels;
    m.squares = m.mean + s.slab_groups;
    m.middle = m.squares + s.slab_groups;
    m.inverse = m.middle + s.slab_groups;
    return m;
}

/* What a thread is in its block. */
struct slab_place {
    int lane, column;
    bool here;        /* the last warp has threads without a row */
    int group, split; /* of the slab; channels of its vector in that group, the rest in the next */
};

static __device__ __forceinline__ void quad_add(float4 &a, float4 b)
{
    a.x += b.x;
    a.y += b.y;
    a.z += b.z;
    a.w += b.w;
}

/* m.mean and m.squares become each group's sums of the two figures of all threads' quads: lanes
 * first, then columns, in a fixed order. */
template <int V>
static __device__ void slab_sum(const struct group_shape &s, const struct slab_memory &m,
                                const struct slab_place &at, float4 quad)
{
    if (at.here)
        m.part[threadIdx.x] = quad;
    __syncthreads();
    for (int c = threadIdx.x / 32; c < s.slab_vectors; c += blockDim.x / 32) {
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        for (int l = threadIdx.x % 32; l < s.lanes; l += 32)
            quad_add(sum, m.part[l * s.slab_vectors + c]);
#pragma unroll
        for (int i = 16; i > 0; i /= 2)
            quad_add(sum, make_float4(__shfl_xor_sync(0xFFFFFFFFu, sum.x, i),
                                      __shfl_xor_sync(0xFFFFFFFFu, sum.y, i),
                                      __shfl_xor_sync(0xFFFFFFFFu, sum.z, i),
                                      __shfl_xor_sync(0xFFFFFFFFu, sum.w, i)));
        if (threadIdx.x % 32 == 0)
            m.column[c] = sum;
    }
    __syncthreads();
    for (int g = threadIdx.x; g < s.slab_groups; g += blockDim.x) {
        const int first = g * s.group_width, last = first + s.group_width - 1;
        float a = 0.0f, b = 0.0f;
        for (int c = first / V; c <= last / V; ++c) {
            const float4 sum = m.column[c];
            a += c * V >= first ? sum.x : sum.z;
            b += c * V >= first ? sum.y : sum.w;
        }
        m.mean[g] = a;
        m.squares[g] = b;
    }
    __syncthreads();
}

/* Weight, bias and time embedding of the slab's channels, the modulation folded in.  All loads are
 * under way before the first is used. */
static __device__ void slab_vectors_load(const struct group_norm &g, const struct slab_memory &m,
                                         int64_t batch, int first)
{
    for (int c = threadIdx.x; c < g.s.slab_channels; c += blockDim.x) {
        const uint32_t weight = vector_bits(g.weight, 0, first + c);
        const uint32_t bias = vector_bits(g.bias, 0, first + c);
        const uint32_t scale = vector_bits(g.scale, batch, first + c);
        const uint32_t shift = vector_bits(g.shift, batch, first + c);
        const uint32_t add = vector_bits(g.add, batch, first + c);
        const float by = 1.0f + vector_value(g.scale, scale, 0.0f);
        m.weight[c] = vector_value(g.weight, weight, 1.0f) * by;
        m.bias[c] = vector_value(g.bias, bias, 0.0f) * by + vector_value(g.shift, shift, 0.0f);
        m.add[c] = vector_value(g.add, add, 0.0f);
    }
}

template <int V>
static __device__ __forceinline__ float4 slab_quad(const struct slab_place &at, const float *a,
                                                   const float *b)
{
    float4 quad = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int i = 0; i < V; ++i) {
        const bool low = i < at.split;
        quad.x += low ? a[i] : 0.0f;
        quad.y += low ? b[i] : 0.0f;
        quad.z += low ? 0.0f : a[i];
        quad.w += low ? 0.0f : b[i];
    }
    return quad;
}

/* Mean and squared deviations of this block's rows, to shared memory.  Rows that are not there are
 * zeros in `raw`.  In fp32 in two passes; the rounding of 16-bit inputs hides what one pass of sums
 * and squares loses. */
template <int TYPE, int R>
static __device__ void slab_measure(const struct group_norm &g, const struct slab_memory &m,
                                    const struct slab_place &at, const uint4 *raw, int rows)
{
    constexpr int V = vector_of_type<TYPE>;
    const float n = (float)rows * (float)g.s.group_width, share = rows ? 1.0f / n : 0.0f;
    float sum[V] = {}, square[V] = {}, mine = 0.0f;
#pragma unroll
    for (int k = 0; k < R; ++k) {
        float v[8];
        unpack16(raw[k], TYPE, v);
        mine += at.lane + k * g.s.lanes < rows ? 1.0f : 0.0f;
#pragma unroll
        for (int i = 0; i < V; ++i) {
            sum[i] += v[i];
            if (TYPE != F32)
                square[i] += v[i] * v[i];
        }
    }
#pragma unroll
    for (int i = 0; i < V; ++i) {
        const float add = m.add[at.column * V + i];
        square[i] += add * (2.0f * sum[i] + mine * add);
        sum[i] += mine * add;
    }
    slab_sum<V>(g.s, m, at, slab_quad<V>(at, sum, square));
    if (TYPE == F32) {
        float center[V];
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const int group = min(at.group + (i >= at.split), g.s.slab_groups - 1);
            center[i] = m.add[at.column * V + i] - m.mean[group] * share;
            sum[i] = square[i] = 0.0f;
        }
#pragma unroll
        for (int k = 0; k < R; ++k) {
            float v[8];
            unpack16(raw[k], TYPE, v);
#pragma unroll
            for (int i = 0; i < V; ++i) {
                const float d = at.lane + k * g.s.lanes < rows ? v[i] + center[i] : 0.0f;
                square[i] += d * d;
            }
        }
        for (int i = threadIdx.x; i < g.s.slab_groups; i += blockDim.x)
            m.middle[i] = m.mean[i] * share;
        slab_sum<V>(g.s, m, at, slab_quad<V>(at, sum, square));
    }
    for (int i = threadIdx.x; i < g.s.slab_groups; i += blockDim.x) {
        const float mean = TYPE == F32 ? m.middle[i] : m.mean[i] * share;
        if (TYPE != F32)
            m.squares[i] = fmaxf(m.squares[i] - m.mean[i] * mean, 0.0f);
        m.mean[i] = mean;
    }
    __syncthreads();
}

/* Over eight neighbouring threads, the same in each. */
static __device__ __forceinline__ float eight_sum(float v)
{
    const unsigned eight = 0xFFu << (threadIdx.x % 32 / 8 * 8);
#pragma unroll
    for (int i = 4; i > 0; i /= 2)
        v += __shfl_xor_sync(eight, v, i);
    return v;
}

/* Figures of all blocks of the cluster become the group's: a thread for each block. */
static __device__ void slab_merge_cluster(const struct group_norm &g, const struct slab_memory &m)
{
    static_assert(GROUP_CLUSTER_MAX == 8, "eight_sum");
    /* all blocks but the last have as many rows */
    const int b = threadIdx.x % GROUP_CLUSTER_MAX, last = g.s.blocks - 1;
    const float each = (float)(g.s.block_rows * g.s.group_width);
    const float rest = (float)((int)group_rows(g.s, last) * g.s.group_width);
    const float share = 1.0f / ((float)last * each + rest), n = b < last ? each : rest;
#if __CUDA_ARCH__ >= 900
    cg::cluster_group cluster = cg::this_cluster();
    cluster.sync();
#endif
    for (int i = threadIdx.x / GROUP_CLUSTER_MAX; i < g.s.slab_groups;
         i += blockDim.x / GROUP_CLUSTER_MAX) {
        float mean = 0.0f, squares = 0.0f;
        if (b <= last) {
#if __CUDA_ARCH__ >= 900
            mean = cluster.map_shared_rank(m.mean, b)[i];
            squares = cluster.map_shared_rank(m.squares, b)[i];
#else
            mean = m.mean[i];
            squares = m.squares[i];
#endif
        }
        const float middle = eight_sum(b <= last ? mean * (n * share) : 0.0f), d = mean - middle;
        const float sum = eight_sum(b <= last ? squares + n * d * d : 0.0f);
        if (b == 0) {
            m.middle[i] = middle;
            m.inverse[i] = 1.0f / sqrtf(sum * share + g.eps);
        }
    }
    __syncthreads();
}

template <int TYPE, int R>
static __device__ void slab_apply(const struct group_norm &g, const struct slab_memory &m,
                                  const struct slab_place &at, const uint4 *raw, char *to,
                                  int64_t step, int rows)
{
    constexpr int V = vector_of_type<TYPE>;
    /* fp32 keeps the difference from the mean exact; 16 bits need it not */
    float center[V], factor[V], term[V];
#pragma unroll
    for (int i = 0; i < V; ++i) {
        const int c = at.column * V + i;
        const int group = min(at.group + (i >= at.split), g.s.slab_groups - 1);
        factor[i] = m.inverse[group] * m.weight[c];
        center[i] = m.add[c] - m.middle[group];
        term[i] = TYPE == F32 ? m.bias[c] : center[i] * factor[i] + m.bias[c];
    }
#pragma unroll
    for (int k = 0; k < R; ++k) {
        float v[8];
        unpack16(raw[k], TYPE, v);
#pragma unroll
        for (int i = 0; i < V; ++i)
            v[i] = (TYPE == F32 ? v[i] + center[i] : v[i]) * factor[i] + term[i];
        if (g.act == KERNEL_ACT_SILU) { /* what else there is goes element by element */
#pragma unroll
            for (int i = 0; i < V; ++i)
                v[i] = silu(v[i]);
        }
        if (at.here && at.lane + k * g.s.lanes < rows)
            *(uint4 *)(to + k * step) = pack16(v, TYPE);
    }
}

/* One slab of one image: blockIdx.x its part of the rows, y the slab, z the image. */
template <int TYPE, int R, int MODE>
static __global__ void __launch_bounds__(GROUP_THREADS_MAX, R > 8 ? 1 : 2)
    slab_kernel(const __grid_constant__ struct group_norm g)
{
    constexpr int V = vector_of_type<TYPE>, SIZE = TYPE == F32 ? 4 : 2;
    extern __shared__ float4 shared[];
    const struct slab_memory m = slab_memory_at(shared, g.s);
    const int64_t batch = blockIdx.z, row = (int64_t)blockIdx.x * g.s.block_rows;
    const int rows = (int)group_rows(g.s, blockIdx.x);
    struct slab_place at;
    at.lane = threadIdx.x / g.s.slab_vectors;
    at.column = threadIdx.x - at.lane * g.s.slab_vectors;
    at.here = at.lane < g.s.lanes;
    const int first = (int)blockIdx.y * g.s.slab_channels, channel = first + at.column * V;
    const bool second = channel >= g.s.first_channels;
    const int64_t x_row = second ? g.x[1].row : g.x[0].row;
    const char *from = (const char *)(second ? g.x[1].data : g.x[0].data) +
                       (batch * (second ? g.x[1].batch : g.x[0].batch) + (row + at.lane) * x_row +
                        channel - (second ? g.s.first_channels : 0)) *
                           SIZE;
    uint4 raw[R];
#pragma unroll
    for (int k = 0; k < R; ++k)
        raw[k] = at.here && at.lane + k * g.s.lanes < rows
                     ? *(const uint4 *)(from + k * (g.s.lanes * x_row * SIZE))
                     : make_uint4(0, 0, 0, 0);
    slab_vectors_load(g, m, batch, first);
    at.group = at.column * V / g.s.group_width;
    at.split = (at.group + 1) * g.s.group_width - at.column * V;
    const int64_t group = batch * g.s.groups + (int64_t)blockIdx.y * g.s.slab_groups;
    if (MODE == GROUP_APPLY) {
        for (int i = threadIdx.x; i < g.s.slab_groups; i += blockDim.x) {
            const float2 moment = g.moments[group + i];
            m.middle[i] = moment.x;
            m.inverse[i] = moment.y;
        }
    }
    __syncthreads();
    if (MODE != GROUP_APPLY)
        slab_measure<TYPE, R>(g, m, at, raw, rows);
    if (MODE == GROUP_MEASURE) {
        for (int i = threadIdx.x; i < g.s.slab_groups; i += blockDim.x)
            g.partials[(group + i) * g.s.blocks + blockIdx.x] =
                make_float2(m.mean[i], m.squares[i]);
        return;
    }
    if (MODE == GROUP_RESIDENT)
        slab_merge_cluster(g, m);
#if __CUDA_ARCH__ >= 900
    if (MODE == GROUP_RESIDENT) /* nobody leaves while others read its figures */
        cg::this_cluster().barrier_arrive();
#endif
    char *to = (char *)g.y.data + (batch * g.y.batch + (row + at.lane) * g.y.row + channel) * SIZE;
    slab_apply<TYPE, R>(g, m, at, raw, to, g.s.lanes * g.y.row * SIZE, rows);
#if __CUDA_ARCH__ >= 900
    if (MODE == GROUP_RESIDENT)
        cg::this_cluster().barrier_wait();
#endif
}

/* One warp for each group: the figures of its blocks become one. */
static __global__ void __launch_bounds__(128)
    merge_kernel(const __grid_constant__ struct group_norm g)
{
    const int64_t group = (int64_t)blockIdx.x * 4 + threadIdx.x / 32;
    if (group >= g.s.batch * g.s.groups)
        return;
    const float2 *partial = g.partials + group * g.s.blocks;
    const double total = (double)g.s.rows * g.s.group_width;
    double sum = 0.0;
    for (int b = threadIdx.x % 32; b < g.s.blocks; b += 32)
        sum += (double)partial[b].x * (double)(group_rows(g.s, b) * g.s.group_width);
#pragma unroll
    for (int i = 16; i > 0; i /= 2)
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, i);
    const double mean = sum / total;
    sum = 0.0;
    for (int b = threadIdx.x % 32; b < g.s.blocks; b += 32) {
        const double d = partial[b].x - mean;
        sum += partial[b].y + (double)(group_rows(g.s, b) * g.s.group_width) * d * d;
    }
#pragma unroll
    for (int i = 16; i > 0; i /= 2)
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, i);
    if (threadIdx.x % 32 == 0)
        g.moments[group] = make_float2((float)mean, (float)(1.0 / sqrt(sum / total + g.eps)));
}

int group_merge_launch(const struct group_norm *g, void *stream)
{
    merge_kernel<<<blocks_of(g->s.batch * g->s.groups, 4), 128, 0, (cudaStream_t)stream>>>(*g);
    return (int)cudaGetLastError();
}

template <int TYPE, int R, int MODE>
static int slab_launch(const struct group_norm *g, void *stream)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute cluster = {};
    config.gridDim = dim3((unsigned)g->s.blocks, (unsigned)g->s.slabs, (unsigned)g->s.batch);
    config.blockDim = dim3((unsigned)(g->s.slab_vectors * g->s.lanes + 31) / 32 * 32);
    config.dynamicSmemBytes = (size_t)slab_floats(g->s) * sizeof(float);
    config.stream = (cudaStream_t)stream;
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = (unsigned)g->s.blocks;
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    if (MODE == GROUP_RESIDENT && g->s.blocks > 1) {
        config.attrs = &cluster;
        config.numAttrs = 1;
    }
    return (int)cudaLaunchKernelEx(&config, slab_kernel<TYPE, R, MODE>, *g);
}

template <int TYPE, int MODE> static int slab_launch_rows(const struct group_norm *g, void *stream)
{
    switch (g->s.rows_each) {
    case 2:
        return slab_launch<TYPE, 2, MODE>(g, stream);
    case 8:
        return slab_launch<TYPE, 8, MODE>(g, stream);
    default:
        return slab_launch<TYPE, GROUP_ROWS_MAX, MODE>(g, stream);
    }
}

template <int TYPE>
static int slab_launch_mode(const struct group_norm *g, enum group_mode mode, void *stream)
{
    if (mode == GROUP_RESIDENT)
        return slab_launch_rows<TYPE, GROUP_RESIDENT>(g, stream);
    if (mode == GROUP_MEASURE)
        return slab_launch<TYPE, GROUP_ROWS_MAX, GROUP_MEASURE>(g, stream);
    return slab_launch<TYPE, GROUP_ROWS_MAX, GROUP_APPLY>(g, stream);
}

int group_slab_launch(const struct group_norm *g, enum group_mode mode, void *stream)
{
    if (g->s.type == F32)
        return slab_launch_mode<F32>(g, mode, stream);
    if (g->s.type == F16)
        return slab_launch_mode<F16>(g, mode, stream);
    return slab_launch_mode<BF16>(g, mode, stream);
}

/* A chip newer than the code runs it from PTX of a chip without clusters. */
int group_cluster_limit(void)
{
    int device, able = 0;
    cudaFuncAttributes code;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&able, cudaDevAttrClusterLaunch, device) != cudaSuccess || !able ||
        cudaFuncGetAttributes(&code, slab_kernel<F16, GROUP_ROWS_MAX, GROUP_RESIDENT>) !=
            cudaSuccess)
        return 1;
    return code.ptxVersion >= 90 ? GROUP_CLUSTER_MAX : 1;
}
