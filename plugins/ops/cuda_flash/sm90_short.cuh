/* Hopper kernel for few keys (up to BN x SPLIT x CLUSTER): a block loads its queries, all keys and
 * all values at once and makes one exact softmax over the whole row, held in registers. ROWS
 * warpgroups of 64 query rows; SPLIT of them share a row group, BN keys each, and add up through
 * shared memory; so do the blocks of a cluster, each with its own share of the keys. With TURNS
 * over 1 a block computes several query tiles one after the other, all of them asked for at the
 * start. It can also give the sums of each key's column.
 *
 * Rows that TMA feeds well (a multiple of 64 bytes) come by it, a box of 64 columns at a time,
 * asked for by one lane of each warp in turn; others by 16-byte copies of all threads.
 */
#ifndef FLASH_SM90_SHORT_CUH
#define FLASH_SM90_SHORT_CUH

#include <cuda.h>

#include "sm90_common.cuh"

template <int D_, int BN_, int ROWS_, int SPLIT_, int CLUSTER_, int TURNS_, int BLOCKS_, bool MASS_,
          bool BF_>
struct ShortShape {
    static constexpr int D = D_, BN = BN_, ROWS = ROWS_, SPLIT = SPLIT_, CLUSTER = CLUSTER_,
                         TURNS = TURNS_, BLOCKS = BLOCKS_;
    static constexpr bool BF = BF_, MASS = MASS_;
    /* many small blocks get 128-byte rows faster by copies */
    static constexpr bool TMA = D % 32 == 0 && (D > 64 || BN * SPLIT != 128);
    static constexpr int THREADS = ROWS * SPLIT * 128, KEYS = BN * SPLIT, QUERIES = ROWS * 64;
    static constexpr int CHUNKS = (D + 63) / 64, STEPS = (D + 15) / 16, PIECES = D / 8;
    static constexpr int Q_BYTES = ROWS * CHUNKS * 8192,
                         K_BYTES = CHUNKS * BN * 128; /* K_BYTES: of one part */
    static constexpr int FRONT = TURNS * Q_BYTES + SPLIT * K_BYTES;
    /* parts of O to add up, over everything else; the pitch spreads a half warp's 8-byte stores
     * over all banks */
    static constexpr int MERGE_PITCH = D + 8;
    static constexpr int MERGE = SPLIT > 1 ? SPLIT *ROWS * 64 * MERGE_PITCH * 4 : 0;
    static constexpr int TILES =
        ((MERGE > FRONT + SPLIT * K_BYTES ? MERGE : FRONT + SPLIT * K_BYTES) + 1023) / 1024 * 1024;
    static_assert(TURNS == 1 || (SPLIT == 1 && !MASS), "turns keep nothing but K and V");
    static_assert(CLUSTER == 1 || (SPLIT > 1 && !MASS), "blocks add up where parts do");
    static constexpr int PARTS = SPLIT * CLUSTER; /* of the keys */
    static constexpr int STATS = PARTS > 1 ? ROWS * 64 * PARTS * 8 : 0;
    /* the warps' sums; then what the heads of a cluster send, up to 8 for each key and one more */
    static constexpr int MASS_BYTES = MASS ? ROWS * 4 * KEYS * 4 + (KEYS + 8) * 4 : 0;
    static constexpr int LOADS = TURNS + 1; /* queries and keys, values, later queries */
    static constexpr int BARS = TILES + STATS + MASS_BYTES, SMEM = 1024 + BARS + LOADS * 8;
    static constexpr int KEY_BOX = BN / 2; /* rows of a box of K or V; of Q 64 */
    static_assert(!TMA || KEY_BOX % 8 == 0, "a box is whole swizzle atoms");
};

typedef struct flash_short_args {
    flash_problem p;
    CUtensorMap q, k, v; /* used where the shape's rows come by TMA */
} flash_short_args;

/* ---- clusters ---- */

/* the same place in another block's shared memory */
FLASH_DEVICE uint32_t short_cluster_address(const void *p, uint32_t rank)
{
    uint32_t r;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                 : "=r"(r)
                 : "r"(smem_address(p)), "r"(rank));
    return r;
}

FLASH_DEVICE uint32_t short_cluster_rank()
{
    uint32_t r;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}

FLASH_DEVICE void short_cluster_arrive()
{
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}

FLASH_DEVICE void short_cluster_wait()
{
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

FLASH_DEVICE void short_cluster_sync()
{
    short_cluster_arrive();
    short_cluster_wait();
}

/* ROWS rows in tiles of TILE_ROWS; the pieces between the head dimension and the next multiple of
 * 16 become zeros */
template <class T, int TILE_ROWS, int ROWS>
FLASH_DEVICE void short_load(uint32_t dst, int tile_bytes, const uint16_t *base, int64_t stride,
                             int valid, int pieces)
{
    constexpr int WIDE = T::STEPS * 2;
#pragma unroll 4
    for (int id = threadIdx.x; id < ROWS * WIDE; id += T::THREADS) {
        const int row = id / WIDE, piece = id % WIDE, tile = row / TILE_ROWS, r = row % TILE_ROWS;
        const bool in = row < valid && piece < pieces;
        cp_async16(dst + tile * tile_bytes + (piece >> 3) * (TILE_ROWS * 128) +
                       swizzled(r, piece & 7),
                   in ? base + row * stride + piece * 8 : base, in ? 16 : 0);
    }
}

/* Boxes of 64 columns by BOX rows, `from` to `from + ROWS`, shared out among the warps; `turn`
 * counts them. */
template <class T, int TILE_ROWS, int ROWS, int BOX>
FLASH_DEVICE void short_ask(uint32_t dst, int tile_bytes, const CUtensorMap &map, uint32_t bar,
                            int from, int head, int batch, int &turn)
{
    const int warp = threadIdx.x >> 5;
#pragma unroll
    for (int r = 0; r < ROWS; r += BOX)
#pragma unroll
        for (int c = 0; c < T::CHUNKS; ++c, ++turn)
            if (turn % (T::THREADS / 32) == warp)
                tma_load(dst + r / TILE_ROWS * tile_bytes + c * (TILE_ROWS * 128) +
                             r % TILE_ROWS * 128,
                         &map, bar, c * 64, from + r, head, batch);
}

/* Sums of each key's column over the block's queries: to `sums` in global memory, or, where the
 * heads of a batch entry form a cluster, to the block that owns the key. */
template <class T>
FLASH_DEVICE void short_column_sums(const flash_problem &a, const float (&s)[T::BN / 2],
                                    float *mass, float *sums, int rowgroup, int part)
{
    const int warp = (threadIdx.x >> 5) & 3, lane = threadIdx.x & 31;
#pragma unroll
    for (int j = 0; j < T::BN / 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            float x = s[j * 4 + e] + s[j * 4 + 2 + e];
            x += __shfl_xor_sync(0xffffffffu, x, 4);
            x += __shfl_xor_sync(0xffffffffu, x, 8);
            x += __shfl_xor_sync(0xffffffffu, x, 16);
            if (lane < 4)
                mass[(rowgroup * 4 + warp) * T::KEYS + part * T::BN + j * 8 + lane * 2 + e] = x;
        }
    if (!sums)
        short_cluster_wait(); /* every block has begun */
    __syncthreads();
    const int own = (a.nk + a.h - 1) / a.h; /* keys of a block of the cluster */
    float *heads = mass + T::ROWS * 4 * T::KEYS;
    for (int i = threadIdx.x; i < a.nk; i += T::THREADS) {
        float x = 0.f;
#pragma unroll
        for (int w = 0; w < T::ROWS * 4; ++w)
            x += mass[w * T::KEYS + i];
        if (sums)
            sums[i] = x;
        else
            asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(short_cluster_address(
                             heads + short_cluster_rank() * own + i % own, i / own)),
                         "f"(x)
                         : "memory");
    }
    if (!sums)
        short_cluster_arrive(); /* what was sent will have arrived */
}

/* A cluster holds a batch entry's heads, one block each: the mean over heads without a second
 * kernel. Each block adds up its keys from what the heads sent, in the heads' order. */
template <class T>
FLASH_DEVICE void short_cluster_mean(const flash_problem &a, const float *mass, int b)
{
    const int own = (a.nk + a.h - 1) / a.h, rank = (int)short_cluster_rank();
    const float *heads = mass + T::ROWS * 4 * T::KEYS;
    short_cluster_wait();
    for (int i = threadIdx.x; i < own && rank * own + i < a.nk; i += T::THREADS) {
        float sum = 0.f;
        for (int h = 0; h < a.h; ++h)
            sum += heads[h * own + i];
        ((float *)a.key_mass.data)[b * a.key_mass.batch + (rank * own + i) * a.key_mass.col] =
            sum / (float)a.h;
    }
}

/* A warp turns its 16 rows into whole 16-byte pieces in what was Q's place, laid out as Q was. */
template <class T>
FLASH_DEVICE void short_store(const flash_problem &a, const float (&o)[T::D / 2],
                              const float (&factor)[2], uint8_t *staged, uint16_t *out, int rows)
{
    const int warp = (threadIdx.x >> 5) & 3, lane = threadIdx.x & 31;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int own = warp * 16 + (lane >> 2) + r * 8;
#pragma unroll
        for (int j = 0; j < T::D / 8; ++j)
            *(uint32_t *)(staged + (j >> 3) * 8192 + swizzled(own, j & 7) + (lane & 3) * 4) =
                pack2<T::BF>(o[j * 4 + r * 2] * factor[r], o[j * 4 + r * 2 + 1] * factor[r]);
    }
    __syncwarp();
#pragma unroll
    for (int id = lane; id < 16 * T::PIECES; id += 32) {
        const int own = warp * 16 + id / T::PIECES, piece = id % T::PIECES;
        if (own < rows && piece < a.d / 8)
            *(uint4 *)(out + own * a.out.row + piece * 8) =
                *(const uint4 *)(staged + (piece >> 3) * 8192 + swizzled(own, piece & 7));
    }
}

template <class T> struct ShortPlace {
    int b, h, row0;           /* of the block's first query tile */
    int rowgroup, part, rank; /* rank: of the block in its cluster */
};

template <class T> FLASH_DEVICE float4 short_read(const float *from, uint32_t rank)
{
    if constexpr (T::CLUSTER == 1)
        return *(const float4 *)from;
    float4 x;
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
                 : "r"(short_cluster_address(from, rank)));
    return x;
}

/* The parts of a row group lay down their shares of O in fp32; then all threads add them up, piece
 * by piece. */
template <class T>
FLASH_DEVICE void short_store_sum(const flash_problem &a, const float (&o)[T::D / 2],
                                  const float (&factor)[2], float *merge, uint16_t *out, int rows,
                                  const ShortPlace<T> &w)
{
    const int warp = (threadIdx.x >> 5) & 3, lane = threadIdx.x & 31;
    __syncthreads(); /* K and V are dead */
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        float *to = merge +
                    (w.part * T::QUERIES + w.rowgroup * 64 + warp * 16 + (lane >> 2) + r * 8) *
                        T::MERGE_PITCH +
                    (lane & 3) * 2;
#pragma unroll
        for (int j = 0; j < T::D / 8; ++j)
            *(float2 *)(to + j * 8) =
                make_float2(o[j * 4 + r * 2] * factor[r], o[j * 4 + r * 2 + 1] * factor[r]);
    }
    if constexpr (T::CLUSTER > 1)
        short_cluster_sync();
    else
        __syncthreads();
    /* a block of a cluster finishes its share of the rows */
    constexpr int OWN = T::QUERIES / T::CLUSTER;
    for (int id = threadIdx.x; id < OWN * T::PIECES; id += T::THREADS) {
        const int row = w.rank * OWN + id / T::PIECES, piece = id % T::PIECES;
        float x[8] = {};
#pragma unroll
        for (int q = 0; q < T::PARTS; ++q) {
            const float *from =
                merge + (q % T::SPLIT * T::QUERIES + row) * T::MERGE_PITCH + piece * 8;
            const float4 lo = short_read<T>(from, q / T::SPLIT),
                         hi = short_read<T>(from + 4, q / T::SPLIT);
            x[0] += lo.x, x[1] += lo.y, x[2] += lo.z, x[3] += lo.w;
            x[4] += hi.x, x[5] += hi.y, x[6] += hi.z, x[7] += hi.w;
        }
        if (row < rows && piece < a.d / 8)
            *(uint4 *)(out + row * a.out.row + piece * 8) =
                make_uint4(pack2<T::BF>(x[0], x[1]), pack2<T::BF>(x[2], x[3]),
                           pack2<T::BF>(x[4], x[5]), pack2<T::BF>(x[6], x[7]));
    }
}

/* Waits for load `LOAD` of the block, for all threads; where it comes by TMA, a barrier of its own
 * tells. */
template <class T, int LOAD> FLASH_DEVICE void short_arrived(const uint8_t *smem)
{
    if constexpr (T::TMA) {
        mbarrier_wait(smem_address(smem + T::BARS) + LOAD * 8, 0);
    } else {
        cp_async_wait<T::LOADS - 1 - LOAD>();
        fence_proxy_async();
        __syncthreads();
    }
}

/* this part's shift and sum of a row, for every block of the cluster */
template <class T>
FLASH_DEVICE void short_publish(float2 *stats, const ShortPlace<T> &w, int row, float shift,
                                float sum)
{
    float2 *to = stats + (w.rank * T::SPLIT + w.part) * T::QUERIES + row;
    if constexpr (T::CLUSTER == 1) {
        *to = make_float2(shift, sum);
    } else {
#pragma unroll
        for (int r = 0; r < T::CLUSTER; ++r)
            asm volatile(
                "st.shared::cluster.v2.f32 [%0], {%1, %2};" ::"r"(short_cluster_address(to, r)),
                "f"(shift), "f"(sum)
                : "memory");
    }
}

/* Exact softmax of the row in s: s becomes 2^(s c - shift); shift and sum are the row's (of this
 * part of the keys). */
template <class T>
FLASH_DEVICE void short_softmax(float (&s)[T::BN / 2], float c, int keys, float (&shift)[2],
                                float (&sum)[2])
{
    const int col = (threadIdx.x & 3) * 2;
    if (keys < T::BN)
#pragma unroll
        for (int i = 0; i < T::BN / 2; ++i)
            if ((i >> 2) * 8 + col + (i & 1) >= keys)
                s[i] = -INFINITY;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        float m = fmaxf(s[r * 2], s[r * 2 + 1]);
#pragma unroll
        for (int j = 1; j < T::BN / 8; ++j)
            m = fmaxf(m, fmaxf(s[j * 4 + r * 2], s[j * 4 + r * 2 + 1]));
        m = quad_max(m) * c;
        shift[r] = m;
        if (T::SPLIT > 1 && m == -INFINITY)
            m = 0.f; /* a part without keys */
        float z = 0.f;
#pragma unroll
        for (int j = 0; j < T::BN / 8; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                float &x = s[j * 4 + r * 2 + e];
                x = exp2_fast(__fmaf_rn(x, c, -m));
                z += x;
            }
        sum[r] = quad_sum(z);
    }
}

/* `factor` turns this part's exponentials into probabilities; shift and sum become those of the
 * whole row */
template <class T>
FLASH_DEVICE void short_factors(const float2 *stats, int row, float (&shift)[2], float (&sum)[2],
                                float (&factor)[2])
{
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        factor[r] = 1.f;
        if constexpr (T::PARTS > 1) {
            const float2 *st = stats + row + r * 8;
            const float own = shift[r];
            float m = -INFINITY, z = 0.f;
#pragma unroll
            for (int q = 0; q < T::PARTS; ++q)
                m = fmaxf(m, st[q * T::QUERIES].x);
#pragma unroll
            for (int q = 0; q < T::PARTS; ++q)
                z += st[q * T::QUERIES].y * exp2_fast(st[q * T::QUERIES].x - m);
            factor[r] = exp2_fast(own - m);
            shift[r] = m;
            sum[r] = z;
        }
        factor[r] *= 1.f / sum[r];
    }
}

/* One query tile. Copies come in groups: first queries and keys, values, later queries turn by
 * turn. */
template <class T, int TURN>
FLASH_DEVICE void short_tile(const flash_problem &a, const ShortPlace<T> &w, uint8_t *smem)
{
    const int warp = (threadIdx.x >> 5) & 3, lane = threadIdx.x & 31,
              row = w.rowgroup * 64 + warp * 16 + (lane >> 2);
    float2 *stats = (float2 *)(smem + T::TILES);
    uint8_t *queries = smem + TURN * T::Q_BYTES + w.rowgroup * T::CHUNKS * 8192;
    const uint32_t keys = smem_address(smem) + T::TURNS * T::Q_BYTES + w.part * T::K_BYTES,
                   values = smem_address(smem) + T::FRONT + w.part * T::K_BYTES;
    float s[T::BN / 2], o[T::D / 2], shift[2], sum[2], factor[2];
    uint32_t p[T::BN / 4];

    short_arrived<T, (TURN > 0 ? TURN + 1 : 0)>(smem);
    const uint64_t dq = tile_descriptor(smem_address(queries), 16), dk = tile_descriptor(keys, 16);
    pin(s);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < T::STEPS; ++k) {
        const uint64_t qa = dq + (k >> 2) * (8192 / 16) + (k & 3) * 2,
                       kb = dk + (k >> 2) * (T::BN * 128 / 16) + (k & 3) * 2;
        if (k == 0)
            Wgmma<T::BN>::template ss<T::BF, 0, 0>(s, qa, kb);
        else
            Wgmma<T::BN>::template ss<T::BF, 0, 1>(s, qa, kb);
    }
    wgmma_commit();
    wgmma_wait<0>();
    pin(s);
    short_softmax<T>(s, a.scale * 1.4426950408889634f, a.nk - (w.rank * T::SPLIT + w.part) * T::BN,
                     shift, sum);
    if constexpr (T::CLUSTER > 1)
        short_cluster_wait(); /* all blocks have begun */
    if (T::PARTS > 1 && (lane & 3) == 0)
#pragma unroll
        for (int r = 0; r < 2; ++r)
            short_publish<T>(stats, w, row + r * 8, shift[r], sum[r]);
#pragma unroll
    for (int i = 0; i < T::BN / 4; ++i)
        p[i] = pack2<T::BF>(s[i * 2], s[i * 2 + 1]);
    if constexpr (TURN == 0) {
        short_arrived<T, 1>(smem); /* the values */
        if constexpr (T::TMA)
            __syncthreads(); /* as by copies: all have read the queries and published */
        if constexpr (T::CLUSTER > 1)
            short_cluster_sync();
    } else
        named_barrier(1 + w.rowgroup, T::SPLIT * 128);
    pin(o);
    pin(p);
    wgmma_fence();
    const uint64_t dv = tile_descriptor(values, T::BN * 128);
#pragma unroll
    for (int k = 0; k < T::BN / 16; ++k) {
        if (k == 0)
            Wgmma<T::D>::template rs<T::BF, 1, 0>(o, p[0], p[1], p[2], p[3], dv);
        else
            Wgmma<T::D>::template rs<T::BF, 1, 1>(o, p[k * 4], p[k * 4 + 1], p[k * 4 + 2],
                                                  p[k * 4 + 3], dv + k * 128);
    }
    wgmma_commit();

    const int row0 = w.row0 + TURN * T::QUERIES;
    short_factors<T>(stats, row, shift, sum, factor);
    if (a.lse.data && w.part == 0 && (lane & 3) == 0)
#pragma unroll
        for (int r = 0; r < 2; ++r)
            if (w.rank == 0 && row0 + row + r * 8 < a.nq)
                ((float *)a.lse.data)[w.b * a.lse.batch + w.h * a.lse.head +
                                      (row0 + row + r * 8) * a.lse.row] =
                    (shift[r] + __log2f(sum[r])) * 0.69314718055994531f;
    if constexpr (T::MASS) {
#pragma unroll
        for (int i = 0; i < T::BN / 2; ++i)
            s[i] *= row0 + row + ((i >> 1) & 1) * 8 < a.nq ? factor[(i >> 1) & 1] : 0.f;
        short_column_sums<T>(a, s, (float *)(smem + T::TILES + T::STATS),
                             a.scratch ? (float *)a.scratch + (int64_t)blockIdx.x * a.nk : nullptr,
                             w.rowgroup, w.part);
    }
    wgmma_wait<0>();
    pin(o);
    pin(p);
    uint16_t *out = (uint16_t *)a.out.data + w.b * a.out.batch + w.h * a.out.head;
    if constexpr (T::SPLIT > 1)
        short_store_sum<T>(a, o, factor, (float *)smem, out + row0 * a.out.row, a.nq - row0, w);
    else
        short_store<T>(a, o, factor, queries, out + (row0 + w.rowgroup * 64) * a.out.row,
                       a.nq - row0 - w.rowgroup * 64);
    if constexpr (T::CLUSTER > 1)
        short_cluster_sync(); /* nobody leaves while others read */
    if (T::MASS && !a.scratch)
        short_cluster_mean<T>(a, (const float *)(smem + T::TILES + T::STATS), w.b);
}

/* Asks for everything at once, in the order in which it is needed. */
template <class T>
FLASH_DEVICE void short_ask_all(const flash_short_args &g, const ShortPlace<T> &w, uint32_t base,
                                int hkv, int key0)
{
    const flash_problem &a = g.p;
    const uint32_t bar = base + T::BARS;
    const int qh = a.q.head ? w.h : 0, qb = a.q.batch ? w.b : 0, kh = a.k.head ? hkv : 0,
              kb = a.k.batch ? w.b : 0, vh = a.v.head ? hkv : 0, vb = a.v.batch ? w.b : 0;
    int turn = 0;
    if ((threadIdx.x & 31) != 0)
        return;
    if (threadIdx.x == 0) {
        mbarrier_expect(bar, T::Q_BYTES + T::SPLIT * T::K_BYTES);
        mbarrier_expect(bar + 8, T::SPLIT * T::K_BYTES);
#pragma unroll
        for (int t = 1; t < T::TURNS; ++t)
            mbarrier_expect(bar + 8 + t * 8, T::Q_BYTES);
    }
    short_ask<T, 64, T::QUERIES, 64>(base, T::CHUNKS * 8192, g.q, bar, w.row0, qh, qb, turn);
    short_ask<T, T::BN, T::KEYS, T::KEY_BOX>(base + T::TURNS * T::Q_BYTES, T::K_BYTES, g.k, bar,
                                             key0, kh, kb, turn);
    short_ask<T, T::BN, T::KEYS, T::KEY_BOX>(base + T::FRONT, T::K_BYTES, g.v, bar + 8, key0, vh,
                                             vb, turn);
#pragma unroll
    for (int t = 1; t < T::TURNS; ++t)
        short_ask<T, 64, T::QUERIES, 64>(base + t * T::Q_BYTES, T::CHUNKS * 8192, g.q,
                                         bar + 8 + t * 8, w.row0 + t * T::QUERIES, qh, qb, turn);
}

template <class T>
FLASH_DEVICE void short_load_all(const flash_problem &a, const ShortPlace<T> &w, uint32_t base,
                                 int hkv, int key0)
{
    const int pieces = a.d / 8;
    const uint16_t *q = (const uint16_t *)a.q.data + w.b * a.q.batch + w.h * a.q.head +
                        w.row0 * a.q.row,
                   *k = (const uint16_t *)a.k.data + w.b * a.k.batch + hkv * a.k.head +
                        key0 * a.k.row,
                   *v = (const uint16_t *)a.v.data + w.b * a.v.batch + hkv * a.v.head +
                        key0 * a.v.row;
    short_load<T, 64, T::QUERIES>(base, T::CHUNKS * 8192, q, a.q.row, a.nq - w.row0, pieces);
    short_load<T, T::BN, T::KEYS>(base + T::TURNS * T::Q_BYTES, T::K_BYTES, k, a.k.row, a.nk - key0,
                                  pieces);
    cp_async_commit();
    short_load<T, T::BN, T::KEYS>(base + T::FRONT, T::K_BYTES, v, a.v.row, a.nk - key0, pieces);
    cp_async_commit();
#pragma unroll
    for (int t = 1; t < T::TURNS; ++t) {
        short_load<T, 64, T::QUERIES>(base + t * T::Q_BYTES, T::CHUNKS * 8192,
                                      q + t * T::QUERIES * a.q.row, a.q.row,
                                      a.nq - w.row0 - t * T::QUERIES, pieces);
        cp_async_commit();
    }
}

template <class T> FLASH_DEVICE void short_bars(const flash_short_args &g, uint32_t base)
{
    if (threadIdx.x == 0) {
        asm volatile("prefetch.tensormap [%0];" ::"l"(&g.q) : "memory");
        asm volatile("prefetch.tensormap [%0];" ::"l"(&g.k) : "memory");
        asm volatile("prefetch.tensormap [%0];" ::"l"(&g.v) : "memory");
        for (int i = 0; i < T::LOADS; ++i)
            mbarrier_init(base + T::BARS + i * 8, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    fence_proxy_async();
    __syncthreads();
}

template <class T>
__global__ void __launch_bounds__(T::THREADS, T::BLOCKS)
    flash_short_kernel(const __grid_constant__ flash_short_args g)
{
    const flash_problem &a = g.p;
    extern __shared__ uint8_t raw[];
    uint8_t *smem = (uint8_t *)(((uintptr_t)raw + 1023) & ~(uintptr_t)1023);
    const uint32_t base = smem_address(smem);
    constexpr int QUERIES = T::QUERIES * T::TURNS;
    const int per_head = (a.nq + QUERIES - 1) / QUERIES, block = blockIdx.x / T::CLUSTER,
              bh = block / per_head;
    const int group = __shfl_sync(0xffffffffu, (int)threadIdx.x >> 7, 0);
    ShortPlace<T> w;
    w.b = bh / a.h;
    w.h = bh - w.b * a.h;
    w.row0 = (block - bh * per_head) * QUERIES;
    w.rank = blockIdx.x % T::CLUSTER;
    w.rowgroup = group % T::ROWS;
    w.part = group / T::ROWS;
    const int hkv = w.h / (a.h / a.hkv), key0 = w.rank * T::KEYS;

    if constexpr (T::TMA)
        short_bars<T>(g, base);
    if (T::CLUSTER > 1 || (T::MASS && !a.scratch))
        short_cluster_arrive();
    asm volatile("griddepcontrol.wait;" ::: "memory");
    if constexpr (T::TMA)
        short_ask_all<T>(g, w, base, hkv, key0);
    else
        short_load_all<T>(a, w, base, hkv, key0);
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    short_tile<T, 0>(a, w, smem);
    if constexpr (T::TURNS > 1)
        short_tile<T, 1>(a, w, smem);
}

#endif
