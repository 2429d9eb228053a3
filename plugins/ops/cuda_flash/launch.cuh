/* A kernel launch that may start while the one before it ends (programmatic dependent launch on
 * sm_90; kernels wait with griddepcontrol before they touch memory). */
#ifndef FLASH_LAUNCH_CUH
#define FLASH_LAUNCH_CUH

#include <cuda_runtime_api.h>

template <class Kernel, class... Args>
static int launch(Kernel kernel, dim3 grid, int threads, int smem, void *stream, bool early,
                  int cluster, const Args &...args)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attributes[2] = {};
    config.gridDim = grid;
    config.blockDim = dim3((unsigned)threads);
    config.dynamicSmemBytes = (size_t)smem;
    config.stream = (cudaStream_t)stream;
    config.attrs = attributes;
    if (early) {
        cudaLaunchAttribute &a = attributes[config.numAttrs++];
        a.id = cudaLaunchAttributeProgrammaticStreamSerialization;
        a.val.programmaticStreamSerializationAllowed = 1;
    }
    if (cluster > 1) {
        cudaLaunchAttribute &a = attributes[config.numAttrs++];
        a.id = cudaLaunchAttributeClusterDimension;
        a.val.clusterDim.x = (unsigned)cluster;
        a.val.clusterDim.y = a.val.clusterDim.z = 1;
    }
    return (int)cudaLaunchKernelEx(&config, kernel, args...);
}

template <class Kernel> static int allow_smem(Kernel kernel, int bytes)
{
    return (int)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

#endif
