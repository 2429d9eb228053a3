/* Weights with low-rank terms added to them: W + sum_i scale_i factor_i up_i down_i, row by row the
 * linear that has down' for its weight. */
#include "lora.h"

#include "tensor.h"

#include <stddef.h>

/* -- merging ----------------------------------------------------------------------------------- */

struct merge {
    struct lora *l;
    const attn_compute *compute;
    attn_work *work;
    char *memory;                     /* NULL in a dry run */
    uint64_t used;                    /* bytes of it */
    attn_tensor merged[LORA_TARGETS]; /* absent where nothing was merged */
};

/* The data of tensors that are written or read as activations is hidden from a dry run. */
static attn_tensor merge_view(const struct merge *m, const attn_tensor *t)
{
    attn_tensor view = *t;
    if (m->work->flags & ATTN_WORK_DRY)
        view.data = NULL;
    return view;
}

/* down as the weight [in, rank] of a linear that takes up's rows to rows of the weight. */
static attn_linear merge_linear(const attn_tensor *down)
{
    attn_linear l = {.weight = *down};
    l.weight.shape[0] = down->shape[1];
    l.weight.shape[1] = down->shape[0];
    l.weight.stride[0] = down->stride[1];
    l.weight.stride[1] = down->stride[0];
    return l;
}

/* A contiguous tensor of weight's shape at `data`. */
static attn_tensor merge_like(const attn_tensor *weight, void *data)
{
    attn_tensor t = *weight;
    t.data = data;
    t.align = 256;
    tensor_pack_strides(&t);
    return t;
}

/* merged = weight + sum of its own terms, the sum in fp32 scratch. */
static void merge_target(struct merge *m, const attn_linear *linear, attn_tensor *merged)
{
    attn_work *work = m->work;
    const int dry = (work->flags & ATTN_WORK_DRY) != 0;
    const uint64_t mark = work->used, at = (mark + 255u) & ~UINT64_C(255);
    attn_tensor sum = merge_like(&linear->weight, NULL);
    sum.code = ATTN_CODE_FLOAT;
    sum.bits = 32;
    const uint64_t count = (uint64_t)(sum.shape[0] * sum.shape[1]);
    work->used = at + count * 4;
    if (work->used > work->peak)
        work->peak = work->used;
    if (!dry)
        sum.data = (void *)(uintptr_t)(work->base + at); /* NOLINT: an address by contract */
    attn_tensor weight = merge_view(m, &linear->weight);
    m->compute->copy(work, &weight, &sum);
    float scales[LORA_SLOTS];
    (void)lora_scales(m->l, NULL, 0, scales, "", NULL); /* those of bind: checked then */
    for (uint32_t i = 0; i < linear->n_terms; i++) {
        const attn_term *t = &linear->terms[i];
        attn_tensor up = merge_view(m, &t->up);
        attn_linear down = merge_linear(&t->down);
        m->compute->linear(work, t->factor * scales[t->slot], &up, &down, 1.0f, &sum, &sum);
    }
    *merged = merge_like(&linear->weight, m->memory ? m->memory + m->used : NULL);
    m->compute->copy(work, &sum, merged);
    m->used += (count * (merged->bits / 8) + 255u) & ~UINT64_C(255);
    work->used = mark;
}

static attn_status merge_run(struct merge *m)
{
    m->used = 0;
    for (int t = 0; t < LORA_TARGETS; t++) {
        const attn_linear *linear = lora_linear(&m->l->layer, t);
        if (linear->n_terms)
            merge_target(m, linear, &m->merged[t]);
    }
    return m->work->status;
}

/* Puts the merged weights into the layer, and takes the terms from it that are in them now. */
static void merge_install(const struct merge *m)
{
    for (int t = 0; t < LORA_TARGETS; t++) {
        attn_linear *linear = lora_linear(&m->l->layer, t);
        if (!m->merged[t].rank)
            continue;
        linear->weight = m->merged[t];
        linear->terms = NULL;
        linear->n_terms = 0;
    }
}

attn_status lora_merge(struct lora *l, const attn_compute *compute, attn_work *work, void **memory,
                       attn_error *err)
{
    attn_work dry = *work, real = *work;
    struct merge m = {.l = l, .compute = compute, .work = &dry};
    void *arena = NULL;
    dry.flags |= ATTN_WORK_DRY;
    dry.base = dry.capacity = dry.used = dry.peak = 0;
    dry.err = real.err = err;
    attn_status status = merge_run(&m);
    if (status != ATTN_OK || m.used == 0)
        return status;
    status = compute->alloc(compute->ctx, m.used, memory, err);
    if (status == ATTN_OK)
        status = compute->alloc(compute->ctx, dry.peak, &arena, err);
    if (status != ATTN_OK)
        goto done;
    real.base = (uint64_t)(uintptr_t)arena;
    real.capacity = dry.peak;
    real.used = real.peak = 0;
    m.work = &real;
    m.memory = *memory;
    status = merge_run(&m);
    if (status == ATTN_OK)
        merge_install(&m);
done:
    compute->free(compute->ctx, arena);
    if (status != ATTN_OK) {
        compute->free(compute->ctx, *memory);
        *memory = NULL;
    }
    return status;
}
