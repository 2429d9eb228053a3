/* Hopper building blocks: barriers, asynchronous copies, matrix descriptors, small arithmetic. */
#ifndef FLASH_SM90_COMMON_CUH
#define FLASH_SM90_COMMON_CUH

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "flash_kernel.h"
#include "sm90_wgmma.cuh"

#define FLASH_DEVICE __device__ __forceinline__

/* one lane of the warp, always the same */
FLASH_DEVICE bool elected()
{
    uint32_t yes;
    asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.u32 %0, 1, 0, p;\n}\n"
                 : "=r"(yes));
    return yes;
}

FLASH_DEVICE uint32_t smem_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* A kernel's parameters come through the constant cache, where the first use of each line waits
 * for L2. Called by one thread while the loads are under way. `spare` is a word of shared memory
 * that nobody reads: without it the compiler would drop the reads. */
template <class Parameters> FLASH_DEVICE void touch_parameters(const Parameters &p, uint32_t spare)
{
    const uint32_t *words = (const uint32_t *)&p;
    uint32_t x = 0;
#pragma unroll
    for (unsigned i = 0; i < sizeof p / 4; i += 8)
        x ^= words[i];
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(spare), "r"(x) : "memory");
}

/* ---- mbarriers ---- */

FLASH_DEVICE void mbarrier_init(uint32_t bar, uint32_t count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}

FLASH_DEVICE void mbarrier_arrive(uint32_t bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}

FLASH_DEVICE void mbarrier_expect(uint32_t bar, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
                 : "memory");
}

FLASH_DEVICE void mbarrier_wait(uint32_t bar, uint32_t parity)
{
    asm volatile("{\n.reg .pred p;\n"
                 "WAIT_%=:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@p bra DONE_%=;\n"
                 "bra WAIT_%=;\n"
                 "DONE_%=:\n}\n" ::"r"(bar),
                 "r"(parity)
                 : "memory");
}

/* the whole warp's answer */
FLASH_DEVICE bool mbarrier_ready(uint32_t bar, uint32_t parity)
{
    uint32_t ok;
    asm volatile("{\n.reg .pred p;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n}\n"
                 : "=r"(ok)
                 : "r"(bar), "r"(parity)
                 : "memory");
    return __all_sync(0xffffffffu, ok);
}

/* Ordinary and cp.async writes become visible to wgmma only behind this fence, made by the writing
 * thread. */
FLASH_DEVICE void fence_proxy_async()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

FLASH_DEVICE void named_barrier(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

FLASH_DEVICE void named_barrier_arrive(int id, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* ---- asynchronous 16-byte copies; `bytes` 0 writes zeros ---- */

FLASH_DEVICE void cp_async16(uint32_t dst, const void *src, uint32_t bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(bytes)
                 : "memory");
}

FLASH_DEVICE void cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int N> FLASH_DEVICE void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* One box of a [B, H, N, D] tensor map; what lies outside the tensor arrives as zeros. */
FLASH_DEVICE void tma_load(uint32_t dst, const void *map, uint32_t bar, int column, int row,
                           int head, int batch)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(dst),
                 "l"(map), "r"(bar), "r"(column), "r"(row), "r"(head), "r"(batch)
                 : "memory");
}

/* a box back to a tensor map's tensor; what lies outside is not written */
FLASH_DEVICE void tma_store(const void *map, uint32_t src, int column, int row, int head, int batch)
{
    asm volatile(
        "cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(
            map),
        "r"(src), "r"(column), "r"(row), "r"(head), "r"(batch)
        : "memory");
}

FLASH_DEVICE void tma_store_commit()
{
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/* the thread's stores have read shared memory */
FLASH_DEVICE void tma_store_wait_read()
{
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

FLASH_DEVICE void tensormap_prefetch(const void *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* ---- clusters ---- */

/* the same place in another block's shared memory */
FLASH_DEVICE uint32_t cluster_address(uint32_t address, uint32_t rank)
{
    uint32_t r;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(address), "r"(rank));
    return r;
}

FLASH_DEVICE void cluster_store(uint32_t address, float x)
{
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(address), "f"(x) : "memory");
}

/* counts its 16 bytes in the mbarrier `bar` of the same block as `address` */
FLASH_DEVICE void cluster_send(uint32_t address, const float4 &x, uint32_t bar)
{
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, "
                 "%3, %4}, [%5];" ::"r"(address),
                 "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w), "r"(bar)
                 : "memory");
}

/* the same with 8 bytes */
FLASH_DEVICE void cluster_send(uint32_t address, const float2 &x, uint32_t bar)
{
    asm volatile(
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, "
        "[%3];" ::"r"(address),
        "f"(x.x), "f"(x.y), "r"(bar)
        : "memory");
}

/* tells the others of the cluster that this block has begun and made its mbarriers */
FLASH_DEVICE void cluster_begun()
{
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

FLASH_DEVICE void cluster_arrive()
{
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}

FLASH_DEVICE void cluster_wait()
{
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

FLASH_DEVICE void cluster_sync()
{
    cluster_arrive();
    cluster_wait();
}

/* ---- wgmma ---- */

FLASH_DEVICE void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

FLASH_DEVICE void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int N> FLASH_DEVICE void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* Keeps the compiler from moving accesses to registers that a wgmma in flight reads or writes. */
template <int R> FLASH_DEVICE void pin(float (&d)[R])
{
#pragma unroll
    for (int i = 0; i < R; ++i)
        asm volatile("" : "+f"(d[i])::"memory");
}

template <int R> FLASH_DEVICE void pin(uint32_t (&d)[R])
{
#pragma unroll
    for (int i = 0; i < R; ++i)
        asm volatile("" : "+r"(d[i])::"memory");
}

/* Matrix descriptor of a tile of 128-byte rows under the 128-byte swizzle (PTX ISA, "Matrix
 * Descriptor Format"). `chunk_pitch` is the distance between 64-column chunks (used where B is
 * N-major); 8 rows take 1024 bytes. */
FLASH_DEVICE uint64_t tile_descriptor(uint32_t address, uint32_t chunk_pitch)
{
    return (uint64_t)((address & 0x3FFFF) >> 4) | ((uint64_t)(chunk_pitch >> 4) << 16) |
           ((uint64_t)(1024 >> 4) << 32) | ((uint64_t)1 << 62);
}

/* Where 16-byte piece `piece` (of 8) of row `row` lies under the 128-byte swizzle. */
FLASH_DEVICE uint32_t swizzled(int row, int piece)
{
    return (uint32_t)(row * 128 + ((piece ^ (row & 7)) << 4));
}

/* ---- arithmetic ---- */

FLASH_DEVICE float exp2_fast(float x)
{
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

FLASH_DEVICE float reciprocal(float x)
{
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

template <bool BF> FLASH_DEVICE uint32_t pack2(float lo, float hi)
{
    uint32_t r;
    if constexpr (BF)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    else
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}

FLASH_DEVICE float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

FLASH_DEVICE float quad_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* ---- rows of results on their way out ---- */

/* four 8 x 8 matrices of 16-bit values; each lane names a row's place */
FLASH_DEVICE void store_matrix4(uint32_t to, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
                 "r"(a), "r"(b), "r"(c), "r"(d)
                 : "memory");
}

FLASH_DEVICE void store_matrix2(uint32_t to, uint32_t a, uint32_t b)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(to), "r"(a),
                 "r"(b)
                 : "memory");
}

FLASH_DEVICE uint4 load_shared(uint32_t from)
{
    uint4 x;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "r"(from)
                 : "memory");
    return x;
}

/* A warp lays 16 rows of an accumulator down as rows of 16-bit values: COLUMNS of them in chunks of
 * 64 columns, CHUNK bytes from one to the next, under the 128-byte swizzle. `rows` is where the
 * warp's first row of the first chunk lies, FROM the first column's number. */
template <bool BF, int COLUMNS, int FROM, int CHUNK>
FLASH_DEVICE void rows_to_shared(uint32_t rows, const float *o, float f0, float f1)
{
    const int lane = threadIdx.x & 31;
    const uint32_t row = rows + (lane & 15) * 128, high = lane >> 4, turn = (lane & 7) << 4;
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j += 2) {
        const int piece = FROM / 8 + j;
        const uint32_t a = pack2<BF>(o[j * 4] * f0, o[j * 4 + 1] * f0),
                       b = pack2<BF>(o[j * 4 + 2] * f1, o[j * 4 + 3] * f1);
        if (j + 1 < COLUMNS / 8)
            store_matrix4(row + (piece >> 3) * CHUNK + (((piece & 7) << 4 | high << 4) ^ turn), a,
                          b, pack2<BF>(o[j * 4 + 4] * f0, o[j * 4 + 5] * f0),
                          pack2<BF>(o[j * 4 + 6] * f1, o[j * 4 + 7] * f1));
        else
            store_matrix2(row + (piece >> 3) * CHUNK + ((piece & 7) << 4 ^ turn), a, b);
    }
}

/* ... and 16 such rows, in 16-byte pieces, to global memory: columns FROM to FROM + COLUMNS, as far
 * as there are `valid` rows and `d` columns. */
template <int COLUMNS, int FROM, int CHUNK>
FLASH_DEVICE void rows_to_global(uint16_t *out, int64_t stride, uint32_t rows, int valid, int d)
{
    constexpr int PIECES = COLUMNS / 8;
#pragma unroll
    for (int id = threadIdx.x & 31; id < 16 * PIECES; id += 32) {
        const int own = id / PIECES, piece = FROM / 8 + id % PIECES;
        if (own < valid && piece < d / 8)
            *(uint4 *)(out + own * stride + piece * 8) =
                load_shared(rows + (piece >> 3) * CHUNK + swizzled(own, piece & 7));
    }
}

/* A loader's part of a tile of rows with CHUNKS 16-byte pieces each: THREADS threads walk the
 * pieces in order, and after PERIOD steps each thread stands at the same column ROWS rows further
 * down, where the swizzle is the same. */
template <int CHUNKS, int THREADS> struct TileWalk {
    static constexpr int gcd(int a, int b)
    {
        return b ? gcd(b, a % b) : a;
    }
    static constexpr int BASE = CHUNKS / gcd(CHUNKS, THREADS); /* steps until the columns repeat */
    static constexpr int BASE_ROWS = THREADS * BASE / CHUNKS;
    static constexpr int TIMES = BASE_ROWS % 8 == 0 ? 1 : 8 / gcd(BASE_ROWS, 8);
    static constexpr int PERIOD = BASE * TIMES, ROWS = BASE_ROWS * TIMES;
};

#endif
