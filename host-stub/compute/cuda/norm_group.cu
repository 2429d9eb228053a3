/* norm_group.cu: group norm: which kernels, with what shape; and the one that takes any layout. */
#include "launchers.h"
#include "norm_group.cuh"

#define SLAB_NARROW 4   /* vectors of a slab's row, at least: two sectors */
#define SLAB_WIDE   16  /* of a slab that is streamed */
#define THREADS     256 /* of the kernel for any layout */

/* -- any layout: one block for each group of one image ----------------------------------------- */

static __device__ float block_sum(float v, float *part)
{
#pragma unroll
    for (int i = 16; i > 0; i /= 2)
        v += __shfl_xor_sync(0xFFFFFFFFu, v, i);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = v;
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < THREADS / 32; ++i)
        sum += part[i];
    return sum;
}

static __device__ __forceinline__ int64_t place(const struct group_norm &g,
                                                const struct group_tensor &t, int64_t batch,
                                                int64_t row, int64_t channel)
{
    return batch * t.batch + row / g.s.width * t.line + row % g.s.width * t.row + channel * t.each;
}

static __device__ __forceinline__ float group_at(const struct group_norm &g, int64_t batch,
                                                 int64_t row, int channel)
{
    const bool second = channel >= g.s.first_channels;
    const struct group_tensor &x = g.x[second];
    const int64_t at = place(g, x, batch, row, channel - (second ? g.s.first_channels : 0));
    return load1(x.data, at, x.type) + vector_at(g.add, batch, channel, 0.0f);
}

static __global__ void __launch_bounds__(THREADS)
    any_kernel(const __grid_constant__ struct group_norm g)
{
    __shared__ float part[THREADS / 32];
    const int64_t batch = blockIdx.y, n = g.s.rows * g.s.group_width;
    const int first = (int)blockIdx.x * g.s.group_width;
    float sum = 0.0f, squares = 0.0f;
    for (int64_t i = threadIdx.x; i < n; i += THREADS)
        sum += group_at(g, batch, i / g.s.group_width, first + (int)(i % g.s.group_width));
    const float mean = block_sum(sum, part) / (float)n;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        float d =
            group_at(g, batch, i / g.s.group_width, first + (int)(i % g.s.group_width)) - mean;
        squares += d * d;
    }
    const float inverse = 1.0f / sqrtf(block_sum(squares, part) / (float)n + g.eps);
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        const int64_t row = i / g.s.group_width;
        const int channel = first + (int)(i % g.s.group_width);
        pack<1> v;
        v.v[0] = (group_at(g, batch, row, channel) - mean) * inverse *
                     vector_at(g.weight, 0, channel, 1.0f) +
                 vector_at(g.bias, 0, channel, 0.0f);
        v.v[0] = v.v[0] * (1.0f + vector_at(g.scale, batch, channel, 0.0f)) +
                 vector_at(g.shift, batch, channel, 0.0f);
        activate(v, g.act);
        store1(g.y.data, place(g, g.y, batch, row, channel), g.y.type, v.v[0]);
    }
}

/* -- shapes ------------------------------------------------------------------------------------ */

static int64_t divisor_common(int64_t a, int64_t b)
{
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* A vector's channels lie in two groups at most. */
static bool vector_in_two(int64_t vector, int64_t width)
{
    const int64_t touched = vector % width == 0   ? vector / width
                            : width % vector == 0 ? 1
                                                  : (vector - 2) / width + 2;
    return touched <= 2;
}

/* Slabs at least `least` vectors wide, as far as the channels can be cut so. */
static bool slab_cut(struct group_shape *s, int least)
{
    const int64_t vector = s->type == F32 ? 4 : 8;
    const int64_t unit = s->group_width / divisor_common(s->group_width, vector) * vector;
    const int64_t units = s->channels / unit;
    int64_t together = 1;
    while (together < units && (units % together || unit / vector * together < least))
        ++together;
    if (unit / vector * together > GROUP_THREADS_MAX)
        together = 1;
    s->slab_channels = (int32_t)(unit * together);
    s->slab_vectors = (int32_t)(s->slab_channels / vector);
    s->slab_groups = s->slab_channels / s->group_width;
    s->slabs = (int32_t)(units / together);
    return s->slab_vectors <= GROUP_THREADS_MAX / 4;
}

/* Rows of a thread and lanes of a block of so many rows; false if they are too many. */
static bool slab_rows(struct group_shape *s, int64_t block_rows)
{
    const int64_t lanes = GROUP_THREADS_MAX / s->slab_vectors;
    int32_t each = lanes * 2 >= block_rows ? 2 : lanes * 8 >= block_rows ? 8 : GROUP_ROWS_MAX;
    if (each * lanes < block_rows)
        return false;
    s->rows_each = each;
    s->lanes = (int32_t)((block_rows + each - 1) / each);
    s->block_rows = (int32_t)block_rows;
    s->blocks = (int32_t)((s->rows + block_rows - 1) / block_rows);
    return true;
}

/* The smallest cluster that keeps most of the chip busy, else the largest that fits. */
static bool slab_resident(struct group_shape *s)
{
    int device, chip = 0;
    const int limit = group_cluster_limit();
    bool fits = false;
    if (!slab_cut(s, SLAB_NARROW) || cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&chip, cudaDevAttrMultiProcessorCount, device) != cudaSuccess)
        return false;
    for (int cluster = 1; cluster <= limit; cluster *= 2) {
        const int64_t rows = (s->rows + cluster - 1) / cluster;
        if (fits && rows < 32)
            break;
        fits = slab_rows(s, rows);
        if (fits && s->batch * s->slabs * s->blocks * 4 >= (int64_t)chip * 3)
            break;
    }
    s->resident = fits;
    return fits;
}

static void slab_streamed(struct group_shape *s)
{
    if (!slab_cut(s, SLAB_WIDE) && !slab_cut(s, 1)) {
        s->slab_vectors = 0;
        return;
    }
    const int64_t most = (int64_t)GROUP_THREADS_MAX / s->slab_vectors * GROUP_ROWS_MAX;
    slab_rows(s, s->rows < most ? s->rows : most);
    s->rows_each = GROUP_ROWS_MAX;
    s->lanes = (s->block_rows + GROUP_ROWS_MAX - 1) / GROUP_ROWS_MAX;
}

/* Channels and rows; vectors only where types and channels allow them. */
static struct group_shape group_shape_of(const struct kernel_norm *n)
{
    const attn_tensor *x = n->x, *y = n->y;
    struct group_shape s = {};
    s.batch = x->shape[0];
    s.height = x->rank == 4 ? x->shape[1] : 1;
    s.width = x->rank == 4 ? x->shape[2] : x->shape[1];
    s.rows = s.height * s.width;
    s.channels = (int32_t)tensor_last(y);
    s.first_channels = (int32_t)tensor_last(x);
    s.groups = (int32_t)n->groups;
    s.group_width = s.channels / s.groups;
    s.type = tensor_type(x);
    const int vector = s.type == F32 ? 4 : 8;
    const bool one_type =
        tensor_type(y) == s.type && (!tensor_here(n->x2) || tensor_type(n->x2) == s.type);
    const bool fast = n->act == KERNEL_ACT_NONE || n->act == KERNEL_ACT_SILU;
    if (!fast || !one_type || s.channels % vector || s.first_channels % vector || !s.rows ||
        !s.batch || s.batch > 65535 || !vector_in_two(vector, s.group_width))
        return s;
    if (!slab_resident(&s))
        slab_streamed(&s);
    return s;
}

static struct group_tensor group_tensor_of(const attn_tensor *t)
{
    struct group_tensor g = {};
    if (!tensor_here(t))
        return g;
    g.data = t->data;
    g.type = tensor_type(t);
    g.batch = t->stride[0];
    g.line = t->rank == 4 ? t->stride[1] : 0;
    g.row = t->stride[t->rank - 2];
    g.each = t->stride[t->rank - 1];
    return g;
}

/* Does the kernel of vectors read it?  One row after the other, whatever the lines are. */
static bool tensor_in_vectors(const struct group_shape *s, struct group_tensor *t)
{
    const int64_t size = s->type == F32 ? 4 : 2;
    if (!t->data)
        return true;
    if (s->width == 1)
        t->row = t->line;
    const bool even = s->height == 1 || s->width == 1 || t->line == t->row * s->width;
    return even && t->each == 1 && aligned16(t->data) && t->row * size % 16 == 0 &&
           (s->batch == 1 || t->batch * size % 16 == 0);
}

extern "C" uint64_t kernel_group_norm_scratch(const struct kernel_norm *n)
{
    const struct group_shape s = group_shape_of(n);
    if (!s.slab_vectors || s.resident)
        return 0;
    return (uint64_t)(s.batch * s.groups * (s.blocks + 1)) * sizeof(float2);
}

extern "C" int kernel_group_norm(const struct kernel_norm *n, void *scratch, void *stream)
{
    struct group_norm g = {};
    g.s = group_shape_of(n);
    g.x[0] = group_tensor_of(n->x);
    g.x[1] = group_tensor_of(n->x2);
    g.y = group_tensor_of(n->y);
    g.weight = vector_of(n->weight);
    g.bias = vector_of(n->bias);
    g.add = vector_of(n->add);
    g.scale = vector_of(n->scale);
    g.shift = vector_of(n->shift);
    g.eps = n->eps;
    g.act = n->act;
    g.moments = (float2 *)scratch;
    g.partials = g.moments + g.s.batch * g.s.groups;
    if (!g.s.batch || !g.s.rows)
        return 0;
    struct group_norm vectors = g;
    if (g.s.slab_vectors && tensor_in_vectors(&g.s, &vectors.x[0]) &&
        tensor_in_vectors(&g.s, &vectors.x[1]) && tensor_in_vectors(&g.s, &vectors.y)) {
        if (g.s.resident)
            return group_slab_launch(&vectors, GROUP_RESIDENT, stream);
        int error = group_slab_launch(&vectors, GROUP_MEASURE, stream);
        error = error ? error : group_merge_launch(&vectors, stream);
        return error ? error : group_slab_launch(&vectors, GROUP_APPLY, stream);
    }
    if (g.s.batch > 65535)
        return cudaErrorInvalidValue;
    any_kernel<<<dim3((unsigned)g.s.groups, (unsigned)g.s.batch), THREADS, 0,
                 (cudaStream_t)stream>>>(g);
    return (int)cudaGetLastError();
}
