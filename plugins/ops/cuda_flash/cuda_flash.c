/* cuda_flash: exact attention for NVIDIA GPUs in fp16, bf16 and fp32, without a score matrix in
 * memory.
 *
 * Hopper (compute capability 9.0) has kernel families of its own for fp16 and bf16; every other
 * chip from 8.0 on, and every call that those do not take (bias, mask, probabilities, odd strides),
 * is served by the generic one; fp32 by a third on every chip.
 *
 *   cuda_flash.c        this file: the op
 *   flash_select.c      which kernels serve a call
 *   flash_kernel.h      what a kernel is told
 *   sm90_long.cuh       Hopper, long key sequences: a producer warpgroup, wgmma, online softmax;
 *                       with its parts sm90_long_feed, _softmax and _stream; sm90_band_table.cuh:
 *                       the same under a causal mask or a window
 *   sm90_mass.cuh       its second pass, for column sums
 *   sm90_wide.cuh       Hopper, head dimensions up to 512
 *   sm90_short.cuh      Hopper, up to 256 keys: a row in registers, column sums in the same pass;
 *                       with its parts sm90_short_shape, _mass and _store
 *   sm90_common.cuh     Hopper's building blocks; sm90_wgmma.cuh its matrix instructions
 *   tile_map.cuh        tensor maps of q, k and v
 *   generic_mma.cuh     fp16 and bf16 through mma.sync, any call; a second pass for column sums
 *                       and probabilities
 *   split_f32.cuh       fp32 on the tensor cores, any call: how operands become parts. A pass of
 * its own does that to keys and values (split_stage.cuh, flash_split.h), the kernels
 * (split_attention.cuh) multiply parts (split_products, _softmax and _tile); what fp16's few
 * magnitudes cannot hold goes to split_again.cuh
 *
 * Check: meson test -C build ops (selection and refusals, no GPU needed); tools/check-gpu build
 * (all of it, on a GPU). Time: tools/python/bench_peers.py build.
 */
#include "attn_abi.h"
#include "cuda_device.h"
#include "flash_launch.h"
#include "flash_problem.h"

#include <stdlib.h>

#define NAME "cuda_flash"

struct attn_op {
    struct cuda_op_head head; /* first: cuda_device.h reads it */
    int hopper;
    flash_device device;
};

struct attn_op_plan {
    const struct attn_op *op;
    struct op_shape shape;
    uint64_t scratch;
};

static attn_status kernels_ready(const flash_entry *entries, int count, attn_error *err)
{
    for (int i = 0; i < count; i++) {
        cudaError_t code = entries[i].ready();
        if (code != cudaSuccess)
            return cuda_fail(err, NAME, "setting a kernel's shared-memory limit", code);
    }
    return ATTN_OK;
}

static attn_status all_ready(int hopper, attn_error *err)
{
    const struct {
        const flash_entry *entries;
        int count, hopper;
    } tables[] = {
        {flash_generic_f16, FLASH_GENERIC_COUNT, 0},
        {flash_generic_bf16, FLASH_GENERIC_COUNT, 0},
        {flash_second_f16, FLASH_GENERIC_COUNT, 0},
        {flash_second_bf16, FLASH_GENERIC_COUNT, 0},
        {flash_plain, FLASH_PLAIN_COUNT, 0},
        {flash_split, FLASH_SPLIT_COUNT, 0},
        {flash_split_mass, FLASH_SPLIT_COUNT, 0},
        {flash_long_f16, FLASH_LONG_COUNT, 1},
        {flash_long_bf16, FLASH_LONG_COUNT, 1},
        {flash_band_f16, FLASH_BAND_COUNT, 1},
        {flash_band_bf16, FLASH_BAND_COUNT, 1},
        {flash_mass_f16, FLASH_MASS_COUNT, 1},
        {flash_mass_bf16, FLASH_MASS_COUNT, 1},
        {flash_short_f16[0], FLASH_SHORT_SETS * FLASH_SHORT_COUNT, 1},
        {flash_short_bf16[0], FLASH_SHORT_SETS * FLASH_SHORT_COUNT, 1},
    };
    attn_status status = ATTN_OK;
    for (unsigned i = 0; i < sizeof tables / sizeof tables[0] && status == ATTN_OK; i++)
        if (!tables[i].hopper || hopper)
            status = kernels_ready(tables[i].entries, tables[i].count, err);
    return status;
}

static attn_status op_create(const attn_host *host, const attn_device *device,
                             const attn_param *params, uint32_t n_params, attn_op **op,
                             attn_error *err)
{
    struct cudaDeviceProp properties;
    int before;
    attn_status status = cuda_create_check(NAME, host, device, params, n_params, &properties, err);
    if (status != ATTN_OK)
        return status;
    struct attn_op *made = calloc(1, sizeof *made);
    if (!made)
        return attn_fail(err, ATTN_NOMEM, NAME ": no memory for %zu bytes", sizeof *made);
    made->head.device = device->id;
    made->hopper = properties.major == 9 && properties.minor == 0;
    made->device.sms = properties.multiProcessorCount;
    made->device.hopper = made->hopper;
    made->device.smem = (int)properties.sharedMemPerBlockOptin;
    status = cuda_enter(NAME, device->id, &before, err);
    if (status == ATTN_OK) {
        enum cudaDriverEntryPointQueryResult found;
        if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &made->device.encode, 12000,
                                             cudaEnableDefault, &found) != cudaSuccess ||
            found != cudaDriverEntryPointSuccess) {
            (void)cudaGetLastError();
            made->device.encode = NULL; /* a driver before 12.0: the generic kernels serve */
        }
        status = all_ready(made->hopper, err);
        cuda_leave(device->id, before);
    }
    if (status == ATTN_OK)
        *op = made;
    else
        free(made);
    return status;
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
        status = flash_problem_of(NAME, call, shape, p, err);
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
    *made =
        (struct attn_op_plan){.op = op, .shape = shape, .scratch = flash_scratch(&p, op->hopper)};
    *scratch = made->scratch;
    *plan = made;
    return ATTN_OK;
}

static int is_aligned(const flash_problem *p)
{
    return (((uintptr_t)p->q.data | (uintptr_t)p->k.data | (uintptr_t)p->v.data |
             (uintptr_t)p->out.data) &
            15) == 0;
}

static const flash_entry *first_kernel(const flash_problem *p, const flash_choice *c)
{
    const int bf16 = p->dtype == FLASH_BF16;
    if (c->family == FLASH_LONG)
        return bf16 ? &flash_long_bf16[c->index] : &flash_long_f16[c->index];
    if (c->family == FLASH_BAND)
        return bf16 ? &flash_band_bf16[c->index] : &flash_band_f16[c->index];
    if (c->family == FLASH_SHORT)
        return bf16 ? &flash_short_bf16[c->set][c->index] : &flash_short_f16[c->set][c->index];
    if (c->family == FLASH_SPLIT)
        return &flash_split[c->index];
    if (c->family == FLASH_PLAIN)
        return &flash_plain[c->index];
    return bf16 ? &flash_generic_bf16[c->index] : &flash_generic_f16[c->index];
}

static const flash_entry *second_kernel(const flash_problem *p, int mass)
{
    if (p->dtype == FLASH_F32)
        return &flash_split_mass[mass];
    if (mass >= 0)
        return p->dtype == FLASH_BF16 ? &flash_mass_bf16[mass] : &flash_mass_f16[mass];
    const int index = p->d <= 64 ? 0 : p->d <= 128 ? 1 : p->d <= 256 ? 2 : 3;
    return p->dtype == FLASH_BF16 ? &flash_second_bf16[index] : &flash_second_f16[index];
}

/* Scratch: what the second pass reads of each row (in fp32 shift and sum, else the log-sum-exp if
 * the caller wants none), then the partial column sums. */
static void lay_out_scratch(flash_problem *p, const flash_choice *c, void *scratch)
{
    if (c->lse_bytes && p->dtype == FLASH_F32) {
        p->stats = scratch;
    } else if (c->lse_bytes) {
        p->lse.data = scratch;
        p->lse.row = 1;
        p->lse.head = p->nq;
        p->lse.batch = (int64_t)p->h * p->nq;
    }
    p->scratch = c->mass_bytes ? (char *)scratch + c->lse_bytes : NULL;
    if (c->staged_bytes)
        p->staged = (char *)scratch + c->lse_bytes + (c->mass_bytes + 255) / 256 * 256;
}

static cudaError_t launch_all(const struct attn_op *op, flash_problem p, void *scratch,
                              void *stream)
{
    int aligned = is_aligned(&p), code;
    const flash_problem asked = p;
    flash_choice choice = flash_select(&p, op->hopper, aligned);
    if (choice.family == FLASH_NOTHING)
        return p.key_mass.data && p.b > 0 && p.nk > 0 ? (cudaError_t)flash_zero_mass(&p, stream)
                                                      : cudaSuccess;
    lay_out_scratch(&p, &choice, scratch);
    code = first_kernel(&p, &choice)->launch(&p, &op->device, stream);
    if (code == FLASH_NO_MAP) { /* strides that no tensor map takes */
        p = asked;
        choice = flash_select(&p, op->hopper, 0);
        lay_out_scratch(&p, &choice, scratch);
        code = first_kernel(&p, &choice)->launch(&p, &op->device, stream);
    }
    if (code == cudaSuccess && choice.second_pass)
        code = second_kernel(&p, choice.mass)->launch(&p, &op->device, stream);
    if (code == FLASH_NO_MAP)
        code = second_kernel(&p, -1)->launch(&p, &op->device, stream);
    if (code == cudaSuccess && choice.mass_parts)
        code = flash_mass_mean(&p, choice.mass_parts, op->hopper, stream);
    return (cudaError_t)code;
}

static attn_status op_run(attn_op_plan *plan, const attn_op_call *call, attn_error *err)
{
    const struct attn_op *op = plan->op;
    flash_problem p;
    int before;
    attn_status status = op_run_check(NAME, call, plan->scratch, err);
    if (status == ATTN_OK)
        status = flash_problem_of(NAME, call, &plan->shape, &p, err);
    if (status == ATTN_OK)
        status = cuda_enter(NAME, op->head.device, &before, err);
    if (status != ATTN_OK)
        return status;
    cudaError_t code = launch_all(op, p, call->scratch, call->stream);
    cuda_leave(op->head.device, before);
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
            .id = "org.attnplug.cuda_flash",
            .version = ATTNPLUG_VERSION,
            .vendor = "attnplug",
            .summary =
                "NVIDIA GPUs: exact, no score matrix; Hopper kernels and a path for 8.0 and newer",
        },
    .create = op_create,
    .destroy = op_destroy,
    .supports = op_supports,
    .prepare = op_prepare,
    .run = op_run,
    .release = op_release,
    .query = cuda_query,
};
