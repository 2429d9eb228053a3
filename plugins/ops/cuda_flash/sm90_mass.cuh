/* Hopper kernel for the column sums of long sequences, the second pass: S^T = K Q^T with the keys
 * standing still.
 *
 * A block holds 256 keys and lets the queries pass through a ring; p = 2^(s c - lse) needs no
 * maximum, no P and no V, and a thread adds up the two keys' rows that it holds. Partial sums [B,
 * H, Nk] go to scratch. The problem comes with q and k, nq and nk exchanged, so that the long
 * kernel's parts serve: "queries" below are its K.
 */
#ifndef FLASH_SM90_MASS_CUH
#define FLASH_SM90_MASS_CUH

#include "sm90_long.cuh"

template <class T> struct MassLayout {
    static constexpr int SMEM =
        1024 + T::Q_BYTES + T::STAGES * (T::TILE_BYTES + T::BN * 4) + T::STAGES * 24;
};

/* two warps bring the log-sum-exp of a tile's queries, in log2; where there is no query, what makes
 * p zero */
template <class T>
FLASH_DEVICE void mass_feed_lse(const flash_problem &a, int tile, const LongRing &ring,
                                float *shifts, int &at)
{
    const LongTile<T> t = long_tile<T>(a, tile);
    const float *lse = (const float *)a.lse.data + t.b * a.lse.batch + t.h * a.lse.head;
#pragma unroll 1
    for (int j = 0; j < a.nk; j += T::BN, ++at) {
        const int s = at % T::STAGES, round = at / T::STAGES;
        if (round > 0)
            mbarrier_wait(ring.empty + s * 8, (round - 1) & 1);
        for (int i = threadIdx.x & 63; i < T::BN; i += 64)
            shifts[s * T::BN + i] =
                j + i < a.nk ? lse[(j + i) * a.lse.row] * 1.4426950408889634f : INFINITY;
        mbarrier_arrive(ring.full + s * 8);
    }
}

template <class T>
FLASH_DEVICE void mass_produce(const flash_long_args &g, int tiles, const LongRing &ring,
                               const LongRing &lse, float *shifts)
{
    int at = 0;
    LongFeed<T> f;
    f.count = f.signalled = 0;
    if ((threadIdx.x & 127) >= 64) {
        for (int t = blockIdx.x; t < tiles; t += gridDim.x)
            mass_feed_lse<T>(g.p, t, lse, shifts, at);
        return;
    }
    if constexpr (!T::TMA)
        long_feed_places<T>(g.p.k, f);
#pragma unroll 1
    for (int t = blockIdx.x; t < tiles; t += gridDim.x)
        if constexpr (T::TMA)
            long_feed_tma<T>(g.p, &g.k, g.p.k.head == 0, g.p.k.batch == 0, t, ring, at);
        else
            long_feed_copies<T>(g.p, g.p.k, t, ring, f);
}

template <class T>
FLASH_DEVICE void mass_stream(const flash_problem &a, uint64_t dk, const LongRing &ring,
                              const LongRing &lse, const float *shifts, int base, float (&sum)[2])
{
    const float c = a.scale * 1.4426950408889634f;
    const int tiles = (a.nk + T::BN - 1) / T::BN, col = (threadIdx.x & 3) * 2;
    LongState<T> x;
#pragma unroll 1
    for (int i = 0; i < tiles; ++i) {
        const int at = base + i;
        long_await<T>(ring, at);
        pin(x.s);
        wgmma_fence();
        long_scores<T>(x, dk, long_keys<T>(ring, at));
        wgmma_commit();
        wgmma_wait<0>();
        pin(x.s);
        long_await<T>(lse, at);
        const float2 *shift = (const float2 *)(shifts + at % T::STAGES * T::BN + col);
#pragma unroll
        for (int j = 0; j < T::BN / 8; ++j) {
            const float2 l = shift[j * 4];
            sum[0] += exp2_fast(__fmaf_rn(x.s[j * 4], c, -l.x)) +
                      exp2_fast(__fmaf_rn(x.s[j * 4 + 1], c, -l.y));
            sum[1] += exp2_fast(__fmaf_rn(x.s[j * 4 + 2], c, -l.x)) +
                      exp2_fast(__fmaf_rn(x.s[j * 4 + 3], c, -l.y));
        }
        __syncwarp();
        long_release<T>(ring, at);
    }
}

template <class T>
__global__ void __launch_bounds__(T::THREADS, 1)
    flash_mass_kernel(const __grid_constant__ flash_long_args g)
{
    static_assert(MassLayout<T>::SMEM <= 232448, "more shared memory than a block may have");
    extern __shared__ uint8_t raw[];
    const flash_problem &a = g.p;
    uint8_t *smem = (uint8_t *)(((uintptr_t)raw + 1023) & ~(uintptr_t)1023),
            *ring_tiles = smem + T::Q_BYTES;
    float *shifts = (float *)(ring_tiles + T::STAGES * T::TILE_BYTES);
    uint64_t *bars = (uint64_t *)(shifts + T::STAGES * T::BN);
    const int row_tiles = (a.nq + T::ROWS * 64 - 1) / (T::ROWS * 64), tiles = row_tiles * a.b * a.h,
              query_tiles = (a.nk + T::BN - 1) / T::BN;
    if constexpr (T::D % 16 != 0)
        for (int i = threadIdx.x; i < (T::Q_BYTES + T::STAGES * T::TILE_BYTES) / 16;
             i += T::THREADS)
            ((uint4 *)smem)[i] = make_uint4(0, 0, 0, 0);
    if (threadIdx.x == 0) {
        for (int i = 0; i < T::STAGES; ++i) {
            mbarrier_init(smem_address(&bars[i]), 2);
            mbarrier_init(smem_address(&bars[2 * T::STAGES + i]), 64); /* each writer arrives */
            mbarrier_init(smem_address(&bars[T::STAGES + i]), T::ROWS * 4);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    fence_proxy_async();
    __syncthreads();
    asm volatile("griddepcontrol.wait;" ::: "memory");
    const int group = __shfl_sync(0xffffffffu, (int)threadIdx.x >> 7, 0);
    const LongRing ring = {smem_address(ring_tiles), smem_address(bars),
                           smem_address(bars + T::STAGES)};
    /* the log-sum-exp lies beside the tiles, freed with them */
    const LongRing lse = {smem_address(shifts), smem_address(bars + 2 * T::STAGES), ring.empty};
    if (group == T::GROUPS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(T::FEED_REGS));
        mass_produce<T>(g, tiles, ring, lse, shifts);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(T::REGS));
        const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3;
        int base = 0;
#pragma unroll 1
        for (int t = blockIdx.x; t < tiles; t += gridDim.x, base += query_tiles) {
            const LongTile<T> place = long_tile<T>(a, t);
            const uint32_t mine = smem_address(smem + group * T::CHUNKS * 8192);
            float sum[2] = {0.f, 0.f};
            named_barrier(1 + group, 128);
            long_load_queries<T>(a, place, group, 0, mine);
            cp_async_wait<0>();
            fence_proxy_async();
            named_barrier(1 + group, 128);
            mass_stream<T>(a, tile_descriptor(mine, 16), ring, lse, shifts, base, sum);
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const int key = place.row0 + group * 64 + warp * 16 + (lane >> 2) + r * 8;
                const float x = quad_sum(sum[r]);
                if ((lane & 3) == 0 && key < a.nq)
                    ((float *)a.scratch)[((int64_t)place.b * a.h + place.h) * a.nq + key] = x;
            }
        }
    }
}

#endif
