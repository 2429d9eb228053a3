/* memory.c: "attn.memory/1": the device's memory for a host that has tensors in its own alone.
 *
 * Host memory that is not page-locked may not be copied asynchronously: a copy first waits for the
 * stream, which is the order that the interface promises, and then copies at once. */
#include "npu_flash.h"

static attn_status memory_alloc(attn_op *op, uint64_t bytes, void **data, attn_error *err)
{
    aclrtContext previous;
    attn_status status = device_enter(op, &previous, err);
    if (status != ATTN_OK)
        return status;
    status = device_alloc(op, bytes, data, err);
    device_leave(op, previous);
    return status;
}

static void memory_free(attn_op *op, void *data)
{
    aclrtContext previous;
    if (!data)
        return;
    (void)device_enter(op, &previous, NULL); /* where that fails, the thread may be on it already */
    (void)op->cann->aclrtFree(data);
    device_leave(op, previous);
}

static attn_status stream_wait(const struct attn_op *op, void *stream, attn_error *err)
{
    aclError code = op->cann->aclrtSynchronizeStream(stream);
    return code == ACL_SUCCESS ? ATTN_OK : cann_fail(op->cann, err, code, "aclrtSynchronizeStream");
}

static attn_status memory_copy(attn_op *op, void *to, const void *from, uint64_t bytes,
                               int32_t kind, void *stream, attn_error *err)
{
    aclrtContext previous;
    if (!bytes)
        return ATTN_OK;
    attn_status status = device_enter(op, &previous, err);
    if (status != ATTN_OK)
        return status;
    status = stream_wait(op, stream, err);
    if (status == ATTN_OK) {
        aclError code = op->cann->aclrtMemcpy(to, bytes, from, bytes, kind);
        if (code != ACL_SUCCESS)
            status = cann_fail(op->cann, err, code, "aclrtMemcpy");
    }
    device_leave(op, previous);
    return status;
}

static attn_status memory_copy_in(attn_op *op, void *device_data, const void *host_data,
                                  uint64_t bytes, void *stream, attn_error *err)
{
    return memory_copy(op, device_data, host_data, bytes, ACL_MEMCPY_HOST_TO_DEVICE, stream, err);
}

static attn_status memory_copy_out(attn_op *op, void *host_data, const void *device_data,
                                   uint64_t bytes, void *stream, attn_error *err)
{
    return memory_copy(op, host_data, device_data, bytes, ACL_MEMCPY_DEVICE_TO_HOST, stream, err);
}

static attn_status memory_synchronize(attn_op *op, void *stream, attn_error *err)
{
    aclrtContext previous;
    attn_status status = device_enter(op, &previous, err);
    if (status != ATTN_OK)
        return status;
    status = stream_wait(op, stream, err);
    device_leave(op, previous);
    return status;
}

const attn_memory npu_memory = {
    .size = sizeof(attn_memory),
    .alloc = memory_alloc,
    .free = memory_free,
    .copy_in = memory_copy_in,
    .copy_out = memory_copy_out,
    .synchronize = memory_synchronize,
};
