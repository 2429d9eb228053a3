/* The short kernel's column sums: what each key receives from a block's 64 queries.
 *
 * Where the heads of a batch entry form a cluster (one block each, up to 8), every warp sends its
 * sums to the block that owns the key, which adds them up in a fixed order: the mean over heads
 * without a second kernel. Otherwise the block's sums go to scratch.
 */
#ifndef FLASH_SM90_SHORT_MASS_CUH
#define FLASH_SM90_SHORT_MASS_CUH

#include "sm90_short_shape.cuh"

template <class T> struct ShortMass {
    static constexpr int VALUES = T::MASS ? T::SUMS / 32 : 1; /* sums that a lane keeps */
    float *shared;
    bool clustered;
    int own;                           /* keys of a block of the cluster */
    float share;                       /* of a head in the mean */
    uint32_t bar;                      /* tells when the block's keys have all their sums */
    uint32_t to[VALUES], bars[VALUES]; /* where this warp's sums go (0: no key), and their owner's
                                          mbarrier */

    /* the key of the lane's i-th sum, as short_halve leaves them: of a tile of 8 keys a lane has
     * two next to each other */
    FLASH_DEVICE static int key(int i, int part)
    {
        const int lane = threadIdx.x & 31,
                  at = ((lane >> 4 & 1) * 4 + (lane >> 3 & 1) * 2 + (lane >> 2 & 1)) * VALUES + i;
        return part * T::SUMS + (at >> 1) * 8 + (lane & 3) * 2 + (at & 1);
    }
    FLASH_DEVICE void begin(const flash_problem &a, const ShortPlace<T> &w, float *at,
                            uint32_t own_bar)
    {
        const int warp = (threadIdx.x >> 5) & 3;
        shared = at;
        bar = own_bar;
        clustered = !a.scratch;
        own = (a.nk + a.h - 1) / a.h;
        share = 1.f / (float)a.h;
        if (!clustered)
            return;
#pragma unroll
        for (int i = 0; i < VALUES; ++i) {
            const int k = key(i, w.part), owner = k / own;
            to[i] = 0;
            if (k >= a.nk)
                continue;
            to[i] = cluster_address(smem_address(shared + (w.h * 4 + warp) * own + k - owner * own),
                                    owner);
            bars[i] = cluster_address(bar, owner);
        }
    }
    /* by one thread, before cluster_begun */
    FLASH_DEVICE void expect(const flash_problem &a, const ShortPlace<T> &w) const
    {
        const int keys = min(max(a.nk - w.h * own, 0), own);
        mbarrier_init(bar, 1);
        mbarrier_expect(bar, a.h * 4 * keys * 4);
    }
};

/* One step: lanes `bit` apart share N pairs of sums. */
template <int N, int BIT, int R> FLASH_DEVICE void short_halve(float (&x)[R])
{
    const bool high = threadIdx.x & BIT;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const float keep = high ? x[N + i] : x[i], give = high ? x[i] : x[N + i];
        x[i] = keep + __shfl_xor_sync(0xffffffffu, give, BIT);
    }
}

/* Adds up each column's 8 lanes, each lane ending up with an eighth of the columns from FROM on. */
template <class T, int FROM>
FLASH_DEVICE void short_scatter(const float (&s)[T::BN / 2], const float (&factor)[2],
                                float (&sum)[T::SUMS / 32])
{
    float x[T::SUMS / 4];
#pragma unroll
    for (int i = 0; i < T::SUMS / 4; ++i) {
        const int at = FROM / 2 + (i >> 1) * 4 + (i & 1);
        x[i] = s[at] * factor[0] + s[at + 2] * factor[1];
    }
    short_halve<T::SUMS / 8, 16>(x);
    short_halve<T::SUMS / 16, 8>(x);
    short_halve<T::SUMS / 32, 4>(x);
#pragma unroll
    for (int i = 0; i < T::SUMS / 32; ++i)
        sum[i] = x[i];
}

/* `factor` makes probabilities of s, 0 where there is no query */
template <class T, int FROM>
FLASH_DEVICE void short_column_sums(const flash_problem &a, const ShortMass<T> &m,
                                    const ShortPlace<T> &w, const float (&s)[T::BN / 2],
                                    const float (&factor)[2])
{
    float sum[T::SUMS / 32];
    short_scatter<T, FROM>(s, factor, sum);
    if (m.clustered) {
        cluster_wait(); /* every block has begun */
#pragma unroll
        for (int i = 0; i < T::SUMS / 32; ++i)
            if (m.to[i])
                cluster_send(m.to[i], sum[i], m.bars[i]);
        return;
    }
#pragma unroll
    for (int i = 0; i < T::SUMS / 32; ++i)
        m.shared[((threadIdx.x >> 5) & 3) * T::KEYS + ShortMass<T>::key(i, w.part)] = sum[i];
    named_barrier(1 + w.part, 128);
    const int i = w.part * T::SUMS + (threadIdx.x & 127);
    if ((threadIdx.x & 127) < T::SUMS && i < a.nk)
        ((float *)a.scratch)[(int64_t)blockIdx.x * a.nk + i] =
            (m.shared[i] + m.shared[T::KEYS + i]) +
            (m.shared[2 * T::KEYS + i] + m.shared[3 * T::KEYS + i]);
}

/* The mean of the block's keys, by its last warps: four lanes add up a key's sums, a warp's of each
 * head. */
template <class T>
FLASH_DEVICE void short_mean(const flash_problem &a, const ShortMass<T> &m, const ShortPlace<T> &w)
{
    if (!m.clustered)
        return;
    mbarrier_wait(m.bar, 0);
    for (int i = T::THREADS - 1 - threadIdx.x; i < (m.own * 4 + 31) / 32 * 32; i += T::THREADS) {
        const int mine = i >> 2, key = w.h * m.own + mine;
        float x = 0.f;
        if (mine < m.own)
            for (int h = 0; h < a.h; ++h)
                x += m.shared[(h * 4 + (i & 3)) * m.own + mine];
        x = quad_sum(x);
        if ((i & 3) == 0 && mine < m.own && key < a.nk)
            ((float *)a.key_mass.data)[w.b * a.key_mass.batch + key * a.key_mass.col] = x * m.share;
    }
}

#endif
