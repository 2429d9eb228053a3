/* cuda_math: the reference for NVIDIA GPUs: plain loops with double sums, any call of the contract.
 *
 *   cuda_math.c           this file: the op
 *   cuda_math_problem.h   which calls fit its grids
 *   cuda_math_kernels.cu  its two kernels
 *   ../cuda_flash         flash_problem.h: a call as kernels see it
 *
 * Check: tools/check-gpu build.
 */
#include "attn_abi.h"
#include "cuda_device.h"
#include "cuda_math_kernels.h"
#include "cuda_math_problem.h"

#include <stdlib.h>

#define NAME "cuda_math"

struct attn_op {
    struct cuda_op_head head; /* first: cuda_device.h reads it */
};

struct attn_op_plan {
    const struct attn_op *op;
    struct op_shape shape;
    uint64_t scratch;
};

static attn_status op_create(const attn_host *host, const attn_device *device,
                             const attn_param *params, uint32_t n_params, attn_op **op,
                             attn_error *err)
{
    struct cudaDeviceProp properties;
    attn_status status = cuda_create_check(NAME, host, device, params, n_params, &properties, err);
    if (status != ATTN_OK)
        return status;
    struct attn_op *made = malloc(sizeof *made);
    if (!made)
        return attn_fail(err, ATTN_NOMEM, NAME ": no memory for %zu bytes", sizeof *made);
    made->head.device = device->id;
    *op = made;
    return ATTN_OK;
}

static void op_destroy(attn_op *op)
{
    free(op);
}

static attn_status op_check(const struct attn_op *op, const attn_op_call *call,
                            struct op_shape *shape, flash_problem *p, attn_error *err)
{
    attn_status status = op_call_check(NAME, call, shape, err);
    if (status == ATTN_OK &&
        (call->q.device_type != ATTN_DEVICE_CUDA || call->q.device_id != op->head.device))
        status =
            attn_fail(err, ATTN_UNSUPPORTED, NAME ": tensors are on device %d:%d, expected %d:%d",
                      call->q.device_type, call->q.device_id, ATTN_DEVICE_CUDA, op->head.device);
    if (status == ATTN_OK)
        status = cuda_math_problem_of(NAME, call, shape, p, err);
    return status;
}

static attn_status op_supports(attn_op *op, const attn_op_call *call, attn_error *err)
{
    struct op_shape shape;
    flash_problem p;
    return op_check(op, call, &shape, &p, err);
}

static attn_status op_prepare(attn_op *op, const attn_op_call *call, attn_op_plan **plan,
                              uint64_t *scratch, attn_error *err)
{
    struct op_shape shape;
    flash_problem p;
    attn_status status = op_check(op, call, &shape, &p, err);
    if (status != ATTN_OK)
        return status;
    struct attn_op_plan *made = malloc(sizeof *made);
    if (!made)
        return attn_fail(err, ATTN_NOMEM, NAME ": no memory for %zu bytes", sizeof *made);
    made->op = op;
    made->shape = shape;
    made->scratch = (uint64_t)(shape.batch * shape.heads * shape.nq) * sizeof(double);
    *scratch = made->scratch;
    *plan = made;
    return ATTN_OK;
}

static attn_status op_run(attn_op_plan *plan, const attn_op_call *call, attn_error *err)
{
    flash_problem p;
    int device = plan->op->head.device, before;
    attn_status status = op_run_check(NAME, call, plan->scratch, err);
    if (status == ATTN_OK)
        status = cuda_math_problem_of(NAME, call, &plan->shape, &p, err);
    if (status == ATTN_OK)
        status = cuda_enter(NAME, device, &before, err);
    if (status != ATTN_OK)
        return status;
    p.scratch = call->scratch;
    cudaError_t code = (cudaError_t)cuda_math_launch(&p, call->stream);
    cuda_leave(device, before);
    return code == cudaSuccess ? ATTN_OK : cuda_fail(err, NAME, "launching a kernel", code);
}

static void op_release(attn_op_plan *plan)
{
    free(plan);
}

ATTN_EXPORT const attn_op_api attn_op_v1 = {
    .head =
        {
            .magic = ATTN_MAGIC,
            .abi = ATTN_ABI,
            .size = sizeof(attn_op_api),
            .flags = ATTN_HEAD_CAPTURABLE,
            .devices = UINT64_C(1) << ATTN_DEVICE_CUDA,
            .dtypes = ATTN_DTYPE_F32 | ATTN_DTYPE_F16 | ATTN_DTYPE_BF16,
            .id = "org.attnplug.cuda_math",
            .version = ATTNPLUG_VERSION,
            .vendor = "attnplug",
            .summary = "the reference on NVIDIA GPUs: plain loops, double sums",
        },
    .create = op_create,
    .destroy = op_destroy,
    .supports = op_supports,
    .prepare = op_prepare,
    .run = op_run,
    .release = op_release,
    .query = cuda_query,
};
