/* plan.c: prepare, run and release. */
#include "npu_flash.h"

#include <stdlib.h>
#include <string.h>

/* Room for n elements of `size` bytes; 0 where that overflows. */
static int region_take(struct regions *r, uint64_t *offset, const int64_t shape[4], int64_t size)
{
    int64_t bytes = size;
    *offset = r->total;
    for (int i = 0; i < 4; i++)
        if (__builtin_mul_overflow(bytes, shape[i], &bytes))
            return 0;
    uint64_t rounded = ((uint64_t)bytes + REGION_ALIGNMENT - 1) & ~(uint64_t)(REGION_ALIGNMENT - 1);
    return !__builtin_add_overflow(r->total, rounded, &r->total);
}

static attn_status regions_take(struct attn_op_plan *plan, const attn_op_call *call,
                                attn_error *err)
{
    const struct npu_call *n = &plan->call;
    const struct op_shape *s = &n->shape;
    struct regions *r = &plan->regions;
    const int64_t softmax[4] = {s->batch, s->heads, s->nq, SOFTMAX_COLUMNS};
    const int64_t rows[4] = {s->batch, s->heads, s->nq, 1};
    const int64_t bias[4] = {n->bias_batch, s->heads, s->nq, s->nk};
    const int64_t mask[4] = {n->mask_batch, n->mask_heads, s->nq, s->nk};
    int fits = region_take(r, &r->max, softmax, 4) && region_take(r, &r->sum, softmax, 4);
    if (call->bias.rank)
        fits = fits && region_take(r, &r->bias, bias, call->bias.bits / 8);
    if (call->mask.rank)
        fits = fits && region_take(r, &r->mask, mask, 1);
    if (call->lse.rank)
        fits = fits && region_take(r, &r->log, rows, 4);
    if (call->lse.rank && n->hidden_rows)
        fits = fits && region_take(r, &r->tmp, rows, 4);
    r->workspace = r->total;
    return fits ? ATTN_OK
                : attn_fail(err, ATTN_UNSUPPORTED,
                            NAME ": scratch for %lld by %lld by %lld by %lld overflows",
                            (long long)s->batch, (long long)s->heads, (long long)s->nq,
                            (long long)s->nk);
}

/* Phase one of every step, for the workspace; its executors hold no address of the call. */
static attn_status plan_size(struct attn_op_plan *plan, const attn_op_call *call, attn_error *err)
{
    aclrtContext previous;
    struct walk w = {.plan = plan, .call = call, .dry = 1, .err = err};
    attn_status status = device_enter(plan->op, &previous, err);
    if (status != ATTN_OK)
        return status;
    if (plan->call.band)
        status = device_band_mask(plan->op, err);
    if (status == ATTN_OK)
        status = walk_steps(&w);
    device_leave(plan->op, previous);
    plan->regions.workspace_bytes = w.workspace_bytes;
    plan->regions.total += w.workspace_bytes;
    return status;
}

attn_status plan_prepare(attn_op *op, const attn_op_call *call, attn_op_plan **plan,
                         uint64_t *scratch, attn_error *err)
{
    struct npu_call read;
    attn_status status = call_read(op, call, &read, err);
    if (status != ATTN_OK)
        return status;
    struct attn_op_plan *made = calloc(1, sizeof *made);
    if (!made)
        return attn_fail(err, ATTN_NOMEM, NAME ": no memory for %zu bytes", sizeof *made);
    made->op = op;
    made->call = read;
    if (!read.nothing)
        status = regions_take(made, call, err);
    if (status == ATTN_OK && !read.nothing)
        status = plan_size(made, call, err);
    if (status != ATTN_OK) {
        free(made);
        return status;
    }
    *scratch = made->regions.total;
    *plan = made;
    return ATTN_OK;
}

attn_status plan_run(attn_op_plan *plan, const attn_op_call *call, attn_error *err)
{
    aclrtContext previous;
    struct walk w = {.plan = plan, .call = call, .err = err};
    attn_status status = op_run_check(NAME, call, plan->regions.total, err);
    if (status != ATTN_OK || plan->call.nothing)
        return status;
    status = device_enter(plan->op, &previous, err);
    if (status != ATTN_OK)
        return status;
    status = walk_steps(&w);
    device_leave(plan->op, previous);
    return status;
}

void plan_release(attn_op_plan *plan)
{
    free(plan);
}
