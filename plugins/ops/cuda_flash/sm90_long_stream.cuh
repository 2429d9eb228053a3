/* The long kernel's loops over key tiles, one for each order of the products and the softmax. */
#ifndef FLASH_SM90_LONG_STREAM_CUH
#define FLASH_SM90_LONG_STREAM_CUH

#include "sm90_long_softmax.cuh"

/* What happens beside a tile's first product */
template <class T> struct LongBegin {
    const flash_long_args &g;
    int next, rowgroup, part;
    uint32_t queries, full; /* where the next tile's go, shared-memory addresses */

    FLASH_DEVICE void operator()() const
    {
        if constexpr (T::TMA) {
            if (elected())
                tma_store_wait_read();
            named_barrier(1 + rowgroup, T::SPLIT * 128); /* the tile before has left its place */
            if (next >= 0 && part == 0 && (threadIdx.x & 127) == 0)
                long_ask_queries<T>(g, next, rowgroup, queries, full);
        }
    }
};

template <class T> struct LongStream {
    const flash_problem &a;
    const LongRing &gk, &gv;
    uint64_t dq;
    int base;         /* of the block's stream of key tiles */
    int first, count; /* the query tile's key tiles */
    int row;          /* the thread's first row */
    float c;
    LongBegin<T> begin;
};

/* One tile's softmax between its two products. Returns as long_watch; O is not touched. */
template <class T, FlashMax MAX>
FLASH_DEVICE int long_between(const LongStream<T> &w, LongState<T> &x, bool first, int tile,
                              float (&scale)[2])
{
    const int key0 = (w.first + tile) * T::BN;
    const float c = w.c;
    int state = 0;
    if (w.a.nk - key0 < T::BN)
        long_mask_tail<T>(x, w.a.nk - key0);
    if constexpr (T::BAND)
        long_mask_band<T>(x, w.a, w.row, key0);
    if (MAX == FLASH_MAX_FULL || first) {
        long_softmax<T, true>(x, c,
                              scale); /* O is zero before the first tile, if it is the first */
    } else {
        long_softmax<T, false>(x, c, scale);
        state = long_watch<T>(x, scale);
    }
    return state;
}

template <class T, FlashMax MAX>
FLASH_DEVICE int long_stream_plain(const LongStream<T> &w, LongState<T> &x, int part)
{
    const int tiles = w.count;
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
        if (i == part)
            w.begin();
        wgmma_wait<0>();
        pin(x.s);
        long_release<T>(w.gk, at);
        if constexpr (T::ORDER == FLASH_ORDER_PLAIN) {
            pin(x.o);
            pin(p);
            if (i != part)
                long_release<T>(w.gv, at - T::SPLIT);
        }
        const int state = long_between<T, MAX>(w, x, i == part, i, scale);
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
    if (T::BAND && part >= tiles)
        w.begin();
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
    const int state = long_between<T, MAX>(w, x, false, i, scale);
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
    const int tiles = w.count;
    int lost = 0;
    float scale[2] = {1.f, 1.f};
    uint32_t even[T::BN / 4], odd[T::BN / 4];
    if (part >= tiles) {
        w.begin();
        return 0;
    }
    long_await<T>(w.gk, w.base + part);
    pin(x.s);
    wgmma_fence();
    long_scores<T>(x, w.dq, long_keys<T>(w.gk, w.base + part));
    wgmma_commit();
    w.begin();
    wgmma_wait<0>();
    pin(x.s);
    long_release<T>(w.gk, w.base + part);
    lost |= long_between<T, MAX>(w, x, true, part, scale);
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
    const int tiles = w.count;
    const LongTurns<T> turns = {T::SPLIT > 1 ? part : rowgroup};
    int lost = 0;
    float scale[2] = {1.f, 1.f};
    uint32_t p[T::BN / 4];
    if (part >= tiles) {
        w.begin();
        return 0;
    }
    int at = w.base + part;
    long_await<T>(w.gk, at);
    pin(x.s);
    wgmma_fence();
    long_scores<T>(x, w.dq, long_keys<T>(w.gk, at));
    wgmma_commit();
    w.begin();
    wgmma_wait<0>();
    pin(x.s);
    long_release<T>(w.gk, at);
    lost |= long_between<T, MAX>(w, x, true, part, scale);
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
        const int state = long_between<T, MAX>(w, x, false, i, scale);
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

#endif
