/* fp32 attention on the tensor cores: where a warp stands, and the softmax between the products. */
#ifndef FLASH_SPLIT_SOFTMAX_CUH
#define FLASH_SPLIT_SOFTMAX_CUH

#include "split_products.cuh"

/* Where a block and a warp stand. */
template <class T> struct SplitPlace {
    int b, h, hk, row0;      /* row0: the block's first row (a query, or a key in pass two) */
    int rg, cg, row;         /* row: the thread's first row within the block */
    uint16_t *q, *chunk, *p; /* parts: the rows', SLOTS chunks', P's */
    float *row_back;         /* what undoes the scales: [CHUNKS][ROWS] */
    float *exchange;         /* [CG][ROWS] */

    SPLIT_DEVICE SplitPlace(const flash_problem &a, int tile, int rows, uint16_t *memory)
    {
        const int tiles = (rows + T::ROWS - 1) / T::ROWS, bh = tile / tiles,
                  warp = threadIdx.x >> 5;
        b = bh / a.h;
        h = bh % a.h;
        hk = h / (a.h / a.hkv);
        row0 = (tile % tiles) * T::ROWS;
        rg = warp / T::CG;
        cg = warp % T::CG;
        row = rg * T::WARP_ROWS + ((threadIdx.x & 31) >> 2);
        q = memory;
        chunk = q + T::PARTS * T::Q_PART;
        p = chunk + T::PARTS * T::SLOTS * T::C_PART;
        row_back = (float *)(p + T::PARTS * T::P_PART);
        exchange = row_back + T::BACK;
    }
};

/* `shift` in log2, `sum` of this thread's keys so far in units of 2^(shift - UP); of the tile at
 * hand: what the old ones are multiplied by, and what its own are. */
template <class T> struct SplitSoftmax {
    float shift[T::MT][2], sum[T::MT][2], before[T::MT][2], now[T::MT][2];
};

SPLIT_DEVICE float split_exp2(float x)
{
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/* the row group's warps meet */
template <class T> SPLIT_DEVICE void split_meet(int rg)
{
    if constexpr (T::CG > 1)
        asm volatile("bar.sync %0, %1;" ::"r"(1 + rg), "n"(T::CG * 32) : "memory");
}

/* each row's maximum over the quad, and over the row group's warps */
template <class T>
SPLIT_DEVICE void split_row_max(const SplitPlace<T> &w, const float (&s)[T::S][4],
                                float (&most)[T::MT][2])
{
#pragma unroll
    for (int m = 0; m < T::MT; ++m)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float x = -INFINITY;
#pragma unroll
            for (int n = 0; n < T::SK / 8; ++n)
                x = fmaxf(x, fmaxf(s[m * T::SK / 8 + n][r * 2], s[m * T::SK / 8 + n][r * 2 + 1]));
            x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
            most[m][r] = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
            if (T::CG > 1 && (threadIdx.x & 3) == 0)
                w.exchange[w.cg * T::ROWS + w.row + m * 16 + r * 8] = most[m][r];
        }
    if constexpr (T::CG > 1) {
        split_meet<T>(w.rg);
#pragma unroll
        for (int m = 0; m < T::MT; ++m)
#pragma unroll
            for (int r = 0; r < 2; ++r)
#pragma unroll
                for (int g = 0; g < T::CG; ++g)
                    most[m][r] =
                        fmaxf(most[m][r], w.exchange[g * T::ROWS + w.row + m * 16 + r * 8]);
    }
}

/* s becomes 2^(s c - the tile's own maximum + UP), c > 0 a row's factor: P of a tile of small
 * scores keeps all its bits, too. */
template <class T>
SPLIT_DEVICE void split_softmax(const SplitPlace<T> &w, SplitSoftmax<T> &x, float (&s)[T::S][4],
                                const float (&factor)[T::MT][2])
{
    float most[T::MT][2];
    split_row_max<T>(w, s, most);
#pragma unroll
    for (int m = 0; m < T::MT; ++m)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float c = factor[m][r], own = most[m][r] * c, shift = fmaxf(x.shift[m][r], own),
                        safe = shift == -INFINITY ? 0.f : shift, /* no key seen yet */
                up = T::UP - (own == -INFINITY ? 0.f : own);
            float sum = 0.f;
#pragma unroll
            for (int n = 0; n < T::SK / 8; ++n)
#pragma unroll
                for (int e = r * 2; e < r * 2 + 2; ++e) {
                    float &y = s[m * T::SK / 8 + n][e];
                    y = split_exp2(__fmaf_rn(y, c, up));
                    sum += y;
                }
            x.before[m][r] = split_exp2(x.shift[m][r] - safe);
            x.now[m][r] = split_exp2(own - safe);
            x.shift[m][r] = shift;
            x.sum[m][r] = x.sum[m][r] * x.before[m][r] + sum * x.now[m][r];
        }
}

/* P's parts as first operands: a warp's own scores, or all of the row group's by way of shared
 * memory. */
template <class T>
SPLIT_DEVICE void split_probabilities(const SplitPlace<T> &w, const float (&s)[T::S][4],
                                      uint32_t (&p)[T::MT][T::PARTS][T::BN / 16][4])
{
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int m = 0; m < T::MT; ++m)
#pragma unroll
        for (int n = 0; n < T::SK / 8; ++n)
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                uint32_t parts[T::PARTS];
                split_pair(s[m * T::SK / 8 + n][r * 2], s[m * T::SK / 8 + n][r * 2 + 1], parts);
#pragma unroll
                for (int i = 0; i < T::PARTS; ++i)
                    if constexpr (T::CG == 1)
                        p[m][i][n >> 1][(n & 1) * 2 + r] = parts[i];
                    else
                        *(uint32_t *)(w.p + i * T::P_PART + (w.row + m * 16 + r * 8) * T::PP +
                                      w.cg * T::SK + n * 8 + (lane & 3) * 2) = parts[i];
            }
    if constexpr (T::CG > 1) {
        split_meet<T>(w.rg);
#pragma unroll
        for (int m = 0; m < T::MT; ++m)
#pragma unroll
            for (int i = 0; i < T::PARTS; ++i)
#pragma unroll
                for (int t = 0; t < T::BN / 16; ++t)
                    split_ldmatrix(p[m][i][t],
                                   w.p + i * T::P_PART +
                                       (w.rg * T::WARP_ROWS + m * 16 + (lane & 15)) * T::PP +
                                       t * 16 + (lane >> 4) * 8);
    }
}

/* Scale, bias, mask and band; then the scores are in log2 units. `back` undoes a row's scales.
 * `swapped`: rows are keys. */
template <class T>
SPLIT_DEVICE void split_apply(const SplitPlace<T> &w, float (&s)[T::S][4],
                              const GenericScore &score, const float (&back)[T::MT][2], int first,
                              bool swapped)
{
#pragma unroll
    for (int m = 0; m < T::MT; ++m)
#pragma unroll
        for (int n = 0; n < T::SK / 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int row = w.row0 + w.row + m * 16 + (e >> 1) * 8,
                          col = first + w.cg * T::SK + n * 8 + (threadIdx.x & 3) * 2 + (e & 1);
                float &x = s[m * T::SK / 8 + n][e];
                x *= back[m][e >> 1];
                x = swapped ? score(x, col, row) : score(x, row, col);
            }
}

template <class T>
SPLIT_DEVICE void split_tail(const SplitPlace<T> &w, float (&s)[T::S][4], int keys)
{
    const int left = keys - w.cg * T::SK - (threadIdx.x & 3) * 2;
#pragma unroll
    for (int i = 0; i < T::S; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e)
            if (i % (T::SK / 8) * 8 + (e & 1) >= left)
                s[i][e] = -INFINITY;
}

/* each row's sum over the quad and over the row group's warps */
template <class T> SPLIT_DEVICE void split_row_sum(const SplitPlace<T> &w, float (&sum)[T::MT][2])
{
#pragma unroll
    for (int m = 0; m < T::MT; ++m)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            sum[m][r] += __shfl_xor_sync(0xffffffffu, sum[m][r], 1);
            sum[m][r] += __shfl_xor_sync(0xffffffffu, sum[m][r], 2);
        }
    if constexpr (T::CG > 1) {
        __syncthreads(); /* the last tile's maxima have been read */
        if ((threadIdx.x & 3) == 0)
#pragma unroll
            for (int y = 0; y < T::MT * 2; ++y)
                w.exchange[w.cg * T::ROWS + w.row + (y >> 1) * 16 + (y & 1) * 8] =
                    sum[y >> 1][y & 1];
        __syncthreads();
#pragma unroll
        for (int y = 0; y < T::MT * 2; ++y) {
            float all = 0.f;
#pragma unroll
            for (int g = 0; g < T::CG; ++g)
                all += w.exchange[g * T::ROWS + w.row + (y >> 1) * 16 + (y & 1) * 8];
            sum[y >> 1][y & 1] = all;
        }
    }
}

#endif
