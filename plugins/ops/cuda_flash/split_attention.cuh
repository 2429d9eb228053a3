/* fp32 attention on the tensor cores in two fp16 parts, any call: a block owns ROWS query rows,
 * keeps their parts in shared memory and walks over BN keys at a time, a chunk of columns after the
 * other; one is on its way while the one before it is multiplied. Likewise the second pass, where
 * a block owns keys.
 */
#ifndef FLASH_SPLIT_ATTENTION_CUH
#define FLASH_SPLIT_ATTENTION_CUH

#include "split_stage.cuh"
#include "split_tile.cuh"

template <class T> SPLIT_DEVICE uint16_t *split_slot(const SplitPlace<T> &w, int at)
{
    return w.chunk + (at & 1) * (T::PARTS * T::C_PART);
}

/* s = rows x the stream's rows from `first` on, `there` of them; with one chunk the rows' scales
 * are still in. The first chunk has been asked for; in the end `after`'s at row `then` has, if that
 * is not negative. `at` counts chunks. */
template <class T>
SPLIT_DEVICE void split_stream_scores(const SplitPlace<T> &w, float (&s)[T::S][4],
                                      const SplitStream &from, int first, int there, int d,
                                      const SplitStream &after, int then, int &at)
{
    const int chunks = T::CHUNKS == 1 ? 1 : max(1, (d + T::CW - 1) / T::CW);
    const uint16_t *q = w.q + w.rg * T::WARP_ROWS * T::QP;
    if constexpr (T::CHUNKS > 1)
        split_zero(s);
#pragma unroll 1
    for (int c = 0; c < chunks; ++c, ++at) {
        const uint16_t *k = split_slot<T>(w, at) + w.cg * T::SK * T::CP;
        split_arrived();
        if (c + 1 < chunks)
            split_ask<T>(split_slot<T>(w, at + 1), from, first, c + 1);
        else if (then >= 0)
            split_ask<T>(split_slot<T>(w, at + 1), after, then, 0);
        if constexpr (T::CHUNKS == 1) {
            split_scores<T>(s, q, k, there - w.cg * T::SK);
        } else {
            float part[T::S][4];
            split_scores<T>(part, q + c * T::STEPS * 16, k, there - w.cg * T::SK);
            split_promote<T>(w, s, part, c);
        }
    }
}

/* The key tiles [first, last) of a row tile. */
template <class T>
SPLIT_DEVICE void split_keys(const split_args &g, const SplitPlace<T> &w, SplitSoftmax<T> &x,
                             float (&o)[T::O][4], int first, int last)
{
    const flash_problem &a = g.p;
    const SplitStream k = split_stream_keys(g, false, w.b * a.hkv + w.hk, T::COLUMNS),
                      v = split_stream_keys(g, true, w.b * a.hkv + w.hk, T::COLUMNS);
    int at = 0;
    split_ask<T>(split_slot<T>(w, 0), k, first, 0);
#pragma unroll 1
    for (int key0 = first; key0 < last; key0 += T::BN) {
        float s[T::S][4];
        uint32_t p[T::MT][T::PARTS][T::BN / 16][4];
        const float k_back = k.back[key0 / FLASH_SPLIT_TILE],
                    v_back = v.back[key0 / FLASH_SPLIT_TILE];
        split_stream_scores<T>(w, s, k, key0, a.nk - key0, a.d, v, key0, at);
        split_between<T>(a, w, x, s, p, key0, k_back);
#pragma unroll
        for (int c = 0; c < T::CHUNKS; ++c) {
            if (c > 0 && c * T::CW >= a.dv)
                break;
            split_arrived();
            if (c + 1 < T::CHUNKS && (c + 1) * T::CW < a.dv)
                split_ask<T>(split_slot<T>(w, at + 1), v, key0, c + 1);
            else if (key0 + T::BN < last)
                split_ask<T>(split_slot<T>(w, at + 1), k, key0 + T::BN, 0);
            split_chunk_values<T>(w, o, p, x, split_slot<T>(w, at++), v_back, c, a.nk - key0);
        }
    }
}

template <class T>
__global__ void __launch_bounds__(T::THREADS, T::BLOCKS)
    split_attention_kernel(const __grid_constant__ split_args g)
{
    extern __shared__ __align__(16) uint16_t memory[];
    const flash_problem &a = g.p;
    const SplitPlace<T> w(a, blockIdx.x, a.nq, memory);
    const int per_head = (int)(g.at.k_rows / FLASH_SPLIT_TILE);
    SplitSoftmax<T> x;
    float o[T::O][4];
    int first, last;
    split_start<T>(x, o);
    generic_key_range(a, w.row0, T::ROWS, FLASH_SPLIT_TILE, first, last);
    /* the staging kernel let this one come after it had waited for what was before: Q is there */
    if (first < last)
        split_keep_rows<T>(w, SplitSource(a.q, w.b, w.h, a.nq, a.d));
    split_begin();
    if (first < last) {
        if (split_is_wide_for((const int *)(g.base + g.at.wide), w.b * a.hkv + w.hk, per_head,
                              a.b * a.hkv * per_head, first, last))
            return; /* split_again_kernel's */
        split_keys<T>(g, w, x, o, first, last);
    }
    split_row_sum<T>(w, x.sum);
    split_store<T>(a, w, x, o);
}

/* A query's probabilities of the thread's keys. `factor` is of those, `back` undoes the query's
 * scale. */
template <class T>
SPLIT_DEVICE void split_column(const split_args &g, const SplitPlace<T> &w,
                               const float (&s)[T::S][4], const float (&factor)[T::MT][2],
                               float back, int i, int n, int e, float (&sum)[T::MT][2])
{
    const flash_problem &a = g.p;
    const float2 stat = i < a.nq ? ((const float2 *)a.stats)[(int64_t)(w.b * a.h + w.h) * a.nq + i]
                                 : make_float2(-INFINITY, 0.f);
    const bool seen = stat.x != -INFINITY;
    const float shift = seen ? stat.x : 0.f, part = seen ? 1.f / stat.y : 0.f;
#pragma unroll
    for (int y = 0; y < T::MT * 2; ++y) {
        const int j = w.row0 + w.row + (y >> 1) * 16 + (y & 1) * 8;
        const float x = s[(y >> 1) * (T::SK / 8) + n][(y & 1) * 2 + e],
                    p = split_exp2(__fmaf_rn(x, factor[y >> 1][y & 1] * back, -shift)) * part;
        sum[y >> 1][y & 1] += p;
        if (a.probs.data && i < a.nq && j < a.nk)
            ((float *)a.probs.data)[w.b * a.probs.batch + w.h * a.probs.head + i * a.probs.row +
                                    j * a.probs.col] = p;
    }
}

/* A tile's scores become sums; queries from row0 on. */
template <class T>
SPLIT_DEVICE void split_columns(const split_args &g, const SplitPlace<T> &w, float (&s)[T::S][4],
                                const SplitStream &q, int row0, float (&sum)[T::MT][2])
{
    const flash_problem &a = g.p;
    const GenericScore score(a, w.b, w.h);
    const bool plain = split_plain(a);
    const float *back = q.back + row0 + w.cg * T::SK + (threadIdx.x & 3) * 2;
    float factor[T::MT][2];
    split_backs<T>(w, 1.f, factor);
    if (!plain) {
#pragma unroll
        for (int i = 0; i < T::S; ++i)
#pragma unroll
            for (int y = 0; y < 4; ++y)
                s[i][y] *= back[i % (T::SK / 8) * 8 + (y & 1)];
        split_apply<T>(w, s, score, factor, row0, true);
    }
#pragma unroll
    for (int y = 0; y < T::MT * 2; ++y)
        factor[y >> 1][y & 1] = plain ? factor[y >> 1][y & 1] * score.scale : 1.f;
#pragma unroll
    for (int n = 0; n < T::SK / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e)
            split_column<T>(g, w, s, factor, plain ? back[n * 8 + e] : 1.f,
                            row0 + w.cg * T::SK + n * 8 + (threadIdx.x & 3) * 2 + e, n, e, sum);
}

/* Second pass: a block owns keys and walks over its part of the queries: probabilities from the
 * scores and the first pass's shifts and sums; stores them, and adds up each key's, [B, H, parts,
 * Nk] in scratch. */
template <class T>
__global__ void __launch_bounds__(T::THREADS, T::BLOCKS)
    split_mass_kernel(const __grid_constant__ split_args g)
{
    extern __shared__ __align__(16) uint16_t memory[];
    const flash_problem &a = g.p;
    const SplitPlace<T> w(a, blockIdx.x, a.nk, memory);
    const SplitStream q = split_stream_queries(g, w.b * a.h + w.h, T::COLUMNS);
    const int first = (int)blockIdx.y * g.queries, last = min(first + g.queries, a.nq);
    float sum[T::MT][2] = {};
    int at = 0;
    split_begin();
    split_keep_rows<T>(w, SplitSource(a.k, w.b, w.hk, a.nk, a.d));
    split_ask<T>(split_slot<T>(w, 0), q, first, 0);
#pragma unroll 1
    for (int row0 = first; row0 < last; row0 += T::BN) {
        float s[T::S][4];
        split_stream_scores<T>(w, s, q, row0, a.nq - row0, a.d, q,
                               row0 + T::BN < last ? row0 + T::BN : -1, at);
        split_columns<T>(g, w, s, q, row0, sum);
    }
    if (!a.key_mass.data)
        return;
    split_row_sum<T>(w, sum);
    if ((threadIdx.x & 3) == 0 && w.cg == 0)
#pragma unroll
        for (int y = 0; y < T::MT * 2; ++y) {
            const int j = w.row0 + w.row + (y >> 1) * 16 + (y & 1) * 8;
            if (j < a.nk)
                ((float *)
                     a.scratch)[((int64_t)(w.b * a.h + w.h) * gridDim.y + blockIdx.y) * a.nk + j] =
                    sum[y >> 1][y & 1];
        }
}

#endif
