/* The CUDA kernels against double-precision references; with --bench, their times beside what the
 * memory's bandwidth allows.  Exit 77 (skipped) where there is no GPU. */
#include "device.h"

#include <cuda_runtime_api.h>

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    int devices = 0;
    cudaError_t error = cudaGetDeviceCount(&devices);
    if (error != cudaSuccess || devices < 1) {
        fprintf(stderr, "SKIP: CUDA kernels: %s\n",
                error != cudaSuccess ? cudaGetErrorString(error) : "no NVIDIA GPU");
        return 77;
    }
    if (attn_cuda_kernels.version != CUDA_KERNELS_VERSION ||
        attn_cuda_kernels.size < sizeof attn_cuda_kernels) {
        fprintf(stderr, "the table is of version %u and %u bytes\n", attn_cuda_kernels.version,
                attn_cuda_kernels.size);
        return 1;
    }
    if (argc == 2 && strcmp(argv[1], "--bench") == 0)
        return bench();
    if (argc != 1) {
        fprintf(stderr, "usage: %s [--bench]\n", argv[0]);
        return 2;
    }
    return elements_group() + norms_group() + sources_group() ? 1 : 0;
}
