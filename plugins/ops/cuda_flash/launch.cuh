/* A kernel launch that may start while the one before it ends (programmatic dependent launch on sm_90; kernels wait
 * with griddepcontrol before they touch memory). */
#ifndef FLASH_LAUNCH_CUH
#define FLASH_LAUNCH_CUH

#include <cuda_runtime_api.h>

template <class Kernel, class... Args> static int launch(Kernel kernel, dim3 grid, int threads, int smem, void *stream, bool early, const Args &...args)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute = {};
    config.gridDim = grid;
    config.blockDim = dim3((unsigned)threads);
    config.dynamicSmemBytes = (size_t)smem;
    config.stream = (cudaStream_t)stream;
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &attribute;
    config.numAttrs = early ? 1 : 0;
    return (int)cudaLaunchKernelEx(&config, kernel, args...);
}

template <class Kernel> static int allow_smem(Kernel kernel, int bytes)
{
    return (int)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

#endif
