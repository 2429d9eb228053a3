/* sources.cu: what enters a model or changes its size: enlargement, embeddings, timesteps. */
#include "device.cuh"
#include "launchers.h"

#define THREADS 256

/* A tensor of rank 4 as a kernel sees it. */
struct view {
    void *data;
    int64_t stride[4];
    int32_t shape[4];
    int32_t type;
};

static struct view view_of(const attn_tensor *t)
{
    const attn_tensor r = tensor_rank4(t);
    struct view v = {};
    v.data = r.data;
    v.type = tensor_type(t);
    for (int i = 0; i < 4; ++i) {
        v.shape[i] = (int32_t)r.shape[i];
        v.stride[i] = r.stride[i];
    }
    return v;
}

/* Can its last dimension be moved in packs? */
static bool view_in_packs(const struct view *v)
{
    const int64_t size = v->type == F32 ? 4 : 2;
    bool fits = aligned16(v->data) && v->shape[3] % PACK == 0 && v->stride[3] == 1;
    for (int d = 0; d < 3; ++d)
        fits = fits && v->stride[d] * size % 16 == 0;
    return fits;
}

/* -- nearest enlargement, and the modulation of a spatial norm --------------------------------- */

struct resize {
    struct view x, add, y; /* add.data NULL: enlargement; else y = n * x + add, enlarged */
    struct view n;
};

template <int W>
static __global__ void __launch_bounds__(THREADS)
    resize_kernel(const __grid_constant__ struct resize r)
{
    const struct view &y = r.y;
    const int packs = y.shape[3] / W;
    const int64_t id = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (id >= (int64_t)y.shape[0] * y.shape[1] * y.shape[2] * packs)
        return;
    const int64_t pixel = id / packs, line = pixel / y.shape[2], b = line / y.shape[1];
    const int64_t c = (id - pixel * packs) * W;
    const int column = (int)(pixel - line * y.shape[2]), row = (int)(line - b * y.shape[1]);
    const int64_t fx = nearest_index(column, r.x.shape[2], y.shape[2]);
    const int64_t fy = nearest_index(row, r.x.shape[1], y.shape[1]);
    pack<W> v = pack_load<W>(
        r.x.data, b * r.x.stride[0] + fy * r.x.stride[1] + fx * r.x.stride[2] + c * r.x.stride[3],
        r.x.type);
    if (r.add.data) {
        pack<W> add = pack_load<W>(r.add.data,
                                   b * r.add.stride[0] + fy * r.add.stride[1] +
                                       fx * r.add.stride[2] + c * r.add.stride[3],
                                   r.add.type);
        pack<W> n = pack_load<W>(r.n.data,
                                 b * r.n.stride[0] + row * r.n.stride[1] + column * r.n.stride[2] +
                                     c * r.n.stride[3],
                                 r.n.type);
#pragma unroll
        for (int i = 0; i < W; ++i)
            v.v[i] = n.v[i] * v.v[i] + add.v[i];
    }
    pack_store<W>(y.data,
                  b * y.stride[0] + row * y.stride[1] + column * y.stride[2] + c * y.stride[3],
                  y.type, v);
}

static int resize_launch(const struct resize *r, void *stream)
{
    bool packs = view_in_packs(&r->x) && view_in_packs(&r->y) &&
                 (!r->add.data || (view_in_packs(&r->add) && view_in_packs(&r->n)));
    const struct view *y = &r->y;
    int64_t total = (int64_t)y->shape[0] * y->shape[1] * y->shape[2] * y->shape[3];
    total /= packs ? PACK : 1;
    if (!total)
        return 0;
    if (packs)
        resize_kernel<PACK><<<blocks_of(total, THREADS), THREADS, 0, (cudaStream_t)stream>>>(*r);
    else
        resize_kernel<1><<<blocks_of(total, THREADS), THREADS, 0, (cudaStream_t)stream>>>(*r);
    return (int)cudaGetLastError();
}

extern "C" int kernel_upsample(const attn_tensor *x, const attn_tensor *y, void *stream)
{
    struct resize r = {};
    r.x = view_of(x);
    r.y = view_of(y);
    return resize_launch(&r, stream);
}

extern "C" int kernel_spatial_modulate(const attn_tensor *n, const attn_tensor *by,
                                       const attn_tensor *add, const attn_tensor *y, void *stream)
{
    struct resize r = {};
    r.x = view_of(by);
    r.add = view_of(add);
    r.n = view_of(n);
    r.y = view_of(y);
    return resize_launch(&r, stream);
}

/* -- embeddings -------------------------------------------------------------------------------- */

struct embed {
    const int32_t *ids;
    int64_t ids_stride[2];
    struct view table, positions, y; /* [1, 1, rows, C], likewise, [1, B, N, C] */
};

template <int W>
static __global__ void __launch_bounds__(THREADS)
    embed_kernel(const __grid_constant__ struct embed e)
{
    const struct view &y = e.y;
    const int packs = y.shape[3] / W;
    const int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (at >= (int64_t)y.shape[1] * y.shape[2] * packs)
        return;
    const int64_t row = at / packs, c = (at - row * packs) * W;
    const int64_t b = row / y.shape[2], n = row - b * y.shape[2];
    const int64_t id = e.ids[b * e.ids_stride[0] + n * e.ids_stride[1]];
    pack<W> v;
    if (id >= 0 && id < e.table.shape[2]) {
        v = pack_load<W>(e.table.data, id * e.table.stride[2] + c * e.table.stride[3],
                         e.table.type);
    } else {
#pragma unroll
        for (int i = 0; i < W; ++i)
            v.v[i] = __int_as_float(0x7FC00000);
    }
    if (e.positions.data) {
        pack<W> p =
            pack_load<W>(e.positions.data, n * e.positions.stride[2] + c * e.positions.stride[3],
                         e.positions.type);
#pragma unroll
        for (int i = 0; i < W; ++i)
            v.v[i] += p.v[i];
    }
    pack_store<W>(y.data, b * y.stride[1] + n * y.stride[2] + c * y.stride[3], y.type, v);
}

extern "C" int kernel_embed(const attn_tensor *ids, const attn_tensor *table,
                            const attn_tensor *positions, const attn_tensor *y, void *stream)
{
    struct embed e = {};
    e.ids = (const int32_t *)ids->data;
    e.ids_stride[0] = ids->stride[0];
    e.ids_stride[1] = ids->stride[1];
    e.table = view_of(table);
    e.y = view_of(y);
    if (tensor_here(positions))
        e.positions = view_of(positions);
    bool packs = view_in_packs(&e.table) && view_in_packs(&e.y) &&
                 (!e.positions.data || view_in_packs(&e.positions));
    const int64_t total = tensor_count(y) / (packs ? PACK : 1);
    if (!total)
        return 0;
    if (packs)
        embed_kernel<PACK><<<blocks_of(total, THREADS), THREADS, 0, (cudaStream_t)stream>>>(e);
    else
        embed_kernel<1><<<blocks_of(total, THREADS), THREADS, 0, (cudaStream_t)stream>>>(e);
    return (int)cudaGetLastError();
}

/* -- timesteps --------------------------------------------------------------------------------- */

/* Rounded to fp32 at each step, where torch rounds: the arguments of the sines reach 1000, and a
 * frequency that is off by one unit in its last place is another angle.  The functions themselves
 * are taken in double, so that their rounding is the nearest. */
static __global__ void __launch_bounds__(THREADS)
    timestep_kernel(const float *t, int64_t t_stride, int64_t total, int64_t dim, int flip,
                    float freq_shift, struct view y)
{
    const int64_t id = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (id >= total)
        return;
    const int64_t b = id / dim, at = id - b * dim, half = dim / 2;
    float v = 0.0f;
    if (at < 2 * half) {
        const int64_t i = at % half;
        const float exponent =
            __fdiv_rn(__fmul_rn(-9.210340371976184f, (float)i), __fsub_rn((float)half, freq_shift));
        const float angle = __fmul_rn(t[b * t_stride], (float)exp((double)exponent));
        const bool sine = flip ? at >= half : at < half;
        v = (float)(sine ? sin((double)angle) : cos((double)angle));
    }
    store1(y.data, b * y.stride[2] + at * y.stride[3], y.type, v);
}

extern "C" int kernel_timestep(const attn_tensor *t, int32_t flip_sin_to_cos, float freq_shift,
                               const attn_tensor *y, void *stream)
{
    const int64_t total = tensor_count(y);
    if (!total)
        return 0;
    timestep_kernel<<<blocks_of(total, THREADS), THREADS, 0, (cudaStream_t)stream>>>(
        (const float *)t->data, t->stride[0], total, tensor_last(y), flip_sin_to_cos, freq_shift,
        view_of(y));
    return (int)cudaGetLastError();
}
