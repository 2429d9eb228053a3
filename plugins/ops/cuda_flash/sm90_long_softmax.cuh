/* The long kernel's consumers, piece by piece: loading queries, both products, the softmax between
 * them. */
#ifndef FLASH_SM90_LONG_SOFTMAX_CUH
#define FLASH_SM90_LONG_SOFTMAX_CUH

#include "sm90_long_feed.cuh"

template <class T> struct LongState {
    float s[T::BN / 2], o[T::D / 2];
    float shift[2]; /* log2 */
    float sum[2];   /* this thread's part */
};

template <class T>
FLASH_DEVICE void long_load_queries(const flash_problem &a, const LongTile<T> &t, int rowgroup,
                                    int part, uint32_t dst)
{
    const uint16_t *q = (const uint16_t *)a.q.data + t.b * a.q.batch + t.h * a.q.head;
    const int first = t.row0 + rowgroup * 64, pieces = a.d / 8;
    for (int id = (int)(threadIdx.x & 127) + part * 128; id < 64 * T::PIECES;
         id += T::SPLIT * 128) {
        const int row = id / T::PIECES, piece = id % T::PIECES;
        const bool in = first + row < a.nq && piece < pieces;
        cp_async16(dst + (piece >> 3) * 8192 + swizzled(row, piece & 7),
                   in ? q + (first + row) * a.q.row + piece * 8 : q, in ? 16 : 0);
    }
    cp_async_commit();
}

/* one thread for a row group */
template <class T>
FLASH_DEVICE void long_ask_queries(const flash_long_args &g, int tile, int rowgroup, uint32_t dst,
                                   uint32_t full)
{
    const LongTile<T> t = long_tile<T>(g.p, tile);
    mbarrier_expect(full, T::CHUNKS * 8192);
#pragma unroll
    for (int c = 0; c < T::CHUNKS; ++c)
        tma_load(dst + c * 8192, &g.q, full, c * 64, t.row0 + rowgroup * 64, g.p.q.head ? t.h : 0,
                 g.p.q.batch ? t.b : 0);
}

template <class T> FLASH_DEVICE void long_scores(LongState<T> &x, uint64_t dq, uint64_t dk)
{
#pragma unroll
    for (int k = 0; k < T::STEPS; ++k) {
        const uint64_t qa = dq + (k >> 2) * (8192 / 16) + (k & 3) * 2,
                       kb = dk + (k >> 2) * (T::BN * 128 / 16) + (k & 3) * 2;
        if (k == 0)
            Wgmma<T::BN>::template ss<T::BF, 0, 0>(x.s, qa, kb);
        else
            Wgmma<T::BN>::template ss<T::BF, 0, 1>(x.s, qa, kb);
    }
}

template <class T>
FLASH_DEVICE void long_values(LongState<T> &x, const uint32_t (&p)[T::BN / 4], uint64_t dv)
{
#pragma unroll
    for (int k = 0; k < T::BN / 16; ++k)
        Wgmma<T::D>::template rs<T::BF, 1, 1>(x.o, p[k * 4], p[k * 4 + 1], p[k * 4 + 2],
                                              p[k * 4 + 3], dv + k * 128);
}

template <class T> FLASH_DEVICE void long_mask_tail(LongState<T> &x, int keys)
{
    const int col = (threadIdx.x & 3) * 2;
#pragma unroll
    for (int i = 0; i < T::BN / 2; ++i)
        if ((i >> 2) * 8 + col + (i & 1) >= keys)
            x.s[i] = -INFINITY;
}

/* Keys from key0 on against rows from `row` on, the thread's first: what lies outside the band is
 * not seen. Most tiles lie wholly inside for all of the warp's rows. */
template <class T>
FLASH_DEVICE void long_mask_band(LongState<T> &x, const flash_problem &a, int row, int key0)
{
    const int top = row - ((threadIdx.x & 31) >> 2), lo = (int)a.band_lo, hi = (int)a.band_hi;
    if (key0 - (top + 15) >= lo && key0 + T::BN - 1 - top <= hi)
        return;
    const int away = key0 + (threadIdx.x & 3) * 2 - row;
#pragma unroll
    for (int i = 0; i < T::BN / 2; ++i) {
        const int at = away + (i >> 2) * 8 + (i & 1) - ((i >> 1) & 1) * 8;
        if (at < lo || at > hi)
            x.s[i] = -INFINITY;
    }
}

template <class T> FLASH_DEVICE float long_row_max(const LongState<T> &x, int r)
{
    float m = fmaxf(x.s[r * 2], x.s[r * 2 + 1]);
#pragma unroll
    for (int j = 1; j < T::BN / 8; ++j)
        m = fmaxf(m, fmaxf(x.s[j * 4 + r * 2], x.s[j * 4 + r * 2 + 1]));
    return quad_max(m);
}

/* s becomes 2^(s c - shift); with a new shift, `scale` receives the factors for what was summed
 * before */
template <class T, bool NEW_SHIFT>
FLASH_DEVICE void long_softmax(LongState<T> &x, float c, float (&scale)[2])
{
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        if constexpr (NEW_SHIFT) {
            const float m = fmaxf(x.shift[r], long_row_max<T>(x, r) * c);
            /* a row that has seen no key yet */
            scale[r] = exp2_fast(x.shift[r] - (T::BAND && m == -INFINITY ? 0.f : m));
            x.shift[r] = m;
            x.sum[r] *= scale[r];
        }
        const float shift = T::BAND && x.shift[r] == -INFINITY ? 0.f : x.shift[r];
        float sum = 0.f;
#pragma unroll
        for (int j = 0; j < T::BN / 8; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                float &s = x.s[j * 4 + r * 2 + e];
                s = exp2_fast(__fmaf_rn(s, c, -shift));
                sum += s;
            }
        x.sum[r] += sum;
    }
}

/* FIRST mode, before P is rounded: where a sum has grown past what fp16 holds, moves the shift by a
 * power of two. Returns 0 if nothing changed in this warp, LONG_MOVED if O must be scaled,
 * LONG_LOST if an infinity was met. */
enum { LONG_MOVED = 1, LONG_LOST = 2 };

template <class T> FLASH_DEVICE int long_watch(LongState<T> &x, float (&scale)[2])
{
    constexpr float LIMIT = 32768.f;
    int state = 0;
    if (__any_sync(0xffffffffu, fmaxf(x.sum[0], x.sum[1]) > LIMIT)) {
        state = LONG_MOVED;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            if (x.sum[r] > 1e37f)
                state = LONG_MOVED | LONG_LOST;
            int e = x.sum[r] > LIMIT ? (int)(__float_as_uint(x.sum[r]) >> 23) - 127 : 0;
            e = max(e, __shfl_xor_sync(0xffffffffu, e, 1));
            e = min(max(e, __shfl_xor_sync(0xffffffffu, e, 2)), 126);
            scale[r] = __uint_as_float((uint32_t)(127 - e) << 23);
            x.shift[r] += (float)e;
            x.sum[r] *= scale[r];
#pragma unroll
            for (int j = 0; j < T::BN / 8; ++j) {
                x.s[j * 4 + r * 2] *= scale[r];
                x.s[j * 4 + r * 2 + 1] *= scale[r];
            }
        }
    }
    return state;
}

template <class T> FLASH_DEVICE void long_pack(const LongState<T> &x, uint32_t (&p)[T::BN / 4])
{
#pragma unroll
    for (int i = 0; i < T::BN / 4; ++i)
        p[i] = pack2<T::BF>(x.s[i * 2], x.s[i * 2 + 1]);
}

/* O is at rest. With a maximum per tile, multiplying always is faster than asking whether to. */
template <class T, FlashMax MAX>
FLASH_DEVICE void long_rescale(LongState<T> &x, int state, const float (&scale)[2])
{
    if (MAX == FLASH_MAX_FULL || (state & LONG_MOVED))
#pragma unroll
        for (int i = 0; i < T::D / 2; ++i)
            x.o[i] *= scale[(i >> 1) & 1];
}

template <class T> FLASH_DEVICE void long_await(const LongRing &g, int at)
{
    mbarrier_wait(g.full + (at % T::STAGES) * 8, (at / T::STAGES) & 1);
}

template <class T> FLASH_DEVICE void long_release(const LongRing &g, int at)
{
    if ((threadIdx.x & 31) == 0)
        mbarrier_arrive(g.empty + (at % T::STAGES) * 8);
}

template <class T> FLASH_DEVICE uint64_t long_keys(const LongRing &g, int at)
{
    return tile_descriptor(g.tiles + (uint32_t)(at % T::STAGES) * T::TILE_BYTES, 16);
}

template <class T> FLASH_DEVICE uint64_t long_rows(const LongRing &g, int at)
{
    return tile_descriptor(g.tiles + (uint32_t)(at % T::STAGES) * T::TILE_BYTES, T::BN * 128);
}

#endif
