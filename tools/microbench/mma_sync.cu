/* What mma.sync multiplies on an NVIDIA GPU: bf16, fp16 and TF32, fp32 accumulators, by warps a
 * multiprocessor and independent chains a warp; and what its addition cuts.
 *
 *   nvcc -O3 -std=c++17 -arch=sm_90 -o mma_sync tools/microbench/mma_sync.cu && ./mma_sync
 */
#include <cstdint>
#include <cstdio>
#include <cuda_runtime.h>

enum { BF16, FP16, TF32 };

#define MMA(SHAPE, TYPE)                                                                           \
    asm volatile("mma.sync.aligned." SHAPE ".row.col.f32." TYPE "." TYPE ".f32 {%0,%1,%2,%3}, "    \
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                          \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                  \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))

template <int KIND>
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    if constexpr (KIND == BF16)
        MMA("m16n8k16", "bf16");
    else if constexpr (KIND == FP16)
        MMA("m16n8k16", "f16");
    else
        MMA("m16n8k8", "tf32");
}

template <int KIND, int CHAINS> __global__ void rate(float *out, long long *cycles, int n)
{
    float d[CHAINS][4] = {};
    const uint32_t a[4] = {threadIdx.x * 0x10001u, 0x3f803f80u, 0x3c003c00u, threadIdx.x};
    __syncthreads();
    const long long begin = clock64();
    for (int i = 0; i < n; i++)
#pragma unroll
        for (int u = 0; u < 4; u++)
#pragma unroll
            for (int c = 0; c < CHAINS; c++)
                mma<KIND>(d[c], a, a[0] + c, a[1] + u);
    __syncthreads();
    if (threadIdx.x == 0)
        cycles[blockIdx.x] = clock64() - begin;
    float sum = 0;
    for (int c = 0; c < CHAINS; c++)
        for (int i = 0; i < 4; i++)
            sum += d[c][i];
    out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

/* 1 + 16 products of 1.5 x 2^-26, which are 3 units in the last place together */
__global__ void cut(float *out)
{
    float d[4] = {1, 1, 1, 1};
    const uint32_t x = 0x3f80 - (13 << 7), y = x | 0x40, a[4] = {x * 0x10001, x * 0x10001,
                                                                 x * 0x10001, x * 0x10001};
    mma<BF16>(d, a, y * 0x10001, y * 0x10001);
    if (threadIdx.x == 0)
        *out = d[0];
}

template <int KIND, int CHAINS> static int measure(const char *name, float *out, long long *cycles)
{
    enum { N = 2000 };
    const double flop = KIND == TF32 ? 2048 : 4096;
    for (int warps = 4; warps <= 16; warps += 4) {
        long long taken = 0;
        for (int i = 0; i < 2; i++)
            rate<KIND, CHAINS><<<132, warps * 32>>>(out, cycles, N);
        if (cudaMemcpy(&taken, cycles, sizeof taken, cudaMemcpyDeviceToHost) != cudaSuccess)
            return 1;
        const double each = (double)taken / (N * 4.0 * CHAINS * warps);
        printf("mma.%s, %d warps x %d chains: %.2f cycles, %.0f FLOP/clk/SM\n", name, warps, CHAINS,
               each, flop / each);
    }
    return 0;
}

int main()
{
    float *out = nullptr, sum = 0;
    long long *cycles = nullptr;
    if (cudaMalloc(&out, 132 * 512 * sizeof *out) != cudaSuccess ||
        cudaMalloc(&cycles, 132 * sizeof *cycles) != cudaSuccess)
        return 1;
    int failed = measure<BF16, 1>("bf16", out, cycles) | measure<BF16, 4>("bf16", out, cycles) |
                 measure<BF16, 8>("bf16", out, cycles) | measure<FP16, 8>("f16", out, cycles) |
                 measure<TF32, 1>("tf32", out, cycles) | measure<TF32, 8>("tf32", out, cycles);
    cut<<<1, 32>>>(out);
    failed |= cudaMemcpy(&sum, out, sizeof sum, cudaMemcpyDeviceToHost) != cudaSuccess;
    printf("1 + 16 x 1.5 x 2^-26 = 1 + %.3f ulp (exact 3)\n", (sum - 1) * 8388608.0);
    return failed;
}
