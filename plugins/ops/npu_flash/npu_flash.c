/* npu_flash: flash attention on Huawei's Ascend NPUs, through the C calls of CANN.
 *
 * What diffusers calls AttnProcessorNPU (v0.28.0, src/diffusers/models/attention_processor.py),
 * whose torch_npu.npu_fusion_attention ends in aclnnFlashAttentionScore.  Tensors are the device's,
 * work is queued on the caller's aclrtStream.  CANN is found when an op is created, not when the
 * file is loaded: without it create says which library is missing and where it was sought.
 *
 *   npu_flash.c    this file: create, destroy, the table
 *   check.c        which calls it takes
 *   plan.c         prepare and run: one walk over the steps, dry and real
 *   steps.c        the steps of a call: bias, mask, attention, lse
 *   score.c        the attention call in the variants that releases have
 *   launch.c       the two phases of an operator, and whose the executor is
 *   describe.c     tensors as CANN's descriptors
 *   device.c       context and memory        memory.c    attn.memory/1
 *   cann_abi.h     the calls as prototypes   cann_load.c  finding them   cann_status.c  their codes
 *   ../../common   op_call.h (what a call must look like)
 *
 * Check: meson test -C build npu      On hardware: meson test -C build npu-hw
 */
#include "npu_flash.h"

#include <stdlib.h>
#include <string.h>

static attn_status arguments_check(const attn_host *host, const attn_device *device,
                                   const attn_param *params, uint32_t n_params, attn_error *err)
{
    if (!host || host->size < sizeof *host)
        return attn_fail(err, ATTN_INVALID, NAME ": the host table's size is %u, expected %zu",
                         host ? host->size : 0, sizeof *host);
    if (device->type != ATTN_DEVICE_EXT ||
        (device->runtime[0] && strncmp(device->runtime, "cann", sizeof device->runtime) != 0))
        return attn_fail(err, ATTN_UNSUPPORTED,
                         NAME ": device type is %d (%.23s), expected %d (cann)", device->type,
                         device->runtime, ATTN_DEVICE_EXT);
    if (n_params)
        return attn_fail(err, ATTN_INVALID, NAME ": unknown parameter %s, expected none",
                         params[0].name ? params[0].name : "(no name)");
    return ATTN_OK;
}

/* Each aclInit is counted, the repeated ones too. */
static attn_status runtime_begin(const struct cann *c, attn_error *err)
{
    aclError code = c->aclInit(NULL);
    return code == ACL_SUCCESS || code == ACL_ERROR_REPEAT_INITIALIZE
               ? ATTN_OK
               : cann_fail(c, err, code, "aclInit");
}

static void runtime_end(const struct cann *c)
{
    if (c->aclFinalizeReference)
        (void)c->aclFinalizeReference(NULL);
}

/* A device that is not there is no fault of the plugin's. */
static attn_status device_begin(struct attn_op *op, attn_error *err)
{
    const struct cann *c = op->cann;
    aclError code = c->aclrtSetDevice(op->device);
    if (code == ACL_SUCCESS)
        return ATTN_OK;
    attn_status status = cann_fail(c, err, code, "aclrtSetDevice");
    return code == ACL_ERROR_RT_INVALID_DEVICEID ? ATTN_UNSUPPORTED : status;
}

static attn_status context_begin(struct attn_op *op, attn_error *err)
{
    aclError code = op->cann->aclrtGetCurrentContext(&op->context);
    if (code != ACL_SUCCESS)
        return cann_fail(op->cann, err, code, "aclrtGetCurrentContext");
    return device_alloc(op, ADDRESS_ALIGNMENT, &op->anchor, err);
}

/* The op's device and what it holds there; undone in reverse where a part fails. */
static attn_status op_begin(struct attn_op *op, attn_error *err)
{
    const struct cann *c = op->cann;
    aclrtContext previous = NULL;
    attn_status status = runtime_begin(c, err);
    if (status != ATTN_OK)
        return status;
    if (c->aclrtGetCurrentContext(&previous) != ACL_SUCCESS)
        previous = NULL;
    status = device_begin(op, err);
    if (status == ATTN_OK) {
        status = context_begin(op, err);
        if (previous)
            device_leave(op, previous);
        if (status != ATTN_OK)
            (void)c->aclrtResetDevice(op->device);
    }
    if (status != ATTN_OK)
        runtime_end(c);
    return status;
}

static attn_status op_create(const attn_host *host, const attn_device *device,
                             const attn_param *params, uint32_t n_params, attn_op **op,
                             attn_error *err)
{
    const struct cann *cann = NULL;
    attn_status status = arguments_check(host, device, params, n_params, err);
    if (status == ATTN_OK)
        status = cann_load(&cann, err);
    if (status != ATTN_OK)
        return status;
    struct attn_op *made = calloc(1, sizeof *made);
    if (!made)
        return attn_fail(err, ATTN_NOMEM, NAME ": no memory for %zu bytes", sizeof *made);
    made->cann = cann;
    made->device = device->id;
    pthread_mutex_init(&made->lock, NULL);
    status = op_begin(made, err);
    if (status == ATTN_OK) {
        *op = made;
    } else {
        pthread_mutex_destroy(&made->lock);
        free(made);
    }
    return status;
}

static void op_destroy(attn_op *op)
{
    aclrtContext previous = NULL;
    if (!op)
        return;
    const struct cann *c = op->cann;
    (void)device_enter(op, &previous, NULL);
    if (op->band_mask)
        (void)c->aclrtFree(op->band_mask);
    (void)c->aclrtFree(op->anchor);
    (void)c->aclrtResetDevice(op->device);
    device_leave(op, previous);
    runtime_end(c);
    pthread_mutex_destroy(&op->lock);
    free(op);
}

static attn_status op_supports(attn_op *op, const attn_op_call *call, attn_error *err)
{
    struct npu_call read;
    return call_read(op, call, &read, err);
}

static const void *op_query(const char *id)
{
    return strcmp(id, "attn.memory/1") == 0 ? &npu_memory : NULL;
}

ATTN_EXPORT const attn_op_api attn_op_v1 = {
    .head =
        {
            .magic = ATTN_MAGIC,
            .abi = ATTN_ABI,
            .size = sizeof(attn_op_api),
            .devices = UINT64_C(1) << ATTN_DEVICE_EXT,
            .dtypes = ATTN_DTYPE_F16 | ATTN_DTYPE_BF16,
            .id = "org.attnplug.npu_flash",
            .version = ATTNPLUG_VERSION,
            .vendor = "attnplug, for Huawei Ascend",
            .summary = "flash attention on Ascend NPUs through CANN, found at run time",
        },
    .create = op_create,
    .destroy = op_destroy,
    .supports = op_supports,
    .prepare = plan_prepare,
    .run = plan_run,
    .release = plan_release,
    .query = op_query,
};
