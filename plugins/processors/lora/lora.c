/* lora: diffusers' LoRAAttnProcessor (v0.26.3 src/diffusers/models/attention_processor.py,
 * lora.py): a layer whose linears have low-rank terms,
 *
 *   to_x(x) = x W' + b + sum_i scale_i alpha_i / rank_i (x down_i') up_i'
 *
 * For engines that hold an adapter's weights as parameters of bind: it makes terms of them and
 * runs the layer, with added projections where it has them.  (Through libattnsag any processor
 * takes LoRA as "lora+<processor>": terms.c reads the terms for it.)  With merged=1 the terms are
 * added to copies of the weights instead; unbind drops the copies.
 *
 * Check: meson test processors       Time: meson test --benchmark processors
 */
#include "lora.h"

#include "added.h"
#include "terms.h"

struct lora_state {
    struct lora lora;
    void *merged; /* weights with the terms in them */
};

static attn_status lora_bind(attn_binding *b, const attn_param *params, uint32_t n, attn_work *work,
                             attn_error *err)
{
    struct lora_state *s = b->state;
    attn_status status = lora_read(&s->lora, b->layer, params, n, b->who, err);
    if (status != ATTN_OK)
        return status;
    b->layer = &s->lora.layer;
    status =
        tensor_absent(&b->layer->add_k.weight) ? layer_check_keys(b, err) : added_check(b, err);
    if (status == ATTN_OK && s->lora.merged)
        status = lora_merge(&s->lora, b->processor->compute, work, &s->merged, err);
    return status;
}

static void lora_unbind(attn_binding *b)
{
    const attn_compute *compute = b->processor->compute;
    struct lora_state *s = b->state;
    if (s->merged)
        compute->free(compute->ctx, s->merged);
    lora_free(&s->lora);
}

static void lora_forward(struct forward *f)
{
    const struct lora_state *s = f->binding->state;
    const struct lora *l = &s->lora;
    const attn_layer_call *call = f->call;
    attn_work *work = f->work;
    const float *given = work->scales;
    const uint32_t n_given = work->n_scales;
    float scales[LORA_SLOTS];
    work->status = lora_scales(l, call->params, call->n_params, scales, f->binding->who, work->err);
    if (work->status == ATTN_OK && s->merged)
        work->status =
            lora_merged_check(l, call->params, call->n_params, f->binding->who, work->err);
    if (work->status != ATTN_OK)
        return;
    work->scales = scales;
    work->n_scales = l->n_adapters;
    if (tensor_absent(&f->layer->add_k.weight))
        forward_standard(f);
    else
        forward_added(f);
    work->scales = given;
    work->n_scales = n_given;
}

const struct processor_kind processor_kind = {
    .name = "lora",
    .params = &lora_params,
    .state_bytes = sizeof(struct lora_state),
    .bind = lora_bind,
    .unbind = lora_unbind,
    .forward = lora_forward,
    .query = terms_query,
};

PROCESSOR_EXPORT("lora", 0,
                 "diffusers' LoRAAttnProcessor: low-rank terms from weights given at bind");
