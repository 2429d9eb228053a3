/* Hopper kernel for long key sequences: a producer warpgroup feeds K and V tiles through shared
 * memory to ROWS x SPLIT more. A warpgroup owns 64 query rows; the SPLIT warpgroups of one row
 * group take every SPLIT-th key tile and merge their partial softmaxes at the end.
 *
 * Two formulations of the softmax:
 * - FULL: the usual online maximum, for head dimensions where the matrix unit is the limit;
 * - FIRST: exponents are shifted by the maximum of the warpgroup's first tile alone. The shift
 * never exceeds the true maximum, so nothing is lost below; above it fp32 has room for 2^127. A
 * partial row sum past LIMIT makes the warp move the shift by an exact power of two, before P is
 * rounded. A score more than 127 (in log2) above the first tile's maximum leaves an infinity: then
 * the block repeats that query tile with FULL after its last one.
 */
#ifndef FLASH_SM90_LONG_CUH
#define FLASH_SM90_LONG_CUH

#include "sm90_long_stream.cuh"

/* The warpgroups of a row group hand their parts to the first one. Laid out [value][thread], free
 * of bank conflicts. */
template <class T>
FLASH_DEVICE void long_merge(LongState<T> &x, float *merge, int rowgroup, int part)
{
    const int thread = threadIdx.x & 127;
    if (part > 0) {
        float *to = merge + ((part - 1) * T::ROWS + rowgroup) * (T::D / 2 + 4) * 128 + thread;
        to[0] = x.shift[0];
        to[128] = x.shift[1];
        to[256] = x.sum[0];
        to[384] = x.sum[1];
#pragma unroll
        for (int i = 0; i < T::D / 2; ++i)
            to[(4 + i) * 128] = x.o[i];
    }
    named_barrier(1 + rowgroup, T::SPLIT * 128);
    if (part == 0) {
#pragma unroll 1
        for (int q = 1; q < T::SPLIT; ++q) {
            const float *from =
                merge + ((q - 1) * T::ROWS + rowgroup) * (T::D / 2 + 4) * 128 + thread;
            float mine[2], theirs[2];
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const float other = from[r * 128], m = fmaxf(x.shift[r], other);
                mine[r] = exp2_fast(x.shift[r] - m);
                theirs[r] = other == -INFINITY ? 0.f : exp2_fast(other - m);
                x.sum[r] = x.sum[r] * mine[r] + from[(2 + r) * 128] * theirs[r];
                x.shift[r] = m;
            }
#pragma unroll
            for (int i = 0; i < T::D / 2; ++i)
                x.o[i] = x.o[i] * mine[(i >> 1) & 1] + from[(4 + i) * 128] * theirs[(i >> 1) & 1];
        }
    }
}

/* A warp turns its 16 rows into whole 16-byte pieces in what was Q's place, laid out as Q was. */
template <class T>
FLASH_DEVICE void long_store(const flash_problem &a, const LongTile<T> &t, LongState<T> &x,
                             uint8_t *staged, int rowgroup)
{
    const int warp = (threadIdx.x >> 5) & 3, lane = threadIdx.x & 31;
    named_barrier(1 + T::ROWS + rowgroup, 128); /* all four warps' products have read Q */
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int own = warp * 16 + (lane >> 2) + r * 8, row = t.row0 + rowgroup * 64 + own;
        const float sum = quad_sum(x.sum[r]), f = 1.f / sum;
#pragma unroll
        for (int j = 0; j < T::D / 8; ++j)
            *(uint32_t *)(staged + (j >> 3) * 8192 + swizzled(own, j & 7) + (lane & 3) * 4) =
                pack2<T::BF>(x.o[j * 4 + r * 2] * f, x.o[j * 4 + r * 2 + 1] * f);
        if (a.lse.data && (lane & 3) == 0 && row < a.nq)
            ((float *)a.lse.data)[t.b * a.lse.batch + t.h * a.lse.head + row * a.lse.row] =
                (x.shift[r] + __log2f(sum)) * 0.69314718055994531f;
    }
    __syncwarp();
    uint16_t *out = (uint16_t *)a.out.data + t.b * a.out.batch + t.h * a.out.head;
#pragma unroll
    for (int id = lane; id < 16 * T::PIECES; id += 32) {
        const int own = warp * 16 + id / T::PIECES, piece = id % T::PIECES,
                  row = t.row0 + rowgroup * 64 + own;
        if (row < a.nq && piece < a.d / 8)
            *(uint4 *)(out + row * a.out.row + piece * 8) =
                *(const uint4 *)(staged + (piece >> 3) * 8192 + swizzled(own, piece & 7));
    }
}

/* Computes a query tile whose queries have been asked for, and asks for those of tile `next` (none
 * if negative). */
template <class T, FlashMax MAX>
FLASH_DEVICE bool long_consume(const flash_problem &a, int tile, int next, const LongRing &gk,
                               const LongRing &gv, int base, uint8_t *queries,
                               uint8_t *next_queries, float *merge, int rowgroup, int part)
{
    const LongTile<T> t = long_tile<T>(a, tile);
    uint8_t *mine = queries + rowgroup * T::CHUNKS * 8192;
    LongState<T> x;
    cp_async_wait<0>();
    fence_proxy_async();
    named_barrier(1 + rowgroup,
                  T::SPLIT * 128); /* and the row group has finished with the tile before */
    if (next >= 0)
        long_load_queries<T>(a, long_tile<T>(a, next), rowgroup, part,
                             smem_address(next_queries + rowgroup * T::CHUNKS * 8192));
#pragma unroll
    for (int i = 0; i < T::D / 2; ++i)
        x.o[i] = 0.f;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        x.shift[r] = -INFINITY;
        x.sum[r] = 0.f;
    }
    const LongStream<T> w = {
        a, gk, gv, tile_descriptor(smem_address(mine), 16), base, a.scale * 1.4426950408889634f};
    int state;
    if constexpr (T::ORDER == FLASH_ORDER_OVERLAP || T::ORDER == FLASH_ORDER_TURNS)
        state = long_stream_overlap<T, MAX>(w, x, rowgroup, part);
    else if constexpr (T::ORDER == FLASH_ORDER_EARLY)
        state = long_stream_early<T, MAX>(w, x, part);
    else
        state = long_stream_plain<T, MAX>(w, x, part);
    if constexpr (T::SPLIT > 1)
        long_merge<T>(x, merge, rowgroup, part);
    if (part == 0)
        long_store<T>(a, t, x, mine, rowgroup);
    return (state & LONG_LOST) != 0;
}

template <class T>
__global__ void __launch_bounds__(T::THREADS, 1)
    flash_long_kernel(const __grid_constant__ flash_long_args g)
{
    static_assert(T::SMEM <= 232448, "more shared memory than a block may have");
    extern __shared__ uint8_t raw[];
    const flash_problem &a = g.p;
    uint8_t *smem = (uint8_t *)(((uintptr_t)raw + 1023) & ~(uintptr_t)1023);
    uint8_t *keys = smem + 2 * T::Q_BYTES, *values = keys + T::STAGES * T::TILE_BYTES;
    float *merge = (float *)(values + T::STAGES * T::TILE_BYTES);
    uint64_t *bars = (uint64_t *)(merge + T::MERGE_FLOATS); /* full and empty of K, then of V */
    /* Producer and consumers meet here from different places of the code: no bar.sync, which wants
     * a whole block at one place (compute-sanitizer's synccheck says so). */
    uint64_t *all_done = bars + 4 * T::STAGES;
    uint32_t *redo = (uint32_t *)(all_done + 1);
    const int row_tiles = (a.nq + T::ROWS * 64 - 1) / (T::ROWS * 64), tiles = row_tiles * a.b * a.h,
              key_tiles = (a.nk + T::BN - 1) / T::BN;

    if constexpr (T::D % 16 != 0) /* columns past D that a 16-wide step reads must hold zeros */
        for (int i = threadIdx.x; i < (2 * T::Q_BYTES + T::STAGES * T::TILE_BYTES) / 16;
             i += T::THREADS)
            ((uint4 *)smem)[i] = make_uint4(0, 0, 0, 0);
    for (int i = threadIdx.x; i < T::MAX_TILES / 32; i += T::THREADS)
        redo[i] = 0;
    if (threadIdx.x == 0) {
        for (int i = 0; i < T::STAGES; ++i)
            for (int v = 0; v < 2; ++v) {
                mbarrier_init(smem_address(&bars[v * 2 * T::STAGES + i]), 2);
                mbarrier_init(smem_address(&bars[(v * 2 + 1) * T::STAGES + i]), T::ROWS * 4);
            }
        mbarrier_init(smem_address(all_done), T::GROUPS * 4);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    fence_proxy_async();
    __syncthreads();
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");

    const int group = __shfl_sync(0xffffffffu, (int)threadIdx.x >> 7, 0);
    const LongRing gk = {smem_address(keys), smem_address(bars), smem_address(bars + T::STAGES)};
    const LongRing gv = {smem_address(values), smem_address(bars + 2 * T::STAGES),
                         smem_address(bars + 3 * T::STAGES)};
    if (group == T::GROUPS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(T::FEED_REGS));
        long_produce<T>(g, tiles, (threadIdx.x >> 6) & 1 ? gv : gk, redo, smem_address(all_done));
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(T::REGS));
        const int rowgroup = group % T::ROWS, part = group / T::ROWS;
        const auto first = [&](int t, uint8_t *to) {
            long_load_queries<T>(a, long_tile<T>(a, t), rowgroup, part,
                                 smem_address(to + rowgroup * T::CHUNKS * 8192));
        };
        uint8_t *now = smem, *then = smem + T::Q_BYTES;
        int n = 0, base = 0;
        first(blockIdx.x, now);
#pragma unroll 1
        for (int t = blockIdx.x; t < tiles; t += gridDim.x, ++n, base += key_tiles) {
            const int next = t + (int)gridDim.x;
            const bool lost = long_consume<T, T::MAX>(a, t, next < tiles ? next : -1, gk, gv, base,
                                                      now, then, merge, rowgroup, part);
            if (T::MAX == FLASH_MAX_FIRST && lost)
                atomicOr(&redo[n >> 5], 1u << (n & 31));
            uint8_t *swap = now;
            now = then;
            then = swap;
        }
        if constexpr (T::MAX == FLASH_MAX_FIRST) {
            __syncwarp(); /* every lane's marks */
            if ((threadIdx.x & 31) == 0)
                mbarrier_arrive(smem_address(all_done));
            mbarrier_wait(smem_address(all_done), 0);
            n = 0;
#pragma unroll 1
            for (int t = blockIdx.x; t < tiles; t += gridDim.x, ++n)
                if (redo[n >> 5] >> (n & 31) & 1) {
                    named_barrier(1 + rowgroup, T::SPLIT * 128);
                    first(t, now);
                    long_consume<T, FLASH_MAX_FULL>(a, t, -1, gk, gv, base, now, then, merge,
                                                    rowgroup, part);
                    base += key_tiles;
                }
        }
    }
}

#endif
