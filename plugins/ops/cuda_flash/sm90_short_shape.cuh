/* The short kernel's shapes, and how its blocks load: everything at once, in the order in which it
 * is needed.
 *
 * Rows that TMA feeds well come by it, a box of 64 columns at a time; those of 80 bytes by 16-byte
 * copies of all threads.
 */
#ifndef FLASH_SM90_SHORT_SHAPE_CUH
#define FLASH_SM90_SHORT_SHAPE_CUH

#include <cuda.h>

#include "sm90_common.cuh"

enum { VALUES_LATER = 800 }; /* clocks; 400 to 800 measured best where Q and K take 2000 to come */
enum { BARRIER_SUMS = 6, BARRIER_WORKERS = 7 }; /* named barriers; 1 to 4 are of 128 threads */

template <int D_, int BN_, int ROWS_, int SPLIT_, int TURNS_, int BLOCKS_, bool MASS_, bool BF_,
          bool PAIR_ = false>
struct ShortShape {
    static constexpr int D = D_, BN = BN_, ROWS = ROWS_, SPLIT = SPLIT_, TURNS = TURNS_,
                         BLOCKS = BLOCKS_;
    static constexpr bool BF = BF_, MASS = MASS_, PAIR = PAIR_, TMA = D % 16 == 0;
    static constexpr int WORKERS = ROWS * SPLIT * 128, KEYS = BN * SPLIT, QUERIES = ROWS * 64;
    /* a warp of its own asks for the values and takes the mean (a ninth warp leaves the others 168
     * registers: too few where two warpgroups share 256 keys) */
    static constexpr bool HELPER = (MASS || PAIR) && TMA && SPLIT == 1;
    static constexpr int THREADS = WORKERS + (HELPER ? 32 : 0);
    static constexpr int CHUNKS = (D + 63) / 64, STEPS = (D + 15) / 16;
    /* two warpgroups or blocks share the columns of O: the first takes so many */
    static constexpr int LEFT = SPLIT == 1 && !PAIR ? D : D > 64 ? 64 : 32;
    static constexpr int Q_BYTES = ROWS * CHUNKS * 8192,
                         K_BYTES = CHUNKS * BN * 128; /* K_BYTES: of one part */
    static constexpr int FRONT = TURNS * Q_BYTES + SPLIT * K_BYTES, TILES = FRONT + SPLIT * K_BYTES;
    static constexpr int STATS = SPLIT > 1 ? 64 * SPLIT * 8 : 0;
    static constexpr int MASS_BYTES = MASS ? (5 * KEYS + 32) * 4 : 0; /* ShortMass */
    static constexpr int LOADS = TURNS + 1; /* copies: queries and keys, values, later queries */
    static constexpr int BAR_COUNT = CHUNKS + SPLIT + 1; /* TMA: see short_ask_all; column sums */
    static constexpr int BARS = TILES + STATS + MASS_BYTES, SPARE = BARS + BAR_COUNT * 8,
                         SMEM = 1024 + SPARE + 8;
    static_assert(TURNS == 1 || (SPLIT == 1 && !MASS && !TMA), "turns keep nothing but K and V");
    static_assert(SPLIT == 1 || (SPLIT == 2 && ROWS == 1 && BN % 32 == 0),
                  "P takes its part of K's");
    static_assert(!MASS || ROWS == 1, "column sums are of 64 queries");
    static_assert(!PAIR || (TMA && ROWS == 1 && SPLIT == 1 && !MASS), "see sm90_short_pair.cuh");
};

typedef struct flash_short_args {
    flash_problem p;
    CUtensorMap q, k, v; /* boxes of 64, BN and BN rows; where the shape's rows come by TMA */
} flash_short_args;

template <class T> struct ShortPlace {
    int b, h, hkv, row0; /* of the block's first query tile */
    int rowgroup, part;
};

template <class T> FLASH_DEVICE ShortPlace<T> short_place(const flash_problem &a, int block)
{
    constexpr int QUERIES = T::QUERIES * T::TURNS;
    const int per_head = (a.nq + QUERIES - 1) / QUERIES, bh = block / per_head,
              group = __shfl_sync(0xffffffffu, (int)threadIdx.x >> 7, 0);
    ShortPlace<T> w;
    w.b = bh / a.h;
    w.h = bh - w.b * a.h;
    w.hkv = a.h == a.hkv ? w.h : w.h / (a.h / a.hkv);
    w.row0 = (block - bh * per_head) * QUERIES;
    w.rowgroup = group % T::ROWS;
    w.part = group / T::ROWS;
    return w;
}

/* ---- by TMA ---- */

template <class T> FLASH_DEVICE void short_bars(const flash_short_args &g, uint32_t base)
{
    for (int i = 0; i < T::CHUNKS + T::SPLIT; ++i)
        mbarrier_init(base + T::BARS + i * 8, i < T::CHUNKS || T::HELPER ? 1 : T::CHUNKS);
    tensormap_prefetch(&g.q);
    tensormap_prefetch(&g.k);
    tensormap_prefetch(&g.v);
}

/* Which head and batch entry of q, k and v the block reads: before griddepcontrol.wait. */
struct ShortCorner {
    int qh, qb, kh, kb, vh, vb;
    int key0; /* the first of its keys */
};

template <class T>
FLASH_DEVICE ShortCorner short_corner(const flash_problem &a, const ShortPlace<T> &w)
{
    return {a.q.head ? w.h : 0,
            a.q.batch ? w.b : 0,
            a.k.head ? w.hkv : 0,
            a.k.batch ? w.b : 0,
            a.v.head ? w.hkv : 0,
            a.v.batch ? w.b : 0,
            0};
}

/* Each chunk of 64 columns has a warp that asks for it: Q and K, with a barrier of their own, then
 * every part's values. Asking takes a thread 50 ns a box, and what is asked first arrives first. */
template <class T>
FLASH_DEVICE void short_ask_all(const flash_short_args &g, const ShortPlace<T> &w,
                                const ShortCorner &from, uint32_t base)
{
    const int c = __shfl_sync(0xffffffffu, (int)threadIdx.x >> 5, 0);
    const uint32_t bar = base + T::BARS + c * 8,
                   keys = base + T::TURNS * T::Q_BYTES + c * (T::BN * 128),
                   values = base + T::FRONT + c * (T::BN * 128);
    if (c >= T::CHUNKS || !elected())
        return;
    mbarrier_expect(bar, (T::QUERIES + T::KEYS) * 128);
#pragma unroll
    for (int i = 0; i < T::ROWS; ++i)
        tma_load(base + (i * T::CHUNKS + c) * 8192, &g.q, bar, c * 64, w.row0 + i * 64, from.qh,
                 from.qb);
#pragma unroll
    for (int i = 0; i < T::SPLIT; ++i)
        tma_load(keys + i * T::K_BYTES, &g.k, bar, c * 64, from.key0 + i * T::BN, from.kh, from.kb);
    if constexpr (!T::HELPER)
#pragma unroll
        for (int i = 0; i < T::SPLIT; ++i) {
            const uint32_t full = base + T::BARS + (T::CHUNKS + i) * 8;
            mbarrier_expect(full, T::BN * 128);
            tma_load(values + i * T::K_BYTES, &g.v, full, c * 64, from.key0 + i * T::BN, from.vh,
                     from.vb);
        }
}

/* The values, by one warp, a little later: what is asked for at the same time as Q and K takes of
 * the memory's bandwidth just then, and V is wanted last. */
template <class T>
FLASH_DEVICE void short_ask_values(const flash_short_args &g, const ShortCorner &from,
                                   uint32_t base)
{
    const long long begun = clock64();
    while (clock64() - begun < VALUES_LATER)
        ;
    if (!elected())
        return;
#pragma unroll
    for (int i = 0; i < T::SPLIT; ++i) {
        const uint32_t full = base + T::BARS + (T::CHUNKS + i) * 8;
        mbarrier_expect(full, T::CHUNKS * T::BN * 128);
#pragma unroll
        for (int c = 0; c < T::CHUNKS; ++c)
            tma_load(base + T::FRONT + c * (T::BN * 128) + i * T::K_BYTES, &g.v, full, c * 64,
                     from.key0 + i * T::BN, from.vh, from.vb);
    }
}

/* ---- by copies ---- */

/* ROWS rows in tiles of TILE_ROWS; the pieces between the head dimension and the next multiple of
 * 16 become zeros */
template <class T, int TILE_ROWS, int ROWS>
FLASH_DEVICE void short_load(uint32_t dst, const uint16_t *base, int64_t stride, int valid,
                             int pieces)
{
    constexpr int WIDE = T::STEPS * 2;
#pragma unroll 4
    for (int id = threadIdx.x; id < ROWS * WIDE; id += T::WORKERS) {
        const int row = id / WIDE, piece = id % WIDE, tile = row / TILE_ROWS, r = row % TILE_ROWS;
        const bool in = row < valid && piece < pieces;
        cp_async16(dst + (tile * T::CHUNKS + (piece >> 3)) * (TILE_ROWS * 128) +
                       swizzled(r, piece & 7),
                   in ? base + row * stride + piece * 8 : base, in ? 16 : 0);
    }
}

template <class T>
FLASH_DEVICE void short_load_all(const flash_problem &a, const ShortPlace<T> &w, uint32_t base)
{
    const int pieces = a.d / 8;
    const uint16_t *q = (const uint16_t *)a.q.data + w.b * a.q.batch + w.h * a.q.head +
                        w.row0 * a.q.row,
                   *k = (const uint16_t *)a.k.data + w.b * a.k.batch + w.hkv * a.k.head,
                   *v = (const uint16_t *)a.v.data + w.b * a.v.batch + w.hkv * a.v.head;
    short_load<T, 64, T::QUERIES>(base, q, a.q.row, a.nq - w.row0, pieces);
    short_load<T, T::BN, T::KEYS>(base + T::TURNS * T::Q_BYTES, k, a.k.row, a.nk, pieces);
    cp_async_commit();
    short_load<T, T::BN, T::KEYS>(base + T::FRONT, v, a.v.row, a.nk, pieces);
    cp_async_commit();
#pragma unroll
    for (int t = 1; t < T::TURNS; ++t) {
        short_load<T, 64, T::QUERIES>(base + t * T::Q_BYTES, q + t * T::QUERIES * a.q.row, a.q.row,
                                      a.nq - w.row0 - t * T::QUERIES, pieces);
        cp_async_commit();
    }
}

/* Waits for load `LOAD` of the block, for all threads. */
template <class T, int LOAD> FLASH_DEVICE void short_copied()
{
    cp_async_wait<T::LOADS - 1 - LOAD>();
    fence_proxy_async();
    named_barrier(BARRIER_WORKERS, T::WORKERS);
}

#endif
