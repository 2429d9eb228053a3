/* fp32 attention on the tensor cores: a row tile's beginning and end, whatever its parts. */
#ifndef FLASH_SPLIT_TILE_CUH
#define FLASH_SPLIT_TILE_CUH

#include "split_softmax.cuh"

/* columns that a step of 16 reads past the last one */
template <class T> SPLIT_DEVICE void split_clear(const SplitPlace<T> &w)
{
    if constexpr (T::STEPS * 16 > T::CW) {
        for (int i = threadIdx.x; i < T::PARTS * (T::Q_PART + T::SLOTS * T::C_PART) / 8;
             i += T::THREADS)
            ((uint4 *)w.q)[i] = make_uint4(0, 0, 0, 0);
        __syncthreads();
    }
}

/* the block's rows into shared memory, in parts */
template <class T>
SPLIT_DEVICE void split_keep_rows(const SplitPlace<T> &w, const SplitSource &from)
{
    split_clear<T>(w);
#pragma unroll 1
    for (int c = 0; c < T::CHUNKS; ++c) {
        SplitFetch<T::PARTS, T::ROWS, T::CW, T::THREADS> rows;
        uint16_t *to = w.q + c * T::STEPS * 16;
        rows.load(from, w.row0, c * T::CW);
        if constexpr (T::HALF)
            rows.store_scaled(to, T::QP, T::Q_PART, w.row_back + c * T::ROWS);
        else
            rows.store(to, T::QP, T::Q_PART);
    }
}

template <class T> SPLIT_DEVICE void split_start(SplitSoftmax<T> &x, float (&o)[T::O][4])
{
    split_zero(o);
#pragma unroll
    for (int y = 0; y < T::MT * 2; ++y) {
        x.shift[y >> 1][y & 1] = -INFINITY;
        x.sum[y >> 1][y & 1] = 0.f;
    }
}

SPLIT_DEVICE bool split_plain(const flash_problem &a)
{
    return !a.bias.data && !a.mask.data && !a.band && a.scale > 0.f;
}

/* What undoes the scales of a tile's products: the rows', where they are still in (one chunk),
 * times the tile's. */
template <class T>
SPLIT_DEVICE void split_backs(const SplitPlace<T> &w, float tile, float (&back)[T::MT][2])
{
#pragma unroll
    for (int y = 0; y < T::MT * 2; ++y)
        back[y >> 1][y & 1] = T::HALF && T::CHUNKS == 1
                                  ? w.row_back[w.row + (y >> 1) * 16 + (y & 1) * 8] * tile
                                  : tile;
}

/* From a tile's products to P's parts, keys from key0 on; `back` undoes K's scale. */
template <class T>
SPLIT_DEVICE void split_between(const flash_problem &a, const SplitPlace<T> &w, SplitSoftmax<T> &x,
                                float (&s)[T::S][4], uint32_t (&p)[T::MT][T::PARTS][T::BN / 16][4],
                                int key0, float back)
{
    const GenericScore score(a, w.b, w.h);
    float factor[T::MT][2];
    split_backs<T>(w, back, factor);
    if (!split_plain(a))
        split_apply<T>(w, s, score, factor, key0, false);
    else if (key0 + T::BN > a.nk)
        split_tail<T>(w, s, a.nk - key0);
#pragma unroll
    for (int y = 0; y < T::MT * 2; ++y)
        factor[y >> 1][y & 1] = split_plain(a) ? factor[y >> 1][y & 1] * score.scale : 1.f;
    split_softmax<T>(w, x, s, factor);
    split_probabilities<T>(w, s, p);
}

/* sum += the chunk's s, with the rows' scales of chunk c undone */
template <class T>
SPLIT_DEVICE void split_promote(const SplitPlace<T> &w, float (&sum)[T::S][4],
                                const float (&s)[T::S][4], int c)
{
#pragma unroll
    for (int i = 0; i < T::S; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const int row = w.row + i / (T::SK / 8) * 16 + (e >> 1) * 8;
            sum[i][e] = T::HALF ? fmaf(s[i][e], w.row_back[c * T::ROWS + row], sum[i][e])
                                : sum[i][e] + s[i][e];
        }
}

/* the chunk's columns of the result; `back` undoes V's scale */
template <class T>
SPLIT_DEVICE void split_chunk_values(const SplitPlace<T> &w, float (&o)[T::O][4],
                                     const uint32_t (&p)[T::MT][T::PARTS][T::BN / 16][4],
                                     const SplitSoftmax<T> &x, const uint16_t *chunk, float back,
                                     int c, int keys)
{
    constexpr int N = T::CV / 8;
    const uint16_t *v = chunk + w.cg * T::CV;
    float now[T::MT][2];
#pragma unroll
    for (int y = 0; y < T::MT * 2; ++y)
        now[y >> 1][y & 1] = x.now[y >> 1][y & 1] * back;
#pragma unroll
    for (int n = 0; n + 1 < N; n += 2)
        split_values<T, 2>(o + c * N + n, p, x.before, now, v + n * 8, keys);
    if constexpr (N % 2)
        split_values<T, 1>(o + c * N + N - 1, p, x.before, now, v + (N - 1) * 8, keys);
}

template <class T>
SPLIT_DEVICE void split_store_row(const flash_problem &a, const SplitPlace<T> &w, int row, float f,
                                  const float (*o)[4], int r)
{
    constexpr int N = T::CV / 8;
    const bool pairs = a.out.col == 1 && a.dv % 2 == 0 && a.out.row % 2 == 0 &&
                       a.out.head % 2 == 0 && a.out.batch % 2 == 0 &&
                       ((uintptr_t)a.out.data & 7) == 0;
    float *out = (float *)a.out.data + w.b * a.out.batch + w.h * a.out.head + row * a.out.row;
#pragma unroll
    for (int i = 0; i < T::CHUNKS * N; ++i) {
        const int c = i / N * T::CW + w.cg * T::CV + i % N * 8 + (threadIdx.x & 3) * 2;
        const float2 y = make_float2(o[i][r * 2] * f, o[i][r * 2 + 1] * f);
        if (pairs && c < a.dv)
            *(float2 *)(out + c) = y;
        if (!pairs && c < a.dv)
            out[c * a.out.col] = y.x;
        if (!pairs && c + 1 < a.dv)
            out[(c + 1) * a.out.col] = y.y;
    }
}

template <class T>
SPLIT_DEVICE void split_store(const flash_problem &a, const SplitPlace<T> &w,
                              const SplitSoftmax<T> &x, const float (&o)[T::O][4])
{
#pragma unroll
    for (int y = 0; y < T::MT * 2; ++y) {
        const int m = y >> 1, r = y & 1, row = w.row0 + w.row + m * 16 + r * 8;
        const float z = x.sum[m][r], shift = x.shift[m][r];
        if (row >= a.nq)
            continue;
        split_store_row<T>(a, w, row, shift == -INFINITY ? 0.f : 1.f / z, o + m * (T::O / T::MT),
                           r);
        if ((threadIdx.x & 3) != 0 || w.cg != 0)
            continue;
        if (a.lse.data)
            ((float *)a.lse.data)[w.b * a.lse.batch + w.h * a.lse.head + row * a.lse.row] =
                (shift + (log2f(z) - T::UP)) * FLASH_LN2;
        if (a.stats)
            ((float2 *)a.stats)[(int64_t)(w.b * a.h + w.h) * a.nq + row] =
                make_float2(shift, z * split_power(-(int)T::UP));
    }
}

#endif
