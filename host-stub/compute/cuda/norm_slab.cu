/* norm_slab.cu: group norm of vectors, in slabs; see norm_group.cuh. */
#include "launchers.h"
#include "norm_group.cuh"

#include <cooperative_groups.h>

namespace cg = cooperative_groups;

template <int TYPE> constexpr int vector_of_type = TYPE == F32 ? 4 : 8;

/* Shared memory of a block, in floats. */
struct slab_memory {
    float *part;                /* [lanes][slab_channels] */
    float *column;              /* [strips][slab_channels] */
    float *weight, *bias, *add; /* [slab_channels], modulation folded in */
    float *mean, *squares;      /* [slab_groups] of this block; other blocks read them */
    float *middle, *inverse;    /* [slab_groups] of the whole group */
};

static __host__ __device__ __forceinline__ int slab_strips(const struct group_shape &s)
{
    int threads = s.slab_vectors * s.lanes, strips = threads / s.slab_channels;
    return strips > 1 ? strips : 1;
}

static __host__ __device__ __forceinline__ int slab_floats(const struct group_shape &s)
{
    return s.slab_channels * (s.lanes + slab_strips(s) + 3) + 4 * s.slab_groups;
}

static __device__ __forceinline__ struct slab_memory slab_memory_at(float *at,
                                                                    const struct group_shape &s)
{
    struct slab_memory m;
    m.part = at;
    m.column = m.part + s.lanes * s.slab_channels;
    m.weight = m.column + slab_strips(s) * s.slab_channels;
    m.bias = m.weight + s.slab_channels;
    m.add = m.bias + s.slab_channels;
    m.mean = m.add + s.slab_channels;
    m.squares = m.mean + s.slab_groups;
    m.middle = m.squares + s.slab_groups;
    m.inverse = m.middle + s.slab_groups;
    return m;
}

/* total[group] = factor * the sum of all threads' values of the group's channels.  In a fixed
 * order: lanes in strips, strips, channels. */
template <int V>
static __device__ void slab_sum(const struct group_shape &s, const struct slab_memory &m,
                                const float *value, int lane, int column, float factor,
                                float *total)
{
    if (lane < s.lanes) {
#pragma unroll
        for (int i = 0; i < V; ++i)
            m.part[lane * s.slab_channels + column * V + i] = value[i];
    }
    __syncthreads();
    const int strips = slab_strips(s);
    for (int t = threadIdx.x; t < strips * s.slab_channels; t += blockDim.x) {
        float sum = 0.0f;
        for (int l = t / s.slab_channels; l < s.lanes; l += strips)
            sum += m.part[l * s.slab_channels + t % s.slab_channels];
        m.column[t] = sum;
    }
    __syncthreads();
    const int n = strips * s.group_width;
    for (int g = threadIdx.x / 32; g < s.slab_groups; g += blockDim.x / 32) {
        float sum = 0.0f;
        for (int e = threadIdx.x % 32; e < n; e += 32)
            sum += m.column[e / s.group_width * s.slab_channels + g * s.group_width +
                            e % s.group_width];
#pragma unroll
        for (int i = 16; i > 0; i /= 2)
            sum += __shfl_xor_sync(0xFFFFFFFFu, sum, i);
        if (threadIdx.x % 32 == 0)
            total[g] = sum * factor;
    }
    __syncthreads();
}

/* Weight, bias and time embedding of the slab's channels, the modulation folded in. */
static __device__ void slab_vectors_load(const struct group_norm &g, const struct slab_memory &m,
                                         int64_t batch, int first)
{
    for (int c = threadIdx.x; c < g.s.slab_channels; c += blockDim.x) {
        const float by = 1.0f + vector_at(g.scale, batch, first + c, 0.0f);
        m.weight[c] = vector_at(g.weight, 0, first + c, 1.0f) * by;
        m.bias[c] =
            vector_at(g.bias, 0, first + c, 0.0f) * by + vector_at(g.shift, batch, first + c, 0.0f);
        m.add[c] = vector_at(g.add, batch, first + c, 0.0f);
    }
}

/* Mean and squared deviations of this block's rows, to shared memory. */
template <int TYPE, int R>
static __device__ void slab_measure(const struct group_norm &g, const struct slab_memory &m,
                                    const uint4 *raw, int64_t rows, int lane, int column)
{
    constexpr int V = vector_of_type<TYPE>;
    const float n = (float)rows * (float)g.s.group_width;
    const float share = rows ? 1.0f / n : 0.0f;
    float sum[V] = {}, center[V];
#pragma unroll
    for (int i = 0; i < V; ++i)
        center[i] = m.add[column * V + i];
#pragma unroll
    for (int k = 0; k < R; ++k) {
        float v[8];
        unpack16(raw[k], TYPE, v);
#pragma unroll
        for (int i = 0; i < V; ++i)
            sum[i] += lane + k * g.s.lanes < rows ? v[i] + center[i] : 0.0f;
    }
    slab_sum<V>(g.s, m, sum, lane, column, share, m.mean);
#pragma unroll
    for (int i = 0; i < V; ++i) {
        center[i] -= m.mean[(column * V + i) / g.s.group_width];
        sum[i] = 0.0f;
    }
#pragma unroll
    for (int k = 0; k < R; ++k) {
        float v[8];
        unpack16(raw[k], TYPE, v);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const float d = v[i] + center[i];
            sum[i] += lane + k * g.s.lanes < rows ? d * d : 0.0f;
        }
    }
    slab_sum<V>(g.s, m, sum, lane, column, 1.0f, m.squares);
}

/* Figures of all blocks of the cluster become the group's. */
static __device__ void slab_merge_cluster(const struct group_norm &g, const struct slab_memory &m)
{
#if __CUDA_ARCH__ >= 900
    cg::cluster_group cluster = cg::this_cluster();
    cluster.sync();
#endif
    for (int i = threadIdx.x; i < g.s.slab_groups; i += blockDim.x) {
        const float total = (float)g.s.rows * (float)g.s.group_width;
        float mean[GROUP_CLUSTER_MAX], squares[GROUP_CLUSTER_MAX], middle = 0.0f, sum = 0.0f;
#pragma unroll
        for (int b = 0; b < GROUP_CLUSTER_MAX; ++b) {
            if (b >= g.s.blocks)
                break;
#if __CUDA_ARCH__ >= 900
            mean[b] = cluster.map_shared_rank(m.mean, b)[i];
            squares[b] = cluster.map_shared_rank(m.squares, b)[i];
#else
            mean[b] = m.mean[i];
            squares[b] = m.squares[i];
#endif
        }
#pragma unroll
        for (int b = 0; b < GROUP_CLUSTER_MAX; ++b) {
            if (b < g.s.blocks)
                middle += mean[b] * ((float)(group_rows(g.s, b) * g.s.group_width) / total);
        }
#pragma unroll
        for (int b = 0; b < GROUP_CLUSTER_MAX; ++b) {
            if (b < g.s.blocks) {
                const float d = mean[b] - middle;
                sum += squares[b] + (float)(group_rows(g.s, b) * g.s.group_width) * d * d;
            }
        }
        m.middle[i] = middle;
        m.inverse[i] = 1.0f / sqrtf(sum / total + g.eps);
    }
    __syncthreads();
}

/* None or SiLU: what else there is goes element by element. */
template <int TYPE> static __device__ __forceinline__ float slab_activate(float v, int act)
{
    if (act == KERNEL_ACT_NONE)
        return v;
    if (TYPE == F32)
        return v / (1.0f + expf(-v));
    return __fdividef(v, 1.0f + __expf(-v)); /* far within the rounding of 16 bits */
}

template <int TYPE, int R>
static __device__ void slab_apply(const struct group_norm &g, const struct slab_memory &m,
                                  const uint4 *raw, int64_t batch, int64_t row, int64_t rows,
                                  int channel, int lane, int column)
{
    constexpr int V = vector_of_type<TYPE>;
    /* fp32 keeps the difference from the mean exact; 16 bits need it not */
    float center[V], factor[V], term[V];
#pragma unroll
    for (int i = 0; i < V; ++i) {
        const int c = column * V + i, group = c / g.s.group_width;
        factor[i] = m.inverse[group] * m.weight[c];
        center[i] = m.add[c] - m.middle[group];
        term[i] = TYPE == F32 ? m.bias[c] : center[i] * factor[i] + m.bias[c];
    }
    char *to = (char *)g.y.data +
               (batch * g.y.batch + (row + lane) * g.y.row + channel) * (TYPE == F32 ? 4 : 2);
    const int64_t step = g.s.lanes * g.y.row * (TYPE == F32 ? 4 : 2);
#pragma unroll
    for (int k = 0; k < R; ++k) {
        float v[8];
        unpack16(raw[k], TYPE, v);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const float x = TYPE == F32 ? v[i] + center[i] : v[i];
            v[i] = slab_activate<TYPE>(x * factor[i] + term[i], g.act);
        }
        if (lane + k * g.s.lanes < rows)
            *(uint4 *)(to + k * step) = pack16(v, TYPE);
    }
}

/* One slab of one image: blockIdx.x its part of the rows, y the slab, z the image. */
template <int TYPE, int R, int MODE>
static __global__ void __launch_bounds__(GROUP_THREADS_MAX)
    slab_kernel(const __grid_constant__ struct group_norm g)
{
    constexpr int V = vector_of_type<TYPE>;
    extern __shared__ float4 shared[];
    const struct slab_memory m = slab_memory_at((float *)shared, g.s);
    const int64_t batch = blockIdx.z, row = (int64_t)blockIdx.x * g.s.block_rows;
    const int64_t rows = group_rows(g.s, blockIdx.x);
    const int lane = threadIdx.x / g.s.slab_vectors;
    const int column = threadIdx.x - lane * g.s.slab_vectors;
    const int first = (int)blockIdx.y * g.s.slab_channels, channel = first + column * V;
    const struct group_tensor &x = g.x[channel >= g.s.first_channels];
    const char *from =
        (const char *)x.data + (batch * x.batch + (row + lane) * x.row + channel -
                                (channel >= g.s.first_channels ? g.s.first_channels : 0)) *
                                   (TYPE == F32 ? 4 : 2);
    const int64_t step = g.s.lanes * x.row * (TYPE == F32 ? 4 : 2);
    const bool here = lane < g.s.lanes;
    const int64_t valid = here ? rows : 0; /* of the last warp, threads may have no row */
    uint4 raw[R];
#pragma unroll
    for (int k = 0; k < R; ++k)
        raw[k] = lane + k * g.s.lanes < valid ? *(const uint4 *)(from + k * step)
                                              : make_uint4(0, 0, 0, 0);
    slab_vectors_load(g, m, batch, first);
    if (MODE == GROUP_APPLY) {
        for (int i = threadIdx.x; i < g.s.slab_groups; i += blockDim.x) {
            const float2 moment =
                g.moments[batch * g.s.groups + (int64_t)blockIdx.y * g.s.slab_groups + i];
            m.middle[i] = moment.x;
            m.inverse[i] = moment.y;
        }
    }
    __syncthreads();
    if (MODE != GROUP_APPLY)
        slab_measure<TYPE, R>(g, m, raw, rows, lane, here ? column : 0);
    if (MODE == GROUP_MEASURE) {
        for (int i = threadIdx.x; i < g.s.slab_groups; i += blockDim.x)
            g.partials[(batch * g.s.groups + (int64_t)blockIdx.y * g.s.slab_groups + i) *
                           g.s.blocks +
                       blockIdx.x] = make_float2(m.mean[i], m.squares[i]);
        return;
    }
    if (MODE == GROUP_RESIDENT)
        slab_merge_cluster(g, m);
#if __CUDA_ARCH__ >= 900
    if (MODE == GROUP_RESIDENT) /* nobody leaves while others read its figures */
        cg::this_cluster().barrier_arrive();
#endif
    slab_apply<TYPE, R>(g, m, raw, batch, row, valid, channel, lane, column);
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
