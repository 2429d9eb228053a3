/* The short kernel's column sums: what each key receives from a block's 64 queries.
 *
 * Every warp lays down its 16 queries' sums, and the block adds them up. Where the heads of a batch
 * entry form a cluster (one block each, up to 8), each block sends its sums to the blocks that own
 * the keys, which add them up in a fixed order: the mean over heads without a second kernel.
 * Otherwise the block's sums go to scratch. A send to another block is as slow for 4 bytes as for
 * 16, and what the same multiprocessor stores next waits behind it: hence sums of the whole block,
 * four keys at a time.
 */
#ifndef FLASH_SM90_SHORT_MASS_CUH
#define FLASH_SM90_SHORT_MASS_CUH

#include "sm90_short_shape.cuh"

template <class T> struct ShortMass {
    static constexpr int VALUES = T::MASS ? T::BN / 32 : 1; /* sums that a lane keeps */
    float *rows;                                            /* [warp of 16 queries][key] */
    float *sums;                                            /* of the own keys, [head][key] */
    bool clustered;
    int own;      /* keys of a block of the cluster, a multiple of 4 */
    float share;  /* of a head in the mean */
    uint32_t bar; /* tells when the block's keys have all their sums */

    /* the key of the lane's i-th sum, as short_halve leaves them: of a tile of 8 keys a lane has
     * two next to each other */
    FLASH_DEVICE static int key(int i, int part)
    {
        const int lane = threadIdx.x & 31,
                  at = ((lane >> 4 & 1) * 4 + (lane >> 3 & 1) * 2 + (lane >> 2 & 1)) * VALUES + i;
        return part * T::BN + (at >> 1) * 8 + (lane & 3) * 2 + (at & 1);
    }
    FLASH_DEVICE void begin(const flash_problem &a, float *at, uint32_t own_bar)
    {
        rows = at;
        sums = at + 4 * T::KEYS;
        bar = own_bar;
        clustered = !a.scratch;
        own = (a.nk + a.h * 4 - 1) / (a.h * 4) * 4;
        share = 1.f / (float)a.h;
    }
    /* by one thread, before cluster_begun */
    FLASH_DEVICE void expect(const flash_problem &a, const ShortPlace<T> &w)
    {
        const int keys = min(max((a.nk + 3) / 4 * 4 - w.h * own, 0), own);
        mbarrier_init(bar, 1);
        mbarrier_expect(bar, a.h * keys * 4);
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

/* Adds up each column's 8 lanes, each lane ending up with an eighth of the columns. */
template <class T>
FLASH_DEVICE void short_scatter(const float (&s)[T::BN / 2], const float (&factor)[2],
                                float (&sum)[T::BN / 32])
{
    float x[T::BN / 4];
#pragma unroll
    for (int i = 0; i < T::BN / 4; ++i) {
        const int at = (i >> 1) * 4 + (i & 1);
        x[i] = s[at] * factor[0] + s[at + 2] * factor[1];
    }
    short_halve<T::BN / 8, 16>(x);
    short_halve<T::BN / 16, 8>(x);
    short_halve<T::BN / 32, 4>(x);
#pragma unroll
    for (int i = 0; i < T::BN / 32; ++i)
        sum[i] = x[i];
}

/* `factor` makes probabilities of s, 0 where there is no query */
template <class T>
FLASH_DEVICE void short_column_sums(const ShortMass<T> &m, int part, const float (&s)[T::BN / 2],
                                    const float (&factor)[2])
{
    float sum[T::BN / 32];
    short_scatter<T>(s, factor, sum);
#pragma unroll
    for (int i = 0; i < T::BN / 32; ++i)
        m.rows[((threadIdx.x >> 5) & 3) * T::KEYS + ShortMass<T>::key(i, part)] = sum[i];
    __syncwarp();
    if constexpr (T::HELPER)
        named_barrier_arrive(BARRIER_SUMS, T::THREADS);
}

/* Four keys' sums over the block's queries */
template <class T> FLASH_DEVICE float4 short_block_sums(const ShortMass<T> &m, int key)
{
    const float4 *at = (const float4 *)(m.rows + key);
    const float4 a = at[0], b = at[T::KEYS / 4], c = at[T::KEYS / 2], d = at[T::KEYS / 4 * 3];
    return make_float4((a.x + b.x) + (c.x + d.x), (a.y + b.y) + (c.y + d.y),
                       (a.z + b.z) + (c.z + d.z), (a.w + b.w) + (c.w + d.w));
}

/* The mean of the block's keys, by `step` threads (whole warps) of which this is number `first`:
 * four lanes add up a key's sums, of every fourth head each. */
template <class T>
FLASH_DEVICE void short_mean(const flash_problem &a, const ShortMass<T> &m, const ShortPlace<T> &w,
                             int first, int step)
{
    float *out = (float *)a.key_mass.data + w.b * a.key_mass.batch + w.h * m.own * a.key_mass.col;
    const int keys = min(a.nk - w.h * m.own, m.own);
    mbarrier_wait(m.bar, 0);
#pragma unroll 1
    for (int i = first; i < (m.own * 4 + 31) / 32 * 32; i += step) {
        const int key = i >> 2, head = i & 3;
        const float *sums = m.sums + head * m.own + min(key, m.own - 1);
        const float x = head < a.h ? sums[0] : 0.f, y = head + 4 < a.h ? sums[4 * m.own] : 0.f,
                    sum = quad_sum(x + y);
        if (head == 0 && key < keys)
            out[key * a.key_mass.col] = sum * m.share;
    }
}

/* What comes of the column sums: each of `step` threads (whole warps), of which this is number
 * `first`, has four keys at most. `wait` makes sure that the sums are there. */
template <class T, class Wait>
FLASH_DEVICE void short_finish_sums(const flash_problem &a, const ShortMass<T> &m,
                                    const ShortPlace<T> &w, int first, int step, Wait wait)
{
    const int key = first * 4, owner = key / m.own;
    uint32_t to = 0, bar = 0;
    if (m.clustered && key < a.nk) {
        to = cluster_address(smem_address(m.sums + w.h * m.own + key - owner * m.own), owner);
        bar = cluster_address(m.bar, owner);
    }
    wait();
    if (key < a.nk) {
        const float4 x = short_block_sums<T>(m, key);
        if (m.clustered) {
            cluster_send(to, x, bar);
        } else {
            float *part = (float *)a.scratch + (int64_t)blockIdx.x * a.nk + key;
            const float values[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (key + i < a.nk)
                    part[i] = values[i];
        }
    }
    if (m.clustered)
        short_mean<T>(a, m, w, first, step);
}

#endif
