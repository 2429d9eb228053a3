/* fp32 attention on the tensor cores for values too many magnitudes apart for fp16: three bf16
 * parts, made as a chunk comes: it is in registers on its way while the one before it is
 * multiplied.
 */
#ifndef FLASH_SPLIT_AGAIN_CUH
#define FLASH_SPLIT_AGAIN_CUH

#include "split_stage.cuh"
#include "split_tile.cuh"

template <class T> using SplitChunk = SplitFetch<T::PARTS, T::BN, T::CW, T::THREADS>;

/* the chunk on its way lands, once nobody reads the one before it any more */
template <class T> SPLIT_DEVICE void split_land(const SplitPlace<T> &w, const SplitChunk<T> &next)
{
    __syncthreads();
    next.store(w.chunk, T::CP, T::C_PART);
    __syncthreads();
}

/* s = rows x the keys from key0 on. `next` holds K's first chunk, in the end V's. */
template <class T>
SPLIT_DEVICE void split_again_scores(const SplitPlace<T> &w, float (&s)[T::S][4],
                                     SplitChunk<T> &next, const SplitSource &k,
                                     const SplitSource &v, int key0)
{
    const int chunks = max(1, (k.d + T::CW - 1) / T::CW);
    split_zero(s);
#pragma unroll 1
    for (int c = 0; c < chunks; ++c) {
        float part[T::S][4];
        split_land<T>(w, next);
        if (c + 1 < chunks)
            next.load(k, key0, (c + 1) * T::CW);
        else
            next.load(v, key0, 0);
        split_scores<T>(part, w.q + w.rg * T::WARP_ROWS * T::QP + c * T::STEPS * 16,
                        w.chunk + w.cg * T::SK * T::CP, k.n - key0 - w.cg * T::SK);
        split_promote<T>(w, s, part, c);
    }
}

template <class T>
SPLIT_DEVICE void split_again_tile(const flash_problem &a, const SplitPlace<T> &w, int first,
                                   int last)
{
    const SplitSource k(a.k, w.b, w.hk, a.nk, a.d), v(a.v, w.b, w.hk, a.nk, a.dv);
    SplitSoftmax<T> x;
    SplitChunk<T> next;
    float o[T::O][4];
    split_start<T>(x, o);
    split_keep_rows<T>(w, SplitSource(a.q, w.b, w.h, a.nq, a.d));
    next.load(k, first, 0);
#pragma unroll 1
    for (int key0 = first; key0 < last; key0 += T::BN) {
        float s[T::S][4];
        uint32_t p[T::MT][T::PARTS][T::BN / 16][4];
        split_again_scores<T>(w, s, next, k, v, key0);
        split_between<T>(a, w, x, s, p, key0, 1.f);
#pragma unroll
        for (int c = 0; c < T::CHUNKS; ++c) {
            if (c > 0 && c * T::CW >= a.dv)
                break;
            split_land<T>(w, next);
            if (c + 1 < T::CHUNKS && (c + 1) * T::CW < a.dv)
                next.load(v, key0, (c + 1) * T::CW);
            else if (key0 + T::BN < last)
                next.load(k, key0 + T::BN, 0);
            split_chunk_values<T>(w, o, p, x, w.chunk, 1.f, c, a.nk - key0);
        }
    }
    split_row_sum<T>(w, x.sum);
    split_store<T>(a, w, x, o);
    __syncthreads();
}

/* The row tiles that see a tile of K or V too wide for two parts; usually there is none. */
template <class T>
__global__ void __launch_bounds__(T::THREADS, T::BLOCKS)
    split_again_kernel(const __grid_constant__ split_args g)
{
    extern __shared__ __align__(16) uint16_t memory[];
    const flash_problem &a = g.p;
    const int tiles = (a.nq + T::ROWS - 1) / T::ROWS * a.b * a.h,
              per_head = (int)(g.at.k_rows / FLASH_SPLIT_TILE);
    const int *wide = (const int *)(g.base + g.at.wide);
    const int all = per_head * a.b * a.hkv; /* tiles of K, then of V */
    /* the marks were there before the kernel before this one could let it come */
    const bool any = split_is_wide(wide, wide + all, 0, all);
    split_begin();
    if (!any)
        return;
#pragma unroll 1
    for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
        const SplitPlace<T> w(a, t, a.nq, memory);
        int first, last;
        generic_key_range(a, w.row0, T::ROWS, FLASH_SPLIT_TILE, first, last);
        if (first < last && split_is_wide_for(wide, w.b * a.hkv + w.hk, per_head, all, first, last))
            split_again_tile<T>(a, w, first, last);
    }
}

#endif
