/* Hopper kernel for few keys (up to BN x SPLIT): a block loads its queries, all keys and all values
 * at once and makes one exact softmax over the whole row, held in registers.
 *
 * ROWS warpgroups of 64 query rows. With SPLIT 2 two warpgroups share 64 rows: each takes BN of the
 * keys, lays its exponentials P down in shared memory and computes its share of the columns of O
 * from both parts of P, each part in accumulators of its own until the row's maximum is known: no
 * partial O is added up. With TURNS over 1 a block computes several query tiles one after the
 * other, all of them asked for at the start. It can also give the sums of each key's column.
 *
 * These kernels run for a few microseconds, one warp a scheduler, each instruction once: their
 * length is their time.
 */
#ifndef FLASH_SM90_SHORT_CUH
#define FLASH_SM90_SHORT_CUH

#include "sm90_short_mass.cuh"
#include "sm90_short_store.cuh"

/* Q K of the first query tile begins with the first 64 columns that have arrived. */
template <class T, bool FIRST>
FLASH_DEVICE void short_scores(float (&s)[T::BN / 2], uint32_t queries, uint32_t keys,
                               uint32_t bars)
{
    const uint64_t dq = tile_descriptor(queries, 16), dk = tile_descriptor(keys, 16);
    pin(s);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < T::STEPS; ++k) {
        const uint64_t qa = dq + (k >> 2) * (8192 / 16) + (k & 3) * 2,
                       kb = dk + (k >> 2) * (T::BN * 128 / 16) + (k & 3) * 2;
        if (T::TMA && FIRST && (k & 3) == 0) {
            mbarrier_wait(bars + (k >> 2) * 8, 0);
            wgmma_fence();
        }
        if (k == 0)
            Wgmma<T::BN>::template ss<T::BF, 0, 0>(s, qa, kb);
        else
            Wgmma<T::BN>::template ss<T::BF, 0, 1>(s, qa, kb);
    }
    wgmma_commit();
    wgmma_wait<0>();
    pin(s);
}

/* Exact softmax of the row in s: s becomes 2^(s c - shift); shift and sum are the row's (of this
 * part of the keys). */
template <class T>
FLASH_DEVICE void short_softmax(float (&s)[T::BN / 2], float c, int keys, float (&shift)[2],
                                float (&sum)[2])
{
    const int col = (threadIdx.x & 3) * 2;
    if (keys < T::BN)
#pragma unroll
        for (int i = 0; i < T::BN / 2; ++i)
            if ((i >> 2) * 8 + col + (i & 1) >= keys)
                s[i] = -INFINITY;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        float m = fmaxf(s[r * 2], s[r * 2 + 1]);
#pragma unroll
        for (int j = 1; j < T::BN / 8; ++j)
            m = fmaxf(m, fmaxf(s[j * 4 + r * 2], s[j * 4 + r * 2 + 1]));
        m = quad_max(m) * c;
        shift[r] = m;
        if ((T::SPLIT > 1 || T::PAIR) && m == -INFINITY)
            m = 0.f; /* a part without keys */
        float z[2] = {};
#pragma unroll
        for (int j = 0; j < T::BN / 8; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                float &x = s[j * 4 + r * 2 + e];
                x = __fmaf_rn(x, c, -m);
                x = exp2_fast(x);
                z[e] += x;
            }
        sum[r] = quad_sum(z[0] + z[1]);
    }
}

/* P V with P in registers, columns FROM to FROM + COLUMNS */
template <class T, int COLUMNS, int FROM>
FLASH_DEVICE void short_values(float (&o)[COLUMNS / 2], uint32_t (&p)[T::BN / 4], uint32_t values)
{
    const uint64_t dv =
        tile_descriptor(values + FROM / 64 * (T::BN * 128), T::BN * 128) + FROM % 64 * 2 / 16;
    pin(o);
    pin(p);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < T::BN / 16; ++k) {
        if (k == 0)
            Wgmma<COLUMNS>::template rs<T::BF, 1, 0>(o, p[0], p[1], p[2], p[3], dv);
        else
            Wgmma<COLUMNS>::template rs<T::BF, 1, 1>(o, p[k * 4], p[k * 4 + 1], p[k * 4 + 2],
                                                     p[k * 4 + 3], dv + k * 128);
    }
    wgmma_commit();
}

/* P V of one part's keys with P in shared memory, columns FROM to FROM + COLUMNS */
template <class T, int COLUMNS, int FROM>
FLASH_DEVICE void short_values_shared(float (&o)[COLUMNS / 2], uint32_t p, uint32_t values)
{
    const uint64_t dp = tile_descriptor(p, 16),
                   dv = tile_descriptor(values + FROM / 64 * (T::BN * 128), T::BN * 128) +
                        FROM % 64 * 2 / 16;
#pragma unroll
    for (int k = 0; k < T::BN / 16; ++k) {
        const uint64_t a = dp + (k >> 2) * (8192 / 16) + (k & 3) * 2;
        if (k == 0)
            Wgmma<COLUMNS>::template ss<T::BF, 1, 0>(o, a, dv);
        else
            Wgmma<COLUMNS>::template ss<T::BF, 1, 1>(o, a, dv + k * 128);
    }
}

template <class T> struct ShortTile {
    const flash_problem &a;
    const ShortPlace<T> &w;
    const ShortMass<T> &mass;
    uint32_t queries, keys, values, bars; /* shared-memory addresses */
    float2 *stats;
    int row0;
};

/* One query tile where a warpgroup holds whole rows. */
template <class T, int TURN> FLASH_DEVICE void short_whole(const ShortTile<T> &t)
{
    const flash_problem &a = t.a;
    const int row =
        t.row0 + t.w.rowgroup * 64 + ((threadIdx.x >> 5) & 3) * 16 + ((threadIdx.x & 31) >> 2);
    float s[T::BN / 2], o[T::D / 2], shift[2], sum[2];
    uint32_t p[T::BN / 4];
    if constexpr (!T::TMA)
        short_copied<T, (TURN > 0 ? TURN + 1 : 0)>();
    short_scores<T, TURN == 0>(s, t.queries + t.w.rowgroup * T::CHUNKS * 8192, t.keys, t.bars);
    short_softmax<T>(s, a.scale * 1.4426950408889634f, a.nk, shift, sum);
#pragma unroll
    for (int i = 0; i < T::BN / 4; ++i)
        p[i] = pack2<T::BF>(s[i * 2], s[i * 2 + 1]);
    if constexpr (T::TMA)
        mbarrier_wait(t.bars + T::CHUNKS * 8, 0); /* the values */
    else if constexpr (TURN == 0)
        short_copied<T, 1>();
    short_values<T, T::D, 0>(o, p, t.values);
    const float f[2] = {reciprocal(sum[0]), reciprocal(sum[1])};
    if constexpr (T::MASS) {
        const float seen[2] = {row < a.nq ? f[0] : 0.f, row + 8 < a.nq ? f[1] : 0.f};
        short_column_sums<T>(t.mass, t.w.part, s, seen);
    }
    if (a.lse.data)
        short_store_lse<T>(a, t.w, shift, sum, row);
    if constexpr (!T::TMA)
        named_barrier(1 + t.w.rowgroup, 128); /* all four warps' products have read Q */
    wgmma_wait<0>();
    pin(o);
    pin(p);
    short_store<T, T::D, 0>(a, t.w, o, f[0], f[1], t.queries, t.row0);
}

/* Of a row: `shift` and `sum` of all keys, `f` what makes probabilities of each part's
 * exponentials. */
template <class T>
FLASH_DEVICE void short_factors(const ShortTile<T> &t, int own, float (&shift)[2], float (&sum)[2],
                                float (&f)[2][2])
{
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const float2 x = t.stats[own + r * 8], y = t.stats[64 + own + r * 8];
        shift[r] = fmaxf(x.x, y.x);
        f[0][r] = exp2_fast(x.x - shift[r]);
        f[1][r] = exp2_fast(y.x - shift[r]);
        sum[r] = x.y * f[0][r] + y.y * f[1][r];
        f[0][r] *= reciprocal(sum[r]);
        f[1][r] *= reciprocal(sum[r]);
    }
}

/* A part's share of the columns, from both parts of P. */
template <class T, int COLUMNS, int FROM>
FLASH_DEVICE void short_columns(const ShortTile<T> &t, int own, const float (&s)[T::BN / 2])
{
    const flash_problem &a = t.a;
    float o[2][COLUMNS / 2], f[2][2], shift[2], sum[2];
    pin(o[0]);
    pin(o[1]);
    wgmma_fence();
#pragma unroll
    for (int q = 0; q < 2; ++q) {
        if constexpr (T::TMA) {
            mbarrier_wait(t.bars + (T::CHUNKS + q) * 8, 0);
            wgmma_fence();
        }
        short_values_shared<T, COLUMNS, FROM>(o[q], t.keys + q * T::K_BYTES,
                                              t.values + q * T::K_BYTES);
    }
    wgmma_commit();
    short_factors<T>(t, own, shift, sum, f);
    if constexpr (T::MASS) {
        constexpr int MINE = FROM > 0;
        const float seen[2] = {t.row0 + own < a.nq ? f[MINE][0] : 0.f,
                               t.row0 + own + 8 < a.nq ? f[MINE][1] : 0.f};
        short_column_sums<T>(t.mass, t.w.part, s, seen);
    }
    if (a.lse.data && FROM == 0)
        short_store_lse<T>(a, t.w, shift, sum, t.row0 + own);
    wgmma_wait<0>();
    pin(o[0]);
    pin(o[1]);
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; ++i)
        o[0][i] = o[0][i] * f[0][(i >> 1) & 1] + o[1][i] * f[1][(i >> 1) & 1];
    short_store<T, COLUMNS, FROM>(a, t.w, o[0], 1.f, 1.f, t.queries, t.row0);
}

/* One query tile shared by two warpgroups. */
template <class T> FLASH_DEVICE void short_shared(const ShortTile<T> &t)
{
    const flash_problem &a = t.a;
    const int warp = (threadIdx.x >> 5) & 3, lane = threadIdx.x & 31, own = warp * 16 + (lane >> 2);
    const uint32_t keys = t.keys + t.w.part * T::K_BYTES;
    float s[T::BN / 2], shift[2], sum[2];
    if constexpr (!T::TMA)
        short_copied<T, 0>();
    short_scores<T, true>(s, t.queries, keys, t.bars);
    short_softmax<T>(s, a.scale * 1.4426950408889634f, a.nk - t.w.part * T::BN, shift, sum);
    /* all four warps' products have read the keys whose place P takes */
    named_barrier(1 + t.w.part, 128);
    rows_to_shared<T::BF, T::BN, 0, 8192>(keys + warp * 2048, s, 1.f, 1.f);
    if ((lane & 3) == 0)
#pragma unroll
        for (int r = 0; r < 2; ++r)
            t.stats[t.w.part * 64 + own + r * 8] = make_float2(shift[r], sum[r]);
    fence_proxy_async();
    if constexpr (T::TMA)
        named_barrier(BARRIER_WORKERS, T::WORKERS); /* P is there */
    else
        short_copied<T, 1>(); /* and the values */
    if (t.w.part == 0)
        short_columns<T, T::LEFT, 0>(t, own, s);
    else
        short_columns<T, T::D - T::LEFT, T::LEFT>(t, own, s);
}

/* The warp beside the workers. */
template <class T>
FLASH_DEVICE void short_help(const flash_short_args &g, const ShortPlace<T> &w,
                             const ShortCorner &from, const ShortMass<T> &mass, uint32_t base)
{
    short_ask_values<T>(g, from, base);
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    __syncwarp();
    if (mass.clustered)
        cluster_wait(); /* every block has begun */
    short_finish_sums<T>(g.p, mass, w, threadIdx.x & 31, 32,
                         [] { named_barrier(BARRIER_SUMS, T::THREADS); });
}

template <class T>
__global__ void __launch_bounds__(T::THREADS, T::BLOCKS)
    flash_short_kernel(const __grid_constant__ flash_short_args g)
{
    const flash_problem &a = g.p;
    extern __shared__ uint8_t raw[];
    uint8_t *smem = raw + (-smem_address(raw) & 1023);
    const uint32_t base = smem_address(smem);
    const ShortPlace<T> w = short_place<T>(a, blockIdx.x);
    const ShortCorner from = short_corner<T>(a, w);
    ShortMass<T> mass = {};
    if constexpr (T::MASS)
        mass.begin(a, (float *)(smem + T::TILES + T::STATS),
                   base + T::BARS + (T::CHUNKS + T::SPLIT) * 8);
    if (threadIdx.x == 0) {
        if constexpr (T::TMA)
            short_bars<T>(g, base);
        if (T::MASS && mass.clustered)
            mass.expect(a, w);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    if (T::TMA || T::MASS)
        __syncthreads();
    if (T::MASS && mass.clustered)
        cluster_begun();
    asm volatile("griddepcontrol.wait;" ::: "memory");
    if constexpr (T::HELPER)
        if (threadIdx.x >= T::WORKERS) {
            short_help<T>(g, w, from, mass, base);
            return;
        }
    if constexpr (T::TMA)
        short_ask_all<T>(g, w, from, base);
    else
        short_load_all<T>(a, w, base);
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    if (threadIdx.x == 96) /* its warp has asked for nothing */
        touch_parameters(a, base + T::SPARE);
    __syncwarp();
    if (T::MASS && mass.clustered)
        cluster_wait(); /* every block has begun */
    ShortTile<T> t = {a,
                      w,
                      mass,
                      base,
                      base + T::TURNS * T::Q_BYTES,
                      base + T::FRONT,
                      base + T::BARS,
                      (float2 *)(smem + T::TILES),
                      w.row0};
    if constexpr (T::SPLIT > 1)
        short_shared<T>(t);
    else
        short_whole<T, 0>(t);
    if constexpr (T::TURNS > 1) {
        t.queries = base + T::Q_BYTES;
        t.row0 = w.row0 + T::QUERIES;
        short_whole<T, 1>(t);
    }
    if constexpr (T::MASS && !T::HELPER) {
        __syncwarp();
        short_finish_sums<T>(a, mass, w, threadIdx.x, T::THREADS,
                             [] { named_barrier(BARRIER_WORKERS, T::WORKERS); });
    }
}

#endif
