/* Hopper kernel for long key sequences: a producer warpgroup feeds K and V tiles through shared
 * memory to ROWS x SPLIT more. A warpgroup owns 64 query rows; the SPLIT warpgroups of one row
 * group take every SPLIT-th key tile and merge their partial softmaxes at the end.
 *
 * Two formulations of the softmax:
 * - FULL: the usual online maximum, for head dimensions where the matrix unit is the limit;
 * - FIRST: exponents are shifted by the maximum of the warpgroup's first tile alone. The shift
 * never exceeds the true maximum, so nothing is lost below; above it fp32 has room for 2^127. A
 * partial row sum past LIMIT makes the warp move the shift by an exact power of two, before P is
 * rounded. A score more than 127 (in log2) above the first tile's maximum leaves an infinity: then
 * the block repeats that query tile with FULL after its last one.
 */
#ifndef FLASH_SM90_LONG_CUH
#define FLASH_SM90_LONG_CUH

#include <cuda.h>

#include "sm90_common.cuh"

enum FlashMax { FLASH_MAX_FULL, FLASH_MAX_FIRST };
/* SERIAL: one product at a time. PLAIN: P V runs on beside the next Q K. OVERLAP: both run beside
 * the softmax. TURNS: as OVERLAP, and two halves of the warpgroups issue their products in turn.
 * EARLY: as OVERLAP, with P rounded before P V of the tile before has ended (twice the registers
 * for P). */
enum FlashOrder {
    FLASH_ORDER_SERIAL,
    FLASH_ORDER_PLAIN,
    FLASH_ORDER_OVERLAP,
    FLASH_ORDER_TURNS,
    FLASH_ORDER_EARLY
};

template <int D_, int BN_, int ROWS_, int SPLIT_, int STAGES_, FlashOrder ORDER_, FlashMax MAX_,
          bool BF_>
struct LongShape {
    static constexpr int D = D_, BN = BN_, ROWS = ROWS_, SPLIT = SPLIT_, STAGES = STAGES_;
    static constexpr FlashOrder ORDER = ORDER_;
    static constexpr FlashMax MAX = MAX_;
    static constexpr bool BF = BF_;
    static constexpr int GROUPS = ROWS * SPLIT, THREADS = GROUPS * 128 + 128;
    static constexpr int REGS = GROUPS == 4 ? 112 : GROUPS == 3 ? 160 : GROUPS == 2 ? 232 : 240;
    static constexpr int FEED_REGS = GROUPS == 4 ? 32 : GROUPS == 3 ? 32 : GROUPS == 2 ? 40 : 80;
    static constexpr int CHUNKS = (D + 63) / 64, STEPS = (D + 15) / 16, PIECES = D / 8;
    static constexpr int TILE_BYTES = CHUNKS * BN * 128; /* of K or of V */
    static constexpr bool TMA =
        D % 32 == 0; /* 80-byte rows are slow through TMA, 160-byte ones no faster */
    static constexpr int Q_BYTES = ROWS * CHUNKS * 8192;
    static constexpr int MERGE_FLOATS = (SPLIT - 1) * ROWS * (D / 2 + 4) * 128;
    static constexpr int MAX_TILES = 2048; /* query tiles of one block */
    static constexpr int SMEM = 1024 + 2 * Q_BYTES + 2 * STAGES * TILE_BYTES + MERGE_FLOATS * 4 +
                                STAGES * 32 + MAX_TILES / 8;
    /* a warpgroup waits for a stage only after it has used that stage's last tile itself, so a
     * phase cannot be mistaken */
    static_assert(STAGES % SPLIT == 0, "each part must meet its own stages");
    static_assert(ORDER != FLASH_ORDER_TURNS || SPLIT == 2 || (SPLIT == 1 && ROWS == 2),
                  "turns are for two halves");
    static_assert(BN % 16 == 0 && TileWalk<PIECES, 64>::ROWS % 8 == 0,
                  "tiles are 16-row steps; the walk keeps the swizzle");
};

template <class T> struct LongState {
    float s[T::BN / 2], o[T::D / 2];
    float shift[2]; /* log2 */
    float sum[2];   /* this thread's part */
};

typedef struct flash_long_args {
    flash_problem p;
    CUtensorMap k, v; /* [B, Hkv, Nk, D] in boxes of BN / 2 rows and 64 columns */
} flash_long_args;

template <class T> struct LongTile {
    int b, h, row0;
};

template <class T> FLASH_DEVICE LongTile<T> long_tile(const flash_problem &a, int tile)
{
    const int per_head = (a.nq + T::ROWS * 64 - 1) / (T::ROWS * 64);
    LongTile<T> t;
    const int bh = tile / per_head;
    t.b = bh / a.h;
    t.h = bh - t.b * a.h;
    t.row0 = (tile - bh * per_head) * T::ROWS * 64;
    return t;
}

/* K and V tiles go through a ring each */
struct LongRing {
    uint32_t tiles, full, empty; /* shared-memory addresses */
};

/* ---- producer: two warps feed K, two feed V ---- */

template <class T>
FLASH_DEVICE void long_feed_tma(const flash_problem &a, const CUtensorMap *map, bool broadcast_head,
                                bool broadcast_batch, int tile, const LongRing &g, int &at)
{
    const LongTile<T> t = long_tile<T>(a, tile);
    const int half = (threadIdx.x >> 5) & 1, head = broadcast_head ? 0 : t.h / (a.h / a.hkv),
              batch = broadcast_batch ? 0 : t.b;
    if ((threadIdx.x & 31) != 0) {
        at += (a.nk + T::BN - 1) / T::BN;
        return;
    }
#pragma unroll 1
    for (int j = 0; j < a.nk; j += T::BN, ++at) {
        const int s = at % T::STAGES, round = at / T::STAGES;
        if (round > 0)
            mbarrier_wait(g.empty + s * 8, (round - 1) & 1);
        mbarrier_expect(g.full + s * 8, T::TILE_BYTES / 2);
        const uint32_t dst = g.tiles + s * T::TILE_BYTES + half * (T::BN / 2 * 128);
#pragma unroll
        for (int c = 0; c < T::CHUNKS; ++c)
            tma_load(dst + c * (T::BN * 128), map, g.full + s * 8, c * 64, j + half * (T::BN / 2),
                     head, batch);
    }
}

/* One of 64 threads that copy 16-byte pieces. Its places in a tile repeat every PERIOD steps, ROWS
 * rows further down, so the offsets are computed once and a step costs an addition and a copy. */
template <class T> struct LongFeed {
    using W = TileWalk<T::PIECES, 64>;
    static constexpr int STEPS = (T::BN * T::PIECES + 63) / 64, LAG = T::STAGES > 4   ? 3
                                                                      : T::STAGES > 3 ? 2
                                                                                      : 1;
    int32_t from[W::PERIOD]; /* elements */
    uint32_t to[W::PERIOD];  /* bytes in a tile */
    int count, signalled;    /* tiles loaded, tiles announced */
};

template <class T> FLASH_DEVICE void long_feed_places(const flash_view &view, LongFeed<T> &f)
{
#pragma unroll
    for (int p = 0; p < LongFeed<T>::W::PERIOD; ++p) {
        const int id = (threadIdx.x & 63) + 64 * p, row = id / T::PIECES, piece = id % T::PIECES;
        f.from[p] = row * (int32_t)view.row + piece * 8;
        f.to[p] = (piece >> 3) * (T::BN * 128) + swizzled(row, piece & 7);
    }
}

template <class T>
FLASH_DEVICE void long_load_whole(uint32_t dst, const uint16_t *base, const LongFeed<T> &f,
                                  int64_t stride)
{
    using W = typename LongFeed<T>::W;
#pragma unroll
    for (int s = 0; s < LongFeed<T>::STEPS; ++s)
        if ((s + 1) * 64 <= T::BN * T::PIECES ||
            s * 64 + (int)(threadIdx.x & 63) < T::BN * T::PIECES)
            cp_async16(dst + f.to[s % W::PERIOD] + s / W::PERIOD * W::ROWS * 128,
                       base + f.from[s % W::PERIOD] + (s / W::PERIOD) * W::ROWS * stride, 16);
}

/* the last keys, or a head dimension under D: what is missing becomes zeros */
template <class T>
FLASH_DEVICE void long_load_part(uint32_t dst, const uint16_t *base, int64_t stride, int rows,
                                 int pieces)
{
#pragma unroll 1
    for (int id = threadIdx.x & 63; id < T::BN * T::PIECES; id += 64) {
        const int row = id / T::PIECES, piece = id % T::PIECES;
        const bool in = piece < pieces && row < rows;
        cp_async16(dst + (piece >> 3) * (T::BN * 128) + swizzled(row, piece & 7),
                   in ? base + row * stride + piece * 8 : base, in ? 16 : 0);
    }
}

template <class T> FLASH_DEVICE void long_signal(uint32_t full, LongFeed<T> &f)
{
    fence_proxy_async();
    __syncwarp();
    if ((threadIdx.x & 31) == 0)
        mbarrier_arrive(full + (f.signalled % T::STAGES) * 8);
    ++f.signalled;
}

template <class T>
FLASH_DEVICE void long_feed_copies(const flash_problem &a, const flash_view &view, int tile,
                                   const LongRing &g, LongFeed<T> &f)
{
    const LongTile<T> t = long_tile<T>(a, tile);
    const int pieces = a.d / 8;
    const uint16_t *base =
        (const uint16_t *)view.data + t.b * view.batch + t.h / (a.h / a.hkv) * view.head;
#pragma unroll 1
    for (int j = 0; j < a.nk; j += T::BN, base += T::BN * view.row) {
        const int s = f.count % T::STAGES, round = f.count / T::STAGES;
        if (round > 0 && !mbarrier_ready(g.empty + s * 8, (round - 1) & 1)) {
            /* announce what has been loaded before waiting: the consumers may need it to make space
             */
            cp_async_wait<0>();
#pragma unroll 1
            while (f.signalled < f.count)
                long_signal<T>(g.full, f);
            mbarrier_wait(g.empty + s * 8, (round - 1) & 1);
        }
        if (pieces == T::PIECES && a.nk - j >= T::BN)
            long_load_whole<T>(g.tiles + s * T::TILE_BYTES, base, f, view.row);
        else
            long_load_part<T>(g.tiles + s * T::TILE_BYTES, base, view.row, a.nk - j, pieces);
        cp_async_commit();
        ++f.count;
        if (f.count - f.signalled > LongFeed<T>::LAG) {
            cp_async_wait<LongFeed<T>::LAG>();
            long_signal<T>(g.full, f);
        }
    }
    /* the last tiles of this query tile must not wait for space for the next one's */
    cp_async_wait<0>();
#pragma unroll 1
    while (f.signalled < f.count)
        long_signal<T>(g.full, f);
}

/* Feeds every query tile of the block, or in a second pass those marked in `redo`. */
template <class T>
FLASH_DEVICE void long_produce(const flash_long_args &g, int tiles, LongRing ring, uint32_t *redo)
{
    const flash_problem &a = g.p;
    const bool values = (threadIdx.x >> 6) & 1;
    const flash_view &view = values ? a.v : a.k;
    int at = 0;
    LongFeed<T> f;
    f.count = f.signalled = 0;
    if constexpr (!T::TMA)
        long_feed_places<T>(view, f);
#pragma unroll 1
    for (int pass = 0; pass < (T::MAX == FLASH_MAX_FIRST ? 2 : 1); ++pass) {
        if (pass)
            named_barrier(15, T::THREADS);
        int n = 0;
#pragma unroll 1
        for (int t = blockIdx.x; t < tiles; t += gridDim.x, ++n) {
            if (pass && !(redo[n >> 5] >> (n & 31) & 1))
                continue;
            if constexpr (T::TMA)
                long_feed_tma<T>(a, values ? &g.v : &g.k, view.head == 0, view.batch == 0, t, ring,
                                 at);
            else
                long_feed_copies<T>(a, view, t, ring, f);
        }
    }
}

/* ---- consumers ---- */

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
            scale[r] = exp2_fast(x.shift[r] - m);
            x.shift[r] = m;
            x.sum[r] *= scale[r];
        }
        const float shift = x.shift[r];
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

/* One tile's softmax between its two products. Returns as long_watch; O is not touched. */
template <class T, FlashMax MAX>
FLASH_DEVICE int long_between(LongState<T> &x, float c, bool first, int keys, float (&scale)[2])
{
    int state = 0;
    if (keys < T::BN)
        long_mask_tail<T>(x, keys);
    if (MAX == FLASH_MAX_FULL || first) {
        long_softmax<T, true>(x, c,
                              scale); /* O is zero before the first tile, if it is the first */
    } else {
        long_softmax<T, false>(x, c, scale);
        state = long_watch<T>(x, scale);
    }
    return state;
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

template <class T> struct LongStream {
    const flash_problem &a;
    const LongRing &gk, &gv;
    uint64_t dq;
    int base; /* of the block's stream of key tiles */
    float c;
};

template <class T, FlashMax MAX>
FLASH_DEVICE int long_stream_plain(const LongStream<T> &w, LongState<T> &x, int part)
{
    const int tiles = (w.a.nk + T::BN - 1) / T::BN;
    int lost = 0;
    float scale[2] = {1.f, 1.f};
    uint32_t p[T::BN / 4];
#pragma unroll
    for (int i = 0; i < T::BN / 4; ++i)
        p[i] = 0;
#pragma unroll 1
    for (int i = part; i < tiles; i += T::SPLIT) {
        const int at = w.base + i;
        long_await<T>(w.gk, at);
        pin(x.s);
        wgmma_fence();
        long_scores<T>(x, w.dq, long_keys<T>(w.gk, at));
        wgmma_commit();
        wgmma_wait<0>();
        pin(x.s);
        long_release<T>(w.gk, at);
        if constexpr (T::ORDER == FLASH_ORDER_PLAIN) {
            pin(x.o);
            pin(p);
            if (i != part)
                long_release<T>(w.gv, at - T::SPLIT);
        }
        const int state = long_between<T, MAX>(x, w.c, i == part, w.a.nk - i * T::BN, scale);
        long_rescale<T, MAX>(x, state, scale);
        long_pack<T>(x, p);
        lost |= state;
        long_await<T>(w.gv, at);
        pin(x.o);
        pin(p);
        wgmma_fence();
        long_values<T>(x, p, long_rows<T>(w.gv, at));
        wgmma_commit();
        if constexpr (T::ORDER == FLASH_ORDER_SERIAL) {
            wgmma_wait<0>();
            pin(x.o);
            long_release<T>(w.gv, at);
        }
    }
    if constexpr (T::ORDER == FLASH_ORDER_PLAIN) {
        wgmma_wait<0>();
        pin(x.o);
        pin(p);
        if (part < tiles)
            long_release<T>(w.gv, w.base + part + (tiles - 1 - part) / T::SPLIT * T::SPLIT);
    }
    return lost;
}

/* Q K of tile i and P V of the tile before it run while the softmax of tile i waits for the former
 * only. */
template <class T, FlashMax MAX>
FLASH_DEVICE int long_early_step(const LongStream<T> &w, LongState<T> &x,
                                 uint32_t (&before)[T::BN / 4], uint32_t (&p)[T::BN / 4], int i)
{
    const int at = w.base + i;
    float scale[2] = {1.f, 1.f};
    long_await<T>(w.gk, at);
    long_await<T>(w.gv, at - T::SPLIT);
    pin(x.s);
    pin(x.o);
    pin(before);
    wgmma_fence();
    long_scores<T>(x, w.dq, long_keys<T>(w.gk, at));
    wgmma_commit();
    long_values<T>(x, before, long_rows<T>(w.gv, at - T::SPLIT));
    wgmma_commit();
    wgmma_wait<1>();
    pin(x.s);
    long_release<T>(w.gk, at);
    const int state = long_between<T, MAX>(x, w.c, false, w.a.nk - i * T::BN, scale);
    long_pack<T>(x, p);
    pin(p);
    wgmma_wait<0>();
    pin(x.o);
    pin(before);
    long_release<T>(w.gv, at - T::SPLIT);
    long_rescale<T, MAX>(x, state, scale);
    return state;
}

template <class T>
FLASH_DEVICE void long_overlap_last(const LongStream<T> &w, LongState<T> &x,
                                    uint32_t (&p)[T::BN / 4], int at)
{
    long_await<T>(w.gv, at);
    pin(x.o);
    pin(p);
    wgmma_fence();
    long_values<T>(x, p, long_rows<T>(w.gv, at));
    wgmma_commit();
    wgmma_wait<0>();
    pin(x.o);
    pin(p);
    long_release<T>(w.gv, at);
}

template <class T, FlashMax MAX>
FLASH_DEVICE int long_stream_early(const LongStream<T> &w, LongState<T> &x, int part)
{
    const int tiles = (w.a.nk + T::BN - 1) / T::BN;
    int lost = 0;
    float scale[2] = {1.f, 1.f};
    uint32_t even[T::BN / 4], odd[T::BN / 4];
    if (part >= tiles)
        return 0;
    long_await<T>(w.gk, w.base + part);
    pin(x.s);
    wgmma_fence();
    long_scores<T>(x, w.dq, long_keys<T>(w.gk, w.base + part));
    wgmma_commit();
    wgmma_wait<0>();
    pin(x.s);
    long_release<T>(w.gk, w.base + part);
    lost |= long_between<T, MAX>(x, w.c, true, w.a.nk - part * T::BN, scale);
    long_pack<T>(x, even);
#pragma unroll 1
    for (int i = part + T::SPLIT;; i += 2 * T::SPLIT) {
        if (i >= tiles) {
            long_overlap_last<T>(w, x, even, w.base + i - T::SPLIT);
            break;
        }
        lost |= long_early_step<T, MAX>(w, x, even, odd, i);
        if (i + T::SPLIT >= tiles) {
            long_overlap_last<T>(w, x, odd, w.base + i);
            break;
        }
        lost |= long_early_step<T, MAX>(w, x, odd, even, i + T::SPLIT);
    }
    return lost;
}

/* The two halves of the warpgroups (the parts, or the row groups) hand each other the right to
 * issue. Half 0 begins; an iteration more of half 0 is met by one more wait of half 1, so that
 * every arrival is used. */
template <class T> struct LongTurns {
    static constexpr int FIRST = 1 + 2 * T::ROWS, THREADS = T::GROUPS * 128;
    int half;

    FLASH_DEVICE void begin() const
    {
        if (half == 1)
            named_barrier_arrive(FIRST, THREADS);
    }
    FLASH_DEVICE void mine() const
    {
        named_barrier(FIRST + half, THREADS);
    }
    FLASH_DEVICE void yours() const
    {
        named_barrier_arrive(FIRST + 1 - half, THREADS);
    }
    FLASH_DEVICE void end(int steps0, int steps1) const
    {
        if (half == (steps0 > steps1 ? 1 : 0))
            named_barrier(FIRST + half, THREADS);
    }
};

template <class T, FlashMax MAX>
FLASH_DEVICE int long_stream_overlap(const LongStream<T> &w, LongState<T> &x, int rowgroup,
                                     int part)
{
    constexpr bool TURNS = T::ORDER == FLASH_ORDER_TURNS;
    const int tiles = (w.a.nk + T::BN - 1) / T::BN;
    const LongTurns<T> turns = {T::SPLIT > 1 ? part : rowgroup};
    int lost = 0;
    float scale[2] = {1.f, 1.f};
    uint32_t p[T::BN / 4];
    if (part >= tiles)
        return 0;
    int at = w.base + part;
    long_await<T>(w.gk, at);
    pin(x.s);
    wgmma_fence();
    long_scores<T>(x, w.dq, long_keys<T>(w.gk, at));
    wgmma_commit();
    wgmma_wait<0>();
    pin(x.s);
    long_release<T>(w.gk, at);
    lost |= long_between<T, MAX>(x, w.c, true, w.a.nk - part * T::BN, scale);
    long_pack<T>(x, p);
    if (TURNS && tiles >= T::SPLIT)
        turns.begin();
#pragma unroll 1
    for (int i = part + T::SPLIT; i < tiles; i += T::SPLIT) {
        const int before = at;
        at = w.base + i;
        long_await<T>(w.gk, at);
        long_await<T>(w.gv, before);
        if (TURNS)
            turns.mine();
        pin(x.s);
        pin(x.o);
        pin(p);
        wgmma_fence();
        long_scores<T>(x, w.dq, long_keys<T>(w.gk, at));
        wgmma_commit();
        long_values<T>(x, p, long_rows<T>(w.gv, before));
        wgmma_commit();
        if (TURNS)
            turns.yours();
        wgmma_wait<1>();
        pin(x.s);
        long_release<T>(w.gk, at);
        const int state = long_between<T, MAX>(x, w.c, false, w.a.nk - i * T::BN, scale);
        wgmma_wait<0>();
        pin(x.o);
        pin(p);
        long_release<T>(w.gv, before);
        long_rescale<T, MAX>(x, state, scale);
        lost |= state;
        long_pack<T>(x, p);
    }
    if (TURNS && tiles >= T::SPLIT)
        turns.end(T::SPLIT > 1 ? (tiles - 1) / T::SPLIT : 0,
                  T::SPLIT > 1 ? (tiles - 2) / T::SPLIT : 0);
    long_overlap_last<T>(w, x, p, at);
    return lost;
}

/* The warpgroups of a row group hand their parts to the first one. Laid out [value][thread], free
 * of bank conflicts. */
template <class T>
FLASH_DEVICE void long_merge(LongState<T> &x, float *merge, int rowgroup, int part)
{
    const int thread = threadIdx.x & 127;
    if (part > 0) {
        float *to = merge + ((part - 1) * T::ROWS + rowgroup) * (T::D / 2 + 4) * 128 + thread;
        to[0] = x.shift[0];
        to[128] = x.shift[1];
        to[256] = x.sum[0];
        to[384] = x.sum[1];
#pragma unroll
        for (int i = 0; i < T::D / 2; ++i)
            to[(4 + i) * 128] = x.o[i];
    }
    named_barrier(1 + rowgroup, T::SPLIT * 128);
    if (part == 0) {
#pragma unroll 1
        for (int q = 1; q < T::SPLIT; ++q) {
            const float *from =
                merge + ((q - 1) * T::ROWS + rowgroup) * (T::D / 2 + 4) * 128 + thread;
            float mine[2], theirs[2];
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const float other = from[r * 128], m = fmaxf(x.shift[r], other);
                mine[r] = exp2_fast(x.shift[r] - m);
                theirs[r] = other == -INFINITY ? 0.f : exp2_fast(other - m);
                x.sum[r] = x.sum[r] * mine[r] + from[(2 + r) * 128] * theirs[r];
                x.shift[r] = m;
            }
#pragma unroll
            for (int i = 0; i < T::D / 2; ++i)
                x.o[i] = x.o[i] * mine[(i >> 1) & 1] + from[(4 + i) * 128] * theirs[(i >> 1) & 1];
        }
    }
}

/* A warp turns its 16 rows into whole 16-byte pieces in what was Q's place, laid out as Q was. */
template <class T>
FLASH_DEVICE void long_store(const flash_problem &a, const LongTile<T> &t, LongState<T> &x,
                             uint8_t *staged, int rowgroup)
{
    const int warp = (threadIdx.x >> 5) & 3, lane = threadIdx.x & 31;
    named_barrier(1 + T::ROWS + rowgroup, 128); /* all four warps' products have read Q */
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int own = warp * 16 + (lane >> 2) + r * 8, row = t.row0 + rowgroup * 64 + own;
        const float sum = quad_sum(x.sum[r]), f = 1.f / sum;
#pragma unroll
        for (int j = 0; j < T::D / 8; ++j)
            *(uint32_t *)(staged + (j >> 3) * 8192 + swizzled(own, j & 7) + (lane & 3) * 4) =
                pack2<T::BF>(x.o[j * 4 + r * 2] * f, x.o[j * 4 + r * 2 + 1] * f);
        if (a.lse.data && (lane & 3) == 0 && row < a.nq)
            ((float *)a.lse.data)[t.b * a.lse.batch + t.h * a.lse.head + row * a.lse.row] =
                (x.shift[r] + __log2f(sum)) * 0.69314718055994531f;
    }
    __syncwarp();
    uint16_t *out = (uint16_t *)a.out.data + t.b * a.out.batch + t.h * a.out.head;
#pragma unroll
    for (int id = lane; id < 16 * T::PIECES; id += 32) {
        const int own = warp * 16 + id / T::PIECES, piece = id % T::PIECES,
                  row = t.row0 + rowgroup * 64 + own;
        if (row < a.nq && piece < a.d / 8)
            *(uint4 *)(out + row * a.out.row + piece * 8) =
                *(const uint4 *)(staged + (piece >> 3) * 8192 + swizzled(own, piece & 7));
    }
}

/* Computes a query tile whose queries have been asked for, and asks for those of tile `next` (none
 * if negative). */
template <class T, FlashMax MAX>
FLASH_DEVICE bool long_consume(const flash_problem &a, int tile, int next, const LongRing &gk,
                               const LongRing &gv, int base, uint8_t *queries,
                               uint8_t *next_queries, float *merge, int rowgroup, int part)
{
    const LongTile<T> t = long_tile<T>(a, tile);
    uint8_t *mine = queries + rowgroup * T::CHUNKS * 8192;
    LongState<T> x;
    cp_async_wait<0>();
    fence_proxy_async();
    named_barrier(1 + rowgroup,
                  T::SPLIT * 128); /* and the row group has finished with the tile before */
    if (next >= 0)
        long_load_queries<T>(a, long_tile<T>(a, next), rowgroup, part,
                             smem_address(next_queries + rowgroup * T::CHUNKS * 8192));
#pragma unroll
    for (int i = 0; i < T::D / 2; ++i)
        x.o[i] = 0.f;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        x.shift[r] = -INFINITY;
        x.sum[r] = 0.f;
    }
    const LongStream<T> w = {
        a, gk, gv, tile_descriptor(smem_address(mine), 16), base, a.scale * 1.4426950408889634f};
    int state;
    if constexpr (T::ORDER == FLASH_ORDER_OVERLAP || T::ORDER == FLASH_ORDER_TURNS)
        state = long_stream_overlap<T, MAX>(w, x, rowgroup, part);
    else if constexpr (T::ORDER == FLASH_ORDER_EARLY)
        state = long_stream_early<T, MAX>(w, x, part);
    else
        state = long_stream_plain<T, MAX>(w, x, part);
    if constexpr (T::SPLIT > 1)
        long_merge<T>(x, merge, rowgroup, part);
    if (part == 0)
        long_store<T>(a, t, x, mine, rowgroup);
    return (state & LONG_LOST) != 0;
}

template <class T>
__global__ void __launch_bounds__(T::THREADS, 1)
    flash_long_kernel(const __grid_constant__ flash_long_args g)
{
    static_assert(T::SMEM <= 232448, "more shared memory than a block may have");
    extern __shared__ uint8_t raw[];
    const flash_problem &a = g.p;
    uint8_t *smem = (uint8_t *)(((uintptr_t)raw + 1023) & ~(uintptr_t)1023);
    uint8_t *keys = smem + 2 * T::Q_BYTES, *values = keys + T::STAGES * T::TILE_BYTES;
    float *merge = (float *)(values + T::STAGES * T::TILE_BYTES);
    uint64_t *bars = (uint64_t *)(merge + T::MERGE_FLOATS); /* full and empty of K, then of V */
    uint32_t *redo = (uint32_t *)(bars + 4 * T::STAGES);
    const int row_tiles = (a.nq + T::ROWS * 64 - 1) / (T::ROWS * 64), tiles = row_tiles * a.b * a.h,
              key_tiles = (a.nk + T::BN - 1) / T::BN;

    if constexpr (T::D % 16 != 0) /* columns past D that a 16-wide step reads must hold zeros */
        for (int i = threadIdx.x; i < (2 * T::Q_BYTES + T::STAGES * T::TILE_BYTES) / 16;
             i += T::THREADS)
            ((uint4 *)smem)[i] = make_uint4(0, 0, 0, 0);
    for (int i = threadIdx.x; i < T::MAX_TILES / 32; i += T::THREADS)
        redo[i] = 0;
    if (threadIdx.x == 0) {
        for (int i = 0; i < T::STAGES; ++i)
            for (int v = 0; v < 2; ++v) {
                mbarrier_init(smem_address(&bars[v * 2 * T::STAGES + i]), 2);
                mbarrier_init(smem_address(&bars[(v * 2 + 1) * T::STAGES + i]), T::ROWS * 4);
            }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    fence_proxy_async();
    __syncthreads();
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");

    const int group = __shfl_sync(0xffffffffu, (int)threadIdx.x >> 7, 0);
    const LongRing gk = {smem_address(keys), smem_address(bars), smem_address(bars + T::STAGES)};
    const LongRing gv = {smem_address(values), smem_address(bars + 2 * T::STAGES),
                         smem_address(bars + 3 * T::STAGES)};
    if (group == T::GROUPS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(T::FEED_REGS));
        long_produce<T>(g, tiles, (threadIdx.x >> 6) & 1 ? gv : gk, redo);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(T::REGS));
        const int rowgroup = group % T::ROWS, part = group / T::ROWS;
        const auto first = [&](int t, uint8_t *to) {
            long_load_queries<T>(a, long_tile<T>(a, t), rowgroup, part,
                                 smem_address(to + rowgroup * T::CHUNKS * 8192));
        };
        uint8_t *now = smem, *then = smem + T::Q_BYTES;
        int n = 0, base = 0;
        first(blockIdx.x, now);
#pragma unroll 1
        for (int t = blockIdx.x; t < tiles; t += gridDim.x, ++n, base += key_tiles) {
            const int next = t + (int)gridDim.x;
            const bool lost = long_consume<T, T::MAX>(a, t, next < tiles ? next : -1, gk, gv, base,
                                                      now, then, merge, rowgroup, part);
            if (T::MAX == FLASH_MAX_FIRST && lost)
                atomicOr(&redo[n >> 5], 1u << (n & 31));
            uint8_t *swap = now;
            now = then;
            then = swap;
        }
        if constexpr (T::MAX == FLASH_MAX_FIRST) {
            named_barrier(15, T::THREADS);
            n = 0;
#pragma unroll 1
            for (int t = blockIdx.x; t < tiles; t += gridDim.x, ++n)
                if (redo[n >> 5] >> (n & 31) & 1) {
                    named_barrier(1 + rowgroup, T::SPLIT * 128);
                    first(t, now);
                    long_consume<T, FLASH_MAX_FULL>(a, t, -1, gk, gv, base, now, then, merge,
                                                    rowgroup, part);
                    base += key_tiles;
                }
        }
    }
}

#endif
