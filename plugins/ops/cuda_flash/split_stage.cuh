/* fp32 attention on the tensor cores: the pass that turns K and V (and Q, for a second pass over
 * the scores) into fp16 parts in scratch, and how a block fetches those by chunks. */
#ifndef FLASH_SPLIT_STAGE_CUH
#define FLASH_SPLIT_STAGE_CUH

#include "split_f32.cuh"

typedef struct split_args {
    flash_problem p;
    flash_split_layout at;
    char *base;  /* of the staged operands */
    int queries; /* of a block of the second pass */
} split_args;

enum { SPLIT_STAGE_THREADS = 256 };

/* Each warp's largest element and smallest row maximum but zero become the block's, as bits. */
SPLIT_DEVICE void split_extremes(uint32_t &most, uint32_t &least)
{
    __shared__ uint32_t all[2][SPLIT_STAGE_THREADS / 32];
    all[0][threadIdx.x >> 5] = __reduce_max_sync(0xffffffffu, most);
    all[1][threadIdx.x >> 5] = __reduce_min_sync(0xffffffffu, least);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < SPLIT_STAGE_THREADS / 32; ++i) {
        most = max(most, all[0][i]);
        least = min(least, all[1][i]);
    }
}

/* A tile of one operand: blockIdx.y 0 is K, 1 V, 2 Q. */
template <int COLUMNS>
__global__ void __launch_bounds__(SPLIT_STAGE_THREADS)
    split_stage_kernel(const __grid_constant__ split_args g)
{
    constexpr int TILE = FLASH_SPLIT_TILE;
    const flash_problem &a = g.p;
    const bool is_q = blockIdx.y == 2, is_v = blockIdx.y == 1;
    const int64_t rows = is_q ? g.at.q_rows : g.at.k_rows;
    const int heads = is_q ? a.h : a.hkv, tiles = (int)(rows / TILE), bh = blockIdx.x / tiles,
              row0 = blockIdx.x % tiles * TILE;
    if (bh >= a.b * heads)
        return;
    const SplitSource from(is_q   ? a.q
                           : is_v ? a.v
                                  : a.k,
                           bh / heads, bh % heads, is_q ? a.nq : a.nk, is_v ? a.dv : a.d);
    const int64_t part = (int64_t)a.b * heads * rows * COLUMNS, at = bh * rows + row0;
    uint16_t *to = (uint16_t *)(g.base + (is_q ? g.at.q : is_v ? g.at.v : g.at.k)) + at * COLUMNS;
    SplitFetch<SPLIT_HALF, TILE, COLUMNS, SPLIT_STAGE_THREADS> x;
    split_begin();
    x.load(from, row0, 0);
    if (is_q) {
        x.store_scaled(to, COLUMNS, part, (float *)(g.base + g.at.q_back) + at);
        return;
    }
    uint32_t most = 0, least = 0x7f800000u;
#pragma unroll
    for (int n = 0; n < x.DOWN; ++n) {
        const uint32_t m = x.most(n);
        most = max(most, m);
        least = m ? min(least, m) : least;
    }
    split_extremes(most, least);
    const int e = split_scale(most);
#pragma unroll
    for (int n = 0; n < x.DOWN; ++n)
        x.store_row(to, COLUMNS, part, n, split_power(e));
    if (threadIdx.x == 0) {
        const int64_t tile = at / TILE + (is_v ? (int64_t)a.b * heads * tiles : 0);
        ((float *)(g.base + g.at.back))[tile] = split_power(-e);
        ((int *)(g.base + g.at.wide))[tile] = most > least && most - least > (16u << 23);
    }
}

/* A staged operand of one batch and head, as a stream of chunks. */
struct SplitStream {
    const uint16_t *data;
    const float *back; /* what undoes the scale, of each tile (K, V) or row (Q) */
    int64_t part;      /* elements from the large parts to the small ones */
};

SPLIT_DEVICE SplitStream split_stream_keys(const split_args &g, bool values, int bh, int columns)
{
    const int64_t heads = (int64_t)g.p.b * g.p.hkv, tiles = g.at.k_rows / FLASH_SPLIT_TILE;
    return {(const uint16_t *)(g.base + (values ? g.at.v : g.at.k)) + bh * g.at.k_rows * columns,
            (const float *)(g.base + g.at.back) + (values ? heads * tiles : 0) + bh * tiles,
            heads * g.at.k_rows * columns};
}

SPLIT_DEVICE SplitStream split_stream_queries(const split_args &g, int bh, int columns)
{
    return {(const uint16_t *)(g.base + g.at.q) + bh * g.at.q_rows * columns,
            (const float *)(g.base + g.at.q_back) + bh * g.at.q_rows,
            (int64_t)g.p.b * g.p.h * g.at.q_rows * columns};
}

/* Asks for a chunk: BN rows from `row` on, columns of chunk c. */
template <class T>
SPLIT_DEVICE void split_ask(uint16_t *to, const SplitStream &from, int row, int c)
{
    constexpr int PIECES = T::STEPS * 2, EACH = T::BN * PIECES, ALL = T::PARTS * EACH;
    const uint32_t dst = (uint32_t)__cvta_generic_to_shared(to);
    const uint16_t *src = from.data + (int64_t)row * T::COLUMNS + c * T::STEPS * 16;
#pragma unroll
    for (int n = 0; n < (ALL + T::THREADS - 1) / T::THREADS; ++n) {
        const int id = threadIdx.x + n * T::THREADS, p = id / EACH, r = id % EACH / PIECES,
                  x = id % PIECES;
        if (ALL % T::THREADS == 0 || id < ALL)
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                             dst + (p * T::C_PART + r * T::CP + x * 8) * 2),
                         "l"(src + p * from.part + r * T::COLUMNS + x * 8)
                         : "memory");
    }
}

/* All that was asked for is there, and nobody reads the chunk before it any more. */
SPLIT_DEVICE void split_arrived()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
}

/* Are there marks in [first, last) of both? The whole block's answer. */
SPLIT_DEVICE bool split_is_wide(const int *one, const int *other, int first, int last)
{
    int any = 0;
    for (int i = first + (int)threadIdx.x; i < last; i += (int)blockDim.x)
        any |= one[i] | other[i];
    return __syncthreads_or(any) != 0;
}

/* Is one of K's or V's tiles that hold keys [first, last) of this batch and head? */
SPLIT_DEVICE bool split_is_wide_for(const int *wide, int bh, int per_head, int all, int first,
                                    int last)
{
    const int begin = bh * per_head + first / FLASH_SPLIT_TILE,
              end = bh * per_head + (last + FLASH_SPLIT_TILE - 1) / FLASH_SPLIT_TILE;
    return split_is_wide(wide, wide + all, begin, end);
}

#endif
