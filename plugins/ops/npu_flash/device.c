/* device.c: the device's context and memory. */
#include "npu_flash.h"

#include <stdlib.h>

/* aclrtSetDevice counts and changes what the caller's thread is on; a context can be put back. */
attn_status device_enter(const struct attn_op *op, aclrtContext *previous, attn_error *err)
{
    const struct cann *c = op->cann;
    *previous = NULL;
    if (c->aclrtGetCurrentContext(previous) != ACL_SUCCESS)
        *previous = NULL; /* this thread has none yet */
    if (*previous == op->context)
        return ATTN_OK;
    aclError code = c->aclrtSetCurrentContext(op->context);
    return code == ACL_SUCCESS ? ATTN_OK : cann_fail(c, err, code, "aclrtSetCurrentContext");
}

/* A thread that had no context keeps the op's: there is no call that takes one away. */
void device_leave(const struct attn_op *op, aclrtContext previous)
{
    if (previous && previous != op->context)
        (void)op->cann->aclrtSetCurrentContext(previous);
}

attn_status device_alloc(const struct attn_op *op, uint64_t bytes, void **data, attn_error *err)
{
    void *got = NULL;
    aclError code =
        op->cann->aclrtMalloc(&got, bytes ? bytes : ADDRESS_ALIGNMENT, ACL_MEM_MALLOC_HUGE_FIRST);
    if (code != ACL_SUCCESS)
        return cann_fail(op->cann, err, code, "aclrtMalloc");
    *data = got;
    return ATTN_OK;
}

static attn_status band_mask_make(const struct attn_op *op, void **mask, attn_error *err)
{
    const size_t bytes = (size_t)BAND_MASK * BAND_MASK;
    void *device = NULL;
    unsigned char *host = malloc(bytes);
    if (!host)
        return attn_fail(err, ATTN_NOMEM, NAME ": no memory for %zu bytes of a band's mask", bytes);
    for (size_t i = 0; i < BAND_MASK; i++)
        for (size_t j = 0; j < BAND_MASK; j++)
            host[i * BAND_MASK + j] = j > i;
    attn_status status = device_alloc(op, bytes, &device, err);
    if (status == ATTN_OK) {
        aclError code =
            op->cann->aclrtMemcpy(device, bytes, host, bytes, ACL_MEMCPY_HOST_TO_DEVICE);
        if (code != ACL_SUCCESS) {
            status = cann_fail(op->cann, err, code, "aclrtMemcpy");
            (void)op->cann->aclrtFree(device);
        } else {
            *mask = device;
        }
    }
    free(host);
    return status;
}

attn_status device_band_mask(struct attn_op *op, attn_error *err)
{
    attn_status status = ATTN_OK;
    pthread_mutex_lock(&op->lock);
    if (!op->band_mask)
        status = band_mask_make(op, &op->band_mask, err);
    pthread_mutex_unlock(&op->lock);
    return status;
}
