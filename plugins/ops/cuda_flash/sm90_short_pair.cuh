/* Few tiles of 64 rows and more keys than one multiprocessor should load: two blocks of a cluster
 * share 64 rows, each with BN of the keys. Each computes the exponentials and O of its keys; each
 * then owns a part of the columns of O, gets what the other has of them and writes them.
 */
#ifndef FLASH_SM90_SHORT_PAIR_CUH
#define FLASH_SM90_SHORT_PAIR_CUH

#include "sm90_short.cuh"

/* Shared memory after the shape's own: the columns that the other block sends, the larger part of O
 * in fp32; its rows' shifts and sums; a barrier for these, one for those. */
template <class T> struct PairShape {
    static constexpr int COLUMNS = T::D - T::LEFT > T::LEFT ? T::D - T::LEFT : T::LEFT;
    static constexpr int SENT = (T::SPARE + 8 + 15) / 16 * 16, STATS = SENT + COLUMNS * 64 * 4,
                         BARS = STATS + 64 * 8, SMEM = 1024 + BARS + 16;
};

struct PairSide {
    uint32_t base, other; /* shared memory of this block and of the other */
    int rank;
};

/* Each row's shift and sum to the other block. */
template <class T>
FLASH_DEVICE void pair_send_stats(const PairSide &c, int own, const float (&shift)[2],
                                  const float (&sum)[2])
{
    typedef PairShape<T> P;
    if ((threadIdx.x & 3) == 0)
#pragma unroll
        for (int r = 0; r < 2; ++r)
            cluster_send(c.other + P::STATS + (own + r * 8) * 8, make_float2(shift[r], sum[r]),
                         c.other + P::BARS);
}

/* `shift` and `sum` become those of all keys, `f` what makes probabilities of this block's
 * exponentials; both blocks round alike. */
template <class T>
FLASH_DEVICE void pair_factors(const PairSide &c, const uint8_t *smem, int own, float (&shift)[2],
                               float (&sum)[2], float (&f)[2])
{
    typedef PairShape<T> P;
    mbarrier_wait(c.base + P::BARS, 0);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const float2 x = *(const float2 *)(smem + P::STATS + (own + r * 8) * 8);
        const float m = fmaxf(shift[r], x.x), mine = exp2_fast(shift[r] - m),
                    other = exp2_fast(x.x - m);
        sum[r] = __fadd_rn(__fmul_rn(sum[r], mine), __fmul_rn(x.y, other));
        f[r] = mine * reciprocal(sum[r]);
        shift[r] = m;
    }
}

/* A thread's values lie one after the other's, four at a time; the other block's same thread takes
 * them. */
template <class T, int COLUMNS>
FLASH_DEVICE void pair_send(const PairSide &c, const float (&o)[COLUMNS / 2], const float (&f)[2])
{
    typedef PairShape<T> P;
    const uint32_t to = c.other + P::SENT + threadIdx.x * 16;
#pragma unroll
    for (int i = 0; i < COLUMNS / 8; ++i)
        cluster_send(to + i * 2048,
                     make_float4(o[i * 4] * f[0], o[i * 4 + 1] * f[0], o[i * 4 + 2] * f[1],
                                 o[i * 4 + 3] * f[1]),
                     c.other + P::BARS + 8);
}

template <class T, int COLUMNS>
FLASH_DEVICE void pair_add(const PairSide &c, const uint8_t *smem, float (&o)[COLUMNS / 2],
                           const float (&f)[2])
{
    typedef PairShape<T> P;
    mbarrier_wait(c.base + P::BARS + 8, 0);
#pragma unroll
    for (int i = 0; i < COLUMNS / 8; ++i) {
        const float4 x = *(const float4 *)(smem + P::SENT + threadIdx.x * 16 + i * 2048);
        o[i * 4] = o[i * 4] * f[0] + x.x;
        o[i * 4 + 1] = o[i * 4 + 1] * f[0] + x.y;
        o[i * 4 + 2] = o[i * 4 + 2] * f[1] + x.z;
        o[i * 4 + 3] = o[i * 4 + 3] * f[1] + x.w;
    }
}

/* The block owns columns KEPT_FROM to KEPT_FROM + KEPT. */
template <class T, int KEPT, int KEPT_FROM, int GIVEN, int GIVEN_FROM>
FLASH_DEVICE void pair_columns(const flash_problem &a, const ShortPlace<T> &w, const PairSide &c,
                               const uint8_t *smem, uint32_t (&p)[T::BN / 4], float (&shift)[2],
                               float (&sum)[2])
{
    const int own = ((threadIdx.x >> 5) & 3) * 16 + ((threadIdx.x & 31) >> 2);
    float given[GIVEN / 2], kept[KEPT / 2], f[2];
    mbarrier_wait(c.base + T::BARS + T::CHUNKS * 8, 0); /* the values */
    short_values<T, GIVEN, GIVEN_FROM>(given, p, c.base + T::FRONT);
    short_values<T, KEPT, KEPT_FROM>(kept, p, c.base + T::FRONT);
    pair_factors<T>(c, smem, own, shift, sum, f);
    if (a.lse.data && c.rank == 0)
        short_store_lse<T>(a, w, shift, sum, w.row0 + own);
    wgmma_wait<1>();
    pin(given);
    pair_send<T, GIVEN>(c, given, f);
    wgmma_wait<0>();
    pin(kept);
    pin(p);
    pair_add<T, KEPT>(c, smem, kept, f);
    short_store_direct<T, KEPT, KEPT_FROM>(a, w, kept, 1.f, 1.f, w.row0);
}

template <class T> FLASH_DEVICE void pair_bars(const flash_short_args &g, uint32_t base, int rank)
{
    typedef PairShape<T> P;
    short_bars<T>(g, base);
    mbarrier_init(base + P::BARS, 1);
    mbarrier_init(base + P::BARS + 8, 1);
    mbarrier_expect(base + P::BARS, 64 * 8);
    mbarrier_expect(base + P::BARS + 8, (rank ? T::D - T::LEFT : T::LEFT) * 64 * 4);
}

template <class T>
FLASH_DEVICE void pair_work(const flash_problem &a, const ShortPlace<T> &w, const PairSide &c,
                            const uint8_t *smem)
{
    const int own = ((threadIdx.x >> 5) & 3) * 16 + ((threadIdx.x & 31) >> 2);
    float s[T::BN / 2], shift[2], sum[2];
    uint32_t p[T::BN / 4];
    short_scores<T, true>(s, c.base, c.base + T::Q_BYTES, c.base + T::BARS);
    short_softmax<T>(s, a.scale * 1.4426950408889634f, a.nk - c.rank * T::BN, shift, sum);
    pair_send_stats<T>(c, own, shift, sum);
#pragma unroll
    for (int i = 0; i < T::BN / 4; ++i)
        p[i] = pack2<T::BF>(s[i * 2], s[i * 2 + 1]);
    if (c.rank == 0)
        pair_columns<T, T::LEFT, 0, T::D - T::LEFT, T::LEFT>(a, w, c, smem, p, shift, sum);
    else
        pair_columns<T, T::D - T::LEFT, T::LEFT, T::LEFT, 0>(a, w, c, smem, p, shift, sum);
}

template <class T>
__global__ void __launch_bounds__(T::THREADS, T::BLOCKS)
    flash_pair_kernel(const __grid_constant__ flash_short_args g)
{
    extern __shared__ uint8_t raw[];
    uint8_t *smem = raw + (-smem_address(raw) & 1023);
    const int rank = (int)blockIdx.x & 1;
    const uint32_t base = smem_address(smem);
    const PairSide c = {base, cluster_address(base, rank ^ 1), rank};
    const ShortPlace<T> w = short_place<T>(g.p, blockIdx.x / 2);
    ShortCorner from = short_corner<T>(g.p, w);
    from.key0 = rank * T::BN;
    if (threadIdx.x == 0) {
        pair_bars<T>(g, base, rank);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    cluster_begun();
    asm volatile("griddepcontrol.wait;" ::: "memory");
    if (T::HELPER && threadIdx.x >= T::WORKERS)
        short_ask_values<T>(g, from, base);
    else
        short_ask_all<T>(g, w, from, base);
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    if (threadIdx.x == 96)
        touch_parameters(g.p, base + T::SPARE);
    __syncwarp();
    cluster_wait(); /* the other block has begun */
    if (threadIdx.x < T::WORKERS)
        pair_work<T>(g.p, w, c, smem);
}

#endif
