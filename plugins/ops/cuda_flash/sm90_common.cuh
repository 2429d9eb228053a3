/* Hopper building blocks: barriers, asynchronous copies, matrix descriptors, small arithmetic. */
#ifndef FLASH_SM90_COMMON_CUH
#define FLASH_SM90_COMMON_CUH

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "flash_kernel.h"
#include "sm90_wgmma.cuh"

#define FLASH_DEVICE __device__ __forceinline__

FLASH_DEVICE uint32_t smem_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
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
