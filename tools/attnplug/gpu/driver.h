/* driver.h: the calls of the CUDA driver that the command makes, found at run time, so that it
 * builds and runs without CUDA.  Names, types and values: CUDA Driver API reference, cuda.h 12.0.
 */
#ifndef ATTNPLUG_GPU_DRIVER_H
#define ATTNPLUG_GPU_DRIVER_H

#include <stddef.h>
#include <stdint.h>

typedef uint64_t gpu_address;

struct gpu_location {
    int type, id;
};
struct gpu_allocation { /* CUmemAllocationProp */
    int type, handles;
    struct gpu_location location;
    void *windows;
    unsigned char flags[8];
};
struct gpu_access { /* CUmemAccessDesc */
    struct gpu_location location;
    int flags;
};

enum {
    GPU_SUCCESS = 0,
    GPU_OUT_OF_MEMORY = 2,
    GPU_ATTRIBUTE_CLOCK_KHZ = 13,
    GPU_ATTRIBUTE_PROCESSORS = 16,
    GPU_ATTRIBUTE_MEMORY_KHZ = 36,
    GPU_ATTRIBUTE_MEMORY_BITS = 37,
    GPU_ATTRIBUTE_L2_BYTES = 38,
    GPU_ATTRIBUTE_MAJOR = 75,
    GPU_ATTRIBUTE_MINOR = 76,
    GPU_STREAM_NON_BLOCKING = 1,
    GPU_CAPTURE_THREAD_LOCAL = 1,
    GPU_LOCATION_DEVICE = 1,
    GPU_ALLOCATION_PINNED = 1,
    GPU_ACCESS_READ_WRITE = 3,
};

#define GPU_FUNCTIONS(X)                                                                           \
    X(cuInit, "cuInit", (unsigned flags))                                                          \
    X(cuDriverGetVersion, "cuDriverGetVersion", (int *version))                                    \
    X(cuGetErrorName, "cuGetErrorName", (int code, const char **text))                             \
    X(cuGetErrorString, "cuGetErrorString", (int code, const char **text))                         \
    X(cuDeviceGet, "cuDeviceGet", (int *device, int ordinal))                                      \
    X(cuDeviceGetName, "cuDeviceGetName", (char *name, int bytes, int device))                     \
    X(cuDeviceGetAttribute, "cuDeviceGetAttribute", (int *value, int attribute, int device))       \
    X(cuPrimaryRetain, "cuDevicePrimaryCtxRetain", (void **context, int device))                   \
    X(cuPrimaryRelease, "cuDevicePrimaryCtxRelease_v2", (int device))                              \
    X(cuCtxSetCurrent, "cuCtxSetCurrent", (void *context))                                         \
    X(cuMemGetInfo, "cuMemGetInfo_v2", (size_t * free_bytes, size_t * bytes))                      \
    X(cuMemAlloc, "cuMemAlloc_v2", (gpu_address * address, size_t bytes))                          \
    X(cuMemFree, "cuMemFree_v2", (gpu_address address))                                            \
    X(cuCopyIn, "cuMemcpyHtoDAsync_v2",                                                            \
      (gpu_address to, const void *from, size_t bytes, void *stream))                              \
    X(cuCopyOut, "cuMemcpyDtoHAsync_v2", (void *to, gpu_address from, size_t bytes, void *stream)) \
    X(cuStreamCreate, "cuStreamCreate", (void **stream, unsigned flags))                           \
    X(cuStreamDestroy, "cuStreamDestroy_v2", (void *stream))                                       \
    X(cuStreamSynchronize, "cuStreamSynchronize", (void *stream))                                  \
    X(cuStreamBeginCapture, "cuStreamBeginCapture_v2", (void *stream, int mode))                   \
    X(cuStreamEndCapture, "cuStreamEndCapture", (void *stream, void **graph))                      \
    X(cuGraphInstantiate, "cuGraphInstantiateWithFlags",                                           \
      (void **executable, void *graph, unsigned long long flags))                                  \
    X(cuGraphLaunch, "cuGraphLaunch", (void *executable, void *stream))                            \
    X(cuGraphExecDestroy, "cuGraphExecDestroy", (void *executable))                                \
    X(cuGraphDestroy, "cuGraphDestroy", (void *graph))                                             \
    X(cuEventCreate, "cuEventCreate", (void **event, unsigned flags))                              \
    X(cuEventDestroy, "cuEventDestroy_v2", (void *event))                                          \
    X(cuEventRecord, "cuEventRecord", (void *event, void *stream))                                 \
    X(cuEventSynchronize, "cuEventSynchronize", (void *event))                                     \
    X(cuEventElapsedTime, "cuEventElapsedTime", (float *ms, void *start, void *end))               \
    X(cuGranularity, "cuMemGetAllocationGranularity",                                              \
      (size_t * bytes, const struct gpu_allocation *what, int option))                             \
    X(cuReserve, "cuMemAddressReserve",                                                            \
      (gpu_address * address, size_t bytes, size_t align, gpu_address hint,                        \
       unsigned long long flags))                                                                  \
    X(cuUnreserve, "cuMemAddressFree", (gpu_address address, size_t bytes))                        \
    X(cuCreate, "cuMemCreate",                                                                     \
      (uint64_t * handle, size_t bytes, const struct gpu_allocation *what,                         \
       unsigned long long flags))                                                                  \
    X(cuRelease, "cuMemRelease", (uint64_t handle))                                                \
    X(cuMap, "cuMemMap",                                                                           \
      (gpu_address address, size_t bytes, size_t offset, uint64_t handle,                          \
       unsigned long long flags))                                                                  \
    X(cuUnmap, "cuMemUnmap", (gpu_address address, size_t bytes))                                  \
    X(cuSetAccess, "cuMemSetAccess",                                                               \
      (gpu_address address, size_t bytes, const struct gpu_access *access, size_t count))

struct gpu_driver {
#define GPU_MEMBER(name, symbol, arguments) int(*name) arguments;
    GPU_FUNCTIONS(GPU_MEMBER)
#undef GPU_MEMBER
};

#endif
