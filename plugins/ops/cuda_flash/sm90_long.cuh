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
                mine[r] = T::BAND && x.shift[r] == m ? 1.f : exp2_fast(x.shift[r] - m);
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

template <class T>
FLASH_DEVICE void long_store_lse(const flash_problem &a, const LongTile<T> &t,
                                 const float (&shift)[2], const float (&sum)[2], int row)
{
    if ((threadIdx.x & 3) == 0)
#pragma unroll
        for (int r = 0; r < 2; ++r)
            if (row + r * 8 < a.nq)
                ((float *)
                     a.lse.data)[t.b * a.lse.batch + t.h * a.lse.head + (row + r * 8) * a.lse.row] =
                    (shift[r] + __log2f(sum[r])) * 0.69314718055994531f;
}

/* A warp turns its 16 rows into whole 16-byte pieces in what was Q's place, laid out as Q was. By
 * TMA they leave while the next tile begins. */
template <class T>
FLASH_DEVICE void long_store(const flash_long_args &g, const LongTile<T> &t, LongState<T> &x,
                             uint32_t staged, int rowgroup)
{
    const flash_problem &a = g.p;
    const int warp = (threadIdx.x >> 5) & 3, row = t.row0 + rowgroup * 64 + warp * 16;
    const uint32_t rows = staged + warp * 2048;
    float sum[2], f[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        sum[r] = quad_sum(x.sum[r]);
        f[r] = T::BAND && sum[r] == 0.f ? 0.f : reciprocal(sum[r]);
    }
    named_barrier(1 + T::ROWS + rowgroup, 128); /* all four warps' products have read Q */
    rows_to_shared<T::BF, T::D, 0, 8192>(rows, x.o, f[0], f[1]);
    if constexpr (T::TMA) {
        fence_proxy_async();
        __syncwarp();
        if (elected()) {
#pragma unroll
            for (int c = 0; c < T::CHUNKS; ++c)
                tma_store(&g.out, rows + c * 8192, c * 64, row, t.h, t.b);
            tma_store_commit();
        }
    } else {
        __syncwarp();
        rows_to_global<T::D, 0, 8192>((uint16_t *)a.out.data + t.b * a.out.batch +
                                          t.h * a.out.head + row * a.out.row,
                                      a.out.row, rows, a.nq - row, a.d);
    }
    if (a.lse.data)
        long_store_lse<T>(a, t, x.shift, sum, row + ((threadIdx.x & 31) >> 2));
}

/* A block's query tiles one after the other: place n & 1 of two holds the n-th tile's queries. */
template <class T> struct LongPlaces {
    uint8_t *queries;
    uint32_t full;
    float *merge;

    FLASH_DEVICE uint8_t *of(int n, int rowgroup) const
    {
        return queries + (n & 1) * T::Q_BYTES + rowgroup * T::CHUNKS * 8192;
    }
    FLASH_DEVICE uint32_t bar(int n, int rowgroup) const
    {
        return full + (rowgroup * 2 + (n & 1)) * 8;
    }
};

template <class T>
FLASH_DEVICE void long_queries_first(const flash_long_args &g, int tile, int n,
                                     const LongPlaces<T> &w, int rowgroup, int part)
{
    const uint32_t to = smem_address(w.of(n, rowgroup));
    if constexpr (T::TMA) {
        if (part == 0 && (threadIdx.x & 127) == 0)
            long_ask_queries<T>(g, tile, rowgroup, to, w.bar(n, rowgroup));
    } else
        long_load_queries<T>(g.p, long_tile<T>(g.p, tile), rowgroup, part, to);
}

/* Computes the block's n-th query tile, whose queries have been asked for, and asks for those of
 * tile `next` (none if negative). */
template <class T, FlashMax MAX>
FLASH_DEVICE bool long_consume(const flash_long_args &g, int tile, int next, int n,
                               const LongRing &gk, const LongRing &gv, int base,
                               const LongPlaces<T> &places, int rowgroup, int part)
{
    const flash_problem &a = g.p;
    const LongTile<T> t = long_tile<T>(a, tile);
    uint8_t *mine = places.of(n, rowgroup);
    LongState<T> x;
    if constexpr (T::TMA) {
        mbarrier_wait(places.bar(n, rowgroup), (n >> 1) & 1);
    } else {
        cp_async_wait<0>();
        fence_proxy_async();
        named_barrier(1 + rowgroup,
                      T::SPLIT * 128); /* and the row group has finished with the tile before */
        if (next >= 0)
            long_load_queries<T>(a, long_tile<T>(a, next), rowgroup, part,
                                 smem_address(places.of(n + 1, rowgroup)));
    }
#pragma unroll
    for (int i = 0; i < T::D / 2; ++i)
        x.o[i] = 0.f;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        x.shift[r] = -INFINITY;
        x.sum[r] = 0.f;
    }
    const LongStream<T> w = {a,
                             gk,
                             gv,
                             tile_descriptor(smem_address(mine), 16),
                             base,
                             t.first,
                             t.count,
                             t.row0 + rowgroup * 64 + ((int)threadIdx.x >> 5 & 3) * 16 +
                                 ((int)threadIdx.x & 31) / 4,
                             a.scale * 1.4426950408889634f,
                             {g, next, rowgroup, part, smem_address(places.of(n + 1, rowgroup)),
                              places.bar(n + 1, rowgroup)}};
    int state;
    if constexpr (T::ORDER == FLASH_ORDER_OVERLAP || T::ORDER == FLASH_ORDER_TURNS)
        state = long_stream_overlap<T, MAX>(w, x, rowgroup, part);
    else if constexpr (T::ORDER == FLASH_ORDER_EARLY)
        state = long_stream_early<T, MAX>(w, x, part);
    else
        state = long_stream_plain<T, MAX>(w, x, part);
    if constexpr (T::SPLIT > 1)
        long_merge<T>(x, places.merge, rowgroup, part);
    if (part == 0)
        long_store<T>(g, t, x, smem_address(mine), rowgroup);
    return (state & LONG_LOST) != 0;
}

/* What a block has in shared memory, in this order. */
template <class T> struct LongShared {
    uint8_t *queries, *keys, *values;
    float *merge;
    uint64_t *bars, *query_bars; /* bars: full and empty of K, then of V */
    /* Producer and consumers meet here from different places of the code: no bar.sync, which wants
     * a whole block at one place (compute-sanitizer's synccheck says so). */
    uint64_t *all_done;
    uint32_t *redo; /* a bit for each of the block's query tiles */
};

template <class T> FLASH_DEVICE LongShared<T> long_shared(uint8_t *raw)
{
    static_assert(T::SMEM <= 232448, "more shared memory than a block may have");
    LongShared<T> s;
    s.queries = (uint8_t *)(((uintptr_t)raw + 1023) & ~(uintptr_t)1023);
    s.keys = s.queries + 2 * T::Q_BYTES;
    s.values = s.keys + T::STAGES * T::TILE_BYTES;
    s.merge = (float *)(s.values + T::STAGES * T::TILE_BYTES);
    s.bars = (uint64_t *)(s.merge + T::MERGE_FLOATS);
    s.query_bars = s.bars + 4 * T::STAGES;
    s.all_done = s.query_bars + 2 * T::ROWS;
    s.redo = (uint32_t *)(s.all_done + 1);
    return s;
}

template <class T> FLASH_DEVICE LongRing long_ring(uint8_t *tiles, uint64_t *bars)
{
    return {smem_address(tiles), smem_address(bars), smem_address(bars + T::STAGES)};
}

template <class T> FLASH_DEVICE void long_clear(const LongShared<T> &s)
{
    if constexpr (T::D % 16 != 0) /* columns past D that a 16-wide step reads must hold zeros */
        for (int i = threadIdx.x; i < (2 * T::Q_BYTES + T::STAGES * T::TILE_BYTES) / 16;
             i += T::THREADS)
            ((uint4 *)s.queries)[i] = make_uint4(0, 0, 0, 0);
    for (int i = threadIdx.x; i < T::MAX_TILES / 32; i += T::THREADS)
        s.redo[i] = 0;
}

template <class T> FLASH_DEVICE void long_prefetch(const flash_long_args &g)
{
    if constexpr (T::TMA) {
        tensormap_prefetch(&g.q);
        tensormap_prefetch(&g.k);
        tensormap_prefetch(&g.v);
        tensormap_prefetch(&g.out);
    }
}

/* Every consumer has come to the end of its query tiles. */
template <class T> FLASH_DEVICE void long_wait_all(const LongShared<T> &s)
{
    __syncwarp(); /* every lane's marks in redo */
    if ((threadIdx.x & 31) == 0)
        mbarrier_arrive(smem_address(s.all_done));
    mbarrier_wait(smem_address(s.all_done), 0);
}

/* The grid before has written what this one reads; the next may begin. */
FLASH_DEVICE void long_grid_turn()
{
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

template <class T>
__global__ void __launch_bounds__(T::THREADS, 1)
    flash_long_kernel(const __grid_constant__ flash_long_args g)
{
    extern __shared__ uint8_t raw[];
    const LongShared<T> s = long_shared<T>(raw);
    const int tiles = (g.p.nq + T::ROWS * 64 - 1) / (T::ROWS * 64) * g.p.b * g.p.h;
    long_clear<T>(s);
    if (threadIdx.x == 0) {
        for (int i = 0; i < T::STAGES; ++i)
            for (int v = 0; v < 2; ++v) {
                mbarrier_init(smem_address(&s.bars[v * 2 * T::STAGES + i]), 2);
                mbarrier_init(smem_address(&s.bars[(v * 2 + 1) * T::STAGES + i]), T::ROWS * 4);
            }
        for (int i = 0; i < 2 * T::ROWS; ++i)
            mbarrier_init(smem_address(&s.query_bars[i]), 1);
        mbarrier_init(smem_address(s.all_done), T::GROUPS * 4);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        long_prefetch<T>(g);
    }
    fence_proxy_async();
    __syncthreads();
    const int group = __shfl_sync(0xffffffffu, (int)threadIdx.x >> 7, 0);
    const LongRing gk = long_ring<T>(s.keys, s.bars);
    const LongRing gv = long_ring<T>(s.values, s.bars + 2 * T::STAGES);
    if (group == T::GROUPS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(T::FEED_REGS));
        long_grid_turn();
        long_produce<T>(g, tiles, (threadIdx.x >> 6) & 1 ? gv : gk, s.redo,
                        smem_address(s.all_done));
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(T::REGS));
        long_grid_turn();
        const int rowgroup = group % T::ROWS, part = group / T::ROWS;
        const LongPlaces<T> places = {s.queries, smem_address(s.query_bars), s.merge};
        int n = 0, base = 0;
        long_queries_first<T>(g, blockIdx.x, n, places, rowgroup, part);
#pragma unroll 1
        for (int t = blockIdx.x; t < tiles; t += gridDim.x, ++n) {
            const int next = t + (int)gridDim.x;
            const bool lost = long_consume<T, T::MAX>(g, t, next < tiles ? next : -1, n, gk, gv,
                                                      base, places, rowgroup, part);
            if (T::MAX == FLASH_MAX_FIRST && lost)
                atomicOr(&s.redo[n >> 5], 1u << (n & 31));
            base += long_tile<T>(g.p, t).count;
        }
        if constexpr (T::MAX == FLASH_MAX_FIRST) {
            long_wait_all<T>(s);
            int at = n;
            n = 0;
#pragma unroll 1
            for (int t = blockIdx.x; t < tiles; t += gridDim.x, ++n)
                if (s.redo[n >> 5] >> (n & 31) & 1) {
                    if (T::TMA && elected())
                        tma_store_wait_read();
                    named_barrier(1 + rowgroup, T::SPLIT * 128);
                    long_queries_first<T>(g, t, at, places, rowgroup, part);
                    long_consume<T, FLASH_MAX_FULL>(g, t, -1, at, gk, gv, base, places, rowgroup,
                                                    part);
                    base += long_tile<T>(g.p, t).count;
                    ++at;
                }
        }
        if (T::TMA && elected())
            tma_store_wait_read();
    }
}

#endif
