/* cuda_device.h: what plugins for NVIDIA GPUs share: the device of an op, its errors and its memory
 * interface.
 *
 * The CUDA runtime is linked in statically and looks for the driver when it is first called, so
 * that a plugin loads on a machine without one, and create says what is missing.
 */
#ifndef ATTN_COMMON_CUDA_DEVICE_H
#define ATTN_COMMON_CUDA_DEVICE_H

#include "attn_abi.h"
#include "error.h"

#include <cuda_runtime_api.h>
#include <string.h>

/* `what` failed with `code`. Memory that ran out leaves the op usable; a sticky error of the
 * context does not. */
static inline attn_status cuda_fail(attn_error *err, const char *who, const char *what,
                                    cudaError_t code)
{
    attn_status status = code == cudaErrorMemoryAllocation ? ATTN_NOMEM : ATTN_DEVICE;
    (void)cudaGetLastError(); /* a launch error that is not sticky must not be met again */
    if (err && err->size >= sizeof *err)
        err->vendor_code = code;
    return attn_fail(err, status, "%s: %s: %s (%s)", who, what, cudaGetErrorString(code),
                     cudaGetErrorName(code));
}

/* Makes `id` current for this thread; *before is what cuda_leave puts back. */
static inline attn_status cuda_enter(const char *who, int id, int *before, attn_error *err)
{
    cudaError_t code = cudaGetDevice(before);
    if (code == cudaSuccess && *before != id)
        code = cudaSetDevice(id);
    return code == cudaSuccess ? ATTN_OK : cuda_fail(err, who, "making the device current", code);
}

static inline void cuda_leave(int id, int before)
{
    if (before != id)
        (void)cudaSetDevice(before);
}

/* A create's checks: the host table, a CUDA device of that number, no parameters. Writes what the
 * device is. */
static inline attn_status cuda_create_check(const char *who, const attn_host *host,
                                            const attn_device *device, const attn_param *params,
                                            uint32_t n_params, struct cudaDeviceProp *properties,
                                            attn_error *err)
{
    int count = 0;
    if (!host || host->size < sizeof *host)
        return attn_fail(err, ATTN_INVALID,
                         "%s: the host table's size is %u, expected at least %zu", who,
                         host ? host->size : 0, sizeof *host);
    if (device->type != ATTN_DEVICE_CUDA)
        return attn_fail(err, ATTN_UNSUPPORTED, "%s: device type is %d, expected %d (CUDA)", who,
                         device->type, ATTN_DEVICE_CUDA);
    if (n_params)
        return attn_fail(err, ATTN_INVALID, "%s: unknown parameter %s, expected none", who,
                         params[0].name ? params[0].name : "(no name)");
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code != cudaSuccess) {
        (void)cudaGetLastError();
        return attn_fail(err, ATTN_UNSUPPORTED, "%s: no CUDA device: %s (%s)", who,
                         cudaGetErrorString(code), cudaGetErrorName(code));
    }
    if (device->id < 0 || device->id >= count)
        return attn_fail(err, ATTN_UNSUPPORTED, "%s: device %d does not exist, expected 0 to %d",
                         who, device->id, count - 1);
    code = cudaGetDeviceProperties(properties, device->id);
    if (code != cudaSuccess)
        return cuda_fail(err, who, "reading the device's properties", code);
    if (properties->major < 8)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         "%s: %s has compute capability %d.%d, expected at least 8.0", who,
                         properties->name, properties->major, properties->minor);
    return ATTN_OK;
}

/* ---- "attn.memory/1"; the op begins with its device's number ---- */

struct cuda_op_head {
    int device;
};

static attn_status cuda_memory_alloc(attn_op *op, uint64_t bytes, void **data, attn_error *err)
{
    int device = ((struct cuda_op_head *)op)->device, before;
    attn_status status = cuda_enter("cuda memory", device, &before, err);
    if (status != ATTN_OK)
        return status;
    cudaError_t code = cudaMalloc(data, bytes ? bytes : 1);
    cuda_leave(device, before);
    return code == cudaSuccess ? ATTN_OK : cuda_fail(err, "cuda memory", "allocating", code);
}

static void cuda_memory_free(attn_op *op, void *data)
{
    int device = ((struct cuda_op_head *)op)->device, before;
    if (!data || cuda_enter("cuda memory", device, &before, NULL) != ATTN_OK)
        return;
    (void)cudaFree(data);
    cuda_leave(device, before);
}

static inline attn_status cuda_memory_copy(attn_op *op, void *to, const void *from, uint64_t bytes,
                                           enum cudaMemcpyKind kind, void *stream, attn_error *err)
{
    int device = ((struct cuda_op_head *)op)->device, before;
    attn_status status = cuda_enter("cuda memory", device, &before, err);
    if (status != ATTN_OK)
        return status;
    cudaError_t code = cudaMemcpyAsync(to, from, bytes, kind, (cudaStream_t)stream);
    cuda_leave(device, before);
    return code == cudaSuccess ? ATTN_OK : cuda_fail(err, "cuda memory", "copying", code);
}

static attn_status cuda_memory_copy_in(attn_op *op, void *device_data, const void *host_data,
                                       uint64_t bytes, void *stream, attn_error *err)
{
    return cuda_memory_copy(op, device_data, host_data, bytes, cudaMemcpyHostToDevice, stream, err);
}

static attn_status cuda_memory_copy_out(attn_op *op, void *host_data, const void *device_data,
                                        uint64_t bytes, void *stream, attn_error *err)
{
    return cuda_memory_copy(op, host_data, device_data, bytes, cudaMemcpyDeviceToHost, stream, err);
}

static attn_status cuda_memory_synchronize(attn_op *op, void *stream, attn_error *err)
{
    int device = ((struct cuda_op_head *)op)->device, before;
    attn_status status = cuda_enter("cuda memory", device, &before, err);
    if (status != ATTN_OK)
        return status;
    cudaError_t code = cudaStreamSynchronize((cudaStream_t)stream);
    cuda_leave(device, before);
    return code == cudaSuccess ? ATTN_OK
                               : cuda_fail(err, "cuda memory", "waiting for the stream", code);
}

static const attn_memory cuda_memory = {
    .size = sizeof(attn_memory),
    .alloc = cuda_memory_alloc,
    .free = cuda_memory_free,
    .copy_in = cuda_memory_copy_in,
    .copy_out = cuda_memory_copy_out,
    .synchronize = cuda_memory_synchronize,
};

static const void *cuda_query(const char *id)
{
    return strcmp(id, "attn.memory/1") == 0 ? &cuda_memory : NULL;
}

#endif
