/* The long kernel's shapes, and its producer: a warpgroup that feeds K and V tiles through a ring
 * each. */
#ifndef FLASH_SM90_LONG_FEED_CUH
#define FLASH_SM90_LONG_FEED_CUH

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

/* BAND: queries see a band of the keys (causal, window): tiles outside it are not fed, the others
 * masked where they cross its edges. With FIRST the band must have no lower edge: a row that sees
 * nothing of its part's first tile then sees nothing of the later ones. */
template <int D_, int BN_, int ROWS_, int SPLIT_, int STAGES_, FlashOrder ORDER_, FlashMax MAX_,
          bool BF_, bool BAND_ = false>
struct LongShape {
    static constexpr int D = D_, BN = BN_, ROWS = ROWS_, SPLIT = SPLIT_, STAGES = STAGES_;
    static constexpr FlashOrder ORDER = ORDER_;
    static constexpr FlashMax MAX = MAX_;
    static constexpr bool BF = BF_, BAND = BAND_;
    static constexpr int GROUPS = ROWS * SPLIT, THREADS = GROUPS * 128 + 128;
    static constexpr int REGS = GROUPS == 4 ? 112 : GROUPS == 3 ? 160 : GROUPS == 2 ? 232 : 240;
    static constexpr int FEED_REGS = GROUPS == 4 ? 32 : GROUPS == 3 ? 32 : GROUPS == 2 ? 40 : 80;
    static constexpr int CHUNKS = (D + 63) / 64, STEPS = (D + 15) / 16, PIECES = D / 8;
    static constexpr int TILE_BYTES = CHUNKS * BN * 128; /* of K or of V */
    static constexpr bool TMA = D % 16 == 0;             /* 80-byte rows are slow through TMA */
    static constexpr int Q_BYTES = ROWS * CHUNKS * 8192;
    static constexpr int MERGE_FLOATS = (SPLIT - 1) * ROWS * (D / 2 + 4) * 128;
    static constexpr int MAX_TILES = 2048; /* query tiles of one block */
    static constexpr int SMEM = 1024 + 2 * Q_BYTES + 2 * STAGES * TILE_BYTES + MERGE_FLOATS * 4 +
                                STAGES * 32 + ROWS * 16 + 8 + MAX_TILES / 8;
    /* a warpgroup waits for a stage only after it has used that stage's last tile itself, so a
     * phase cannot be mistaken */
    static_assert(STAGES % SPLIT == 0, "each part must meet its own stages");
    static_assert(ORDER != FLASH_ORDER_TURNS || SPLIT == 2 || (SPLIT == 1 && ROWS == 2),
                  "turns are for two halves");
    static_assert(BN % 16 == 0 && TileWalk<PIECES, 64>::ROWS % 8 == 0,
                  "tiles are 16-row steps; the walk keeps the swizzle");
};

typedef struct flash_long_args {
    flash_problem p;
    CUtensorMap k, v;   /* [B, Hkv, Nk, D] in boxes of BN / 2 rows and 64 columns */
    CUtensorMap q, out; /* [B, H, Nq, D] in boxes of 64 and of 16 rows; where rows come by TMA */
} flash_long_args;

template <class T> struct LongTile {
    int b, h, row0;
    int first, count; /* its key tiles */
};

/* Which key tiles hold what rows [row0, row0 + ROWS * 64) see of the band. */
template <class T> FLASH_DEVICE void long_span(const flash_problem &a, LongTile<T> &t)
{
    t.first = 0;
    t.count = (a.nk + T::BN - 1) / T::BN;
    if constexpr (T::BAND) {
        const int64_t bottom = min(t.row0 + T::ROWS * 64, a.nq) - 1, all = a.nk,
                      left = min(max(t.row0 + a.band_lo, (int64_t)0), all),
                      right = min(bottom + a.band_hi + 1, all);
        t.first = (int)(left / T::BN);
        t.count = right > left ? (int)((right + T::BN - 1) / T::BN) - t.first : 0;
    }
}

/* Under a band tiles differ in work: the later rows, which a causal mask gives the most, come
 * first, over some heads at a time so that their keys stay in the L2 cache. */
template <class T> FLASH_DEVICE LongTile<T> long_tile(const flash_problem &a, int tile)
{
    const int per_head = (a.nq + T::ROWS * 64 - 1) / (T::ROWS * 64);
    LongTile<T> t;
    int bh = tile / per_head, row = tile - bh * per_head;
    if constexpr (T::BAND) {
        constexpr int HEADS = 16;
        const int from = tile / (per_head * HEADS) * HEADS, heads = min(HEADS, a.b * a.h - from),
                  at = tile - from * per_head;
        bh = from + at % heads;
        row = per_head - 1 - at / heads;
    }
    t.b = bh / a.h;
    t.h = bh - t.b * a.h;
    t.row0 = row * T::ROWS * 64;
    long_span<T>(a, t);
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
        at += t.count;
        return;
    }
#pragma unroll 1
    for (int i = 0, j = t.first * T::BN; i < t.count; ++i, j += T::BN, ++at) {
        const int s = at % T::STAGES, round = at / T::STAGES;
        if (round > 0)
            mbarrier_wait(g.empty + s * 8, (round - 1) & 1);
        if (at == 1) /* nobody's later tiles before everybody's first */
            mbarrier_wait(g.full, 0);
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
    const uint16_t *base = (const uint16_t *)view.data + t.b * view.batch +
                           t.h / (a.h / a.hkv) * view.head + (int64_t)t.first * T::BN * view.row;
#pragma unroll 1
    for (int i = 0, j = t.first * T::BN; i < t.count; ++i, j += T::BN, base += T::BN * view.row) {
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

/* Feeds every query tile of the block, then those marked in `redo`, which is complete once every
 * consumer warp has arrived at `all_done`. */
template <class T>
FLASH_DEVICE void long_produce(const flash_long_args &g, int tiles, LongRing ring, uint32_t *redo,
                               uint32_t all_done)
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
            mbarrier_wait(all_done, 0);
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

#endif
