/* Hopper kernel for head dimensions from 264 to 512 (the VAE's single head).
 *
 * 64 query rows of 512 fp32 columns fill two warpgroups' registers, 256 columns each; both compute
 * the same scores, so nothing passes between them. K and V fill shared memory once, in halves of
 * 256 columns that are refilled as soon as they have been read. A cluster of two blocks shares the
 * rows, half the keys each, and each block finishes half of the columns with what the other sends
 * into its shared memory.
 */
#ifndef FLASH_SM90_WIDE_CUH
#define FLASH_SM90_WIDE_CUH

#include "sm90_long.cuh"

template <bool BF_> struct WideShape {
    static constexpr bool BF = BF_;
    static constexpr int BN = 64, CHUNKS = 8, THREADS = 384,
                         HALF = 4 * 8192; /* bytes of 64 rows x 256 columns */
    static constexpr int SMEM = 1024 + 6 * HALF + 64 * 8 + 8 * 8;
};

struct WideBars { /* [half] */
    uint32_t k_full, k_empty, v_full, v_empty;
};

template <class T>
FLASH_DEVICE void wide_produce(const flash_long_args &g, int first, int last, int head, int batch,
                               uint32_t keys, uint32_t values, const WideBars &bars)
{
    const int warp = (threadIdx.x >> 5) & 3, half = warp & 1;
    const bool is_v = warp >= 2;
    const flash_view &view = is_v ? g.p.v : g.p.k;
    const CUtensorMap *map = is_v ? &g.v : &g.k;
    const uint32_t full = (is_v ? bars.v_full : bars.k_full) + half * 8,
                   empty = (is_v ? bars.v_empty : bars.k_empty) + half * 8;
    const uint32_t dst = (is_v ? values : keys) + half * T::HALF;
    if ((threadIdx.x & 31) != 0)
        return;
#pragma unroll 1
    for (int i = first; i < last; ++i) {
        const int n = i - first;
        if (n > 0)
            mbarrier_wait(empty, (n - 1) & 1);
        mbarrier_expect(full, T::HALF);
#pragma unroll
        for (int c = 0; c < 4; ++c)
            tma_load(dst + c * 8192, map, full, half * 256 + c * 64, i * T::BN,
                     view.head ? head : 0, view.batch ? batch : 0);
    }
}

struct WideState {
    float s[32], o[128], shift[2], sum[2];
    uint32_t p[16];
};

template <class T>
FLASH_DEVICE void wide_stream(const flash_problem &a, WideState &x, int first, int last,
                              uint32_t queries, uint32_t keys, uint32_t values,
                              const WideBars &bars, int own)
{
    const float c = a.scale * 1.4426950408889634f;
    const int lane = threadIdx.x & 31, col = (lane & 3) * 2;
#pragma unroll 1
    for (int i = first; i < last; ++i) {
        const int phase = (i - first) & 1;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            mbarrier_wait(bars.k_full + half * 8, phase);
            if (half == 0)
                pin(x.s);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < 16; ++k) {
                const uint32_t at = half * T::HALF + (k >> 2) * 8192 + (k & 3) * 32;
                if (half == 0 && k == 0)
                    Wgmma<64>::template ss<T::BF, 0, 0>(x.s, tile_descriptor(queries + at, 16),
                                                        tile_descriptor(keys + at, 16));
                else
                    Wgmma<64>::template ss<T::BF, 0, 1>(x.s, tile_descriptor(queries + at, 16),
                                                        tile_descriptor(keys + at, 16));
            }
        }
        wgmma_commit();
        wgmma_wait<0>(); /* these scores, and the P V before */
        pin(x.s);
        pin(x.o);
        pin(x.p);
        if (lane == 0) {
            mbarrier_arrive(bars.k_empty);
            mbarrier_arrive(bars.k_empty + 8);
            if (i > first)
                mbarrier_arrive(bars.v_empty + own * 8);
        }
        if (a.nk - i * T::BN < T::BN)
#pragma unroll
            for (int e = 0; e < 32; ++e)
                if ((e >> 2) * 8 + col + (e & 1) >= a.nk - i * T::BN)
                    x.s[e] = -INFINITY;
        float scale[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float m = x.s[r * 2], z = 0.f;
#pragma unroll
            for (int j = 0; j < 8; ++j)
                m = fmaxf(m, fmaxf(x.s[j * 4 + r * 2], x.s[j * 4 + r * 2 + 1]));
            m = fmaxf(x.shift[r], quad_max(m) * c);
            scale[r] = exp2_fast(x.shift[r] - m);
            x.shift[r] = m;
#pragma unroll
            for (int j = 0; j < 8; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    float &s = x.s[j * 4 + r * 2 + e];
                    s = exp2_fast(__fmaf_rn(s, c, -m));
                    z += s;
                }
            x.sum[r] = x.sum[r] * scale[r] + z;
        }
#pragma unroll
        for (int e = 0; e < 16; ++e)
            x.p[e] = pack2<T::BF>(x.s[e * 2], x.s[e * 2 + 1]);
        if (__any_sync(0xffffffffu, scale[0] != 1.f || scale[1] != 1.f))
#pragma unroll
            for (int e = 0; e < 128; ++e)
                x.o[e] *= scale[(e >> 1) & 1];
        mbarrier_wait(bars.v_full + own * 8, phase);
        pin(x.o);
        pin(x.p);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k)
            Wgmma<256>::template rs<T::BF, 1, 1>(
                x.o, x.p[k * 4], x.p[k * 4 + 1], x.p[k * 4 + 2], x.p[k * 4 + 3],
                tile_descriptor(values + own * T::HALF, 8192) + k * 128);
        wgmma_commit();
    }
    wgmma_wait<0>();
    pin(x.o);
    pin(x.p);
    x.sum[0] = quad_sum(x.sum[0]);
    x.sum[1] = quad_sum(x.sum[1]);
}

/* the columns that the other block finishes */
FLASH_DEVICE void wide_send(const WideState &x, uint32_t to, uint32_t stats)
{
    const int lane = threadIdx.x & 31, own = ((threadIdx.x >> 5) & 3) * 16 + (lane >> 2);
#pragma unroll
    for (int i = 0; i < 128; ++i)
        cluster_store(to + (threadIdx.x & 127) * 4 + i * 512, x.o[i]);
    if ((lane & 3) == 0)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            cluster_store(stats + (own + r * 8) * 8, x.shift[r]);
            cluster_store(stats + (own + r * 8) * 8 + 4, x.sum[r]);
        }
}

template <class T>
FLASH_DEVICE void wide_finish(const flash_problem &a, const WideState &x, const float *sent,
                              const float *stats, int b, int h, int row0, int group)
{
    const int lane = threadIdx.x & 31, own = ((threadIdx.x >> 5) & 3) * 16 + (lane >> 2);
    const float *from = sent + (threadIdx.x & 127);
    uint16_t *out = (uint16_t *)a.out.data + b * a.out.batch + h * a.out.head;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int row = row0 + own + r * 8;
        const float other = stats[(own + r * 8) * 2], m = fmaxf(x.shift[r], other);
        const float mine = x.shift[r] == -INFINITY ? 0.f : exp2_fast(x.shift[r] - m),
                    theirs = other == -INFINITY ? 0.f : exp2_fast(other - m);
        const float sum = x.sum[r] * mine + stats[(own + r * 8) * 2 + 1] * theirs, f = 1.f / sum;
#pragma unroll
        for (int j = 0; j < 32; ++j) {
            const float lo = (x.o[j * 4 + r * 2] * mine + from[(j * 4 + r * 2) * 128] * theirs) * f;
            const float hi =
                (x.o[j * 4 + r * 2 + 1] * mine + from[(j * 4 + r * 2 + 1) * 128] * theirs) * f;
            const int column = group * 256 + j * 8 + (lane & 3) * 2;
            if (row < a.nq && column < a.d)
                *(uint32_t *)(out + row * a.out.row + column) = pack2<T::BF>(lo, hi);
        }
        if (a.lse.data && group == 0 && (lane & 3) == 0 && row < a.nq)
            ((float *)a.lse.data)[b * a.lse.batch + h * a.lse.head + row * a.lse.row] =
                (m + __log2f(sum)) * 0.69314718055994531f;
    }
}

template <class T>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(T::THREADS, 1)
    flash_wide_kernel(const __grid_constant__ flash_long_args g)
{
    extern __shared__ uint8_t raw[];
    const flash_problem &a = g.p;
    uint8_t *smem = (uint8_t *)(((uintptr_t)raw + 1023) & ~(uintptr_t)1023);
    float *stats = (float *)(smem + 6 * T::HALF); /* the other block's shift and sum of each row */
    uint64_t *bar = (uint64_t *)(stats + 128);
    const uint32_t queries = smem_address(smem), keys = queries + 2 * T::HALF,
                   values = queries + 4 * T::HALF;
    const WideBars bars = {smem_address(bar), smem_address(bar + 2), smem_address(bar + 4),
                           smem_address(bar + 6)};
    const uint32_t rank = blockIdx.x & 1;
    const int pair = blockIdx.x >> 1, row_tiles = (a.nq + 63) / 64, bh = pair / row_tiles,
              b = bh / a.h, h = bh % a.h, row0 = (pair % row_tiles) * 64;
    const int key_tiles = (a.nk + T::BN - 1) / T::BN, middle = (key_tiles + 1) / 2,
              first = rank ? middle : 0, last = rank ? key_tiles : middle;
    const int group = __shfl_sync(0xffffffffu, (int)threadIdx.x >> 7, 0), hkv = h / (a.h / a.hkv);
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; ++i) {
            mbarrier_init(bars.k_full + i * 8, 1);
            mbarrier_init(bars.k_empty + i * 8, 8);
            mbarrier_init(bars.v_full + i * 8, 1);
            mbarrier_init(bars.v_empty + i * 8, 4);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    asm volatile("griddepcontrol.wait;" ::: "memory");
    if (group == 2) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(24));
        wide_produce<T>(g, first, last, hkv, b, keys, values, bars);
        __syncwarp();
        cluster_sync();
        cluster_sync();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(240));
        WideState x;
        const uint16_t *q =
            (const uint16_t *)a.q.data + b * a.q.batch + h * a.q.head + row0 * a.q.row;
#pragma unroll 4
        for (int id = threadIdx.x; id < 64 * 64; id += 256) {
            const int row = id >> 6, piece = id & 63;
            const bool in = row0 + row < a.nq && piece < a.d / 8;
            cp_async16(queries + (piece >> 3) * 8192 + swizzled(row, piece & 7),
                       in ? q + row * a.q.row + piece * 8 : q, in ? 16 : 0);
        }
        cp_async_commit();
        cp_async_wait<0>();
        fence_proxy_async();
        named_barrier(1, 256);
#pragma unroll
        for (int i = 0; i < 128; ++i)
            x.o[i] = 0.f;
#pragma unroll
        for (int i = 0; i < 16; ++i)
            x.p[i] = 0;
        x.shift[0] = x.shift[1] = -INFINITY;
        x.sum[0] = x.sum[1] = 0.f;
        wide_stream<T>(a, x, first, last, queries, keys, values, bars, group);
        cluster_sync(); /* both blocks have read all of their keys */
        if ((uint32_t)group != rank)
            wide_send(x, cluster_address(keys, rank ^ 1),
                      cluster_address(smem_address(stats), rank ^ 1));
        cluster_sync();
        if ((uint32_t)group == rank)
            wide_finish<T>(a, x, (const float *)(smem + 2 * T::HALF), stats, b, h, row0, group);
    }
}

#endif
