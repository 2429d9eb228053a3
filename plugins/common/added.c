#include "added.h"

#include "error.h"

attn_status added_check(const attn_binding *b, attn_error *err)
{
    const attn_layer *l = b->layer;
    if (tensor_absent(&l->add_k.weight))
        return attn_fail(err, ATTN_INVALID, "%s: add_k_proj.weight is missing", b->who);
    if (tensor_absent(&l->add_v.weight))
        return attn_fail(err, ATTN_INVALID, "%s: add_v_proj.weight is missing", b->who);
    if (l->group_norm.kind != ATTN_NORM_GROUP)
        return attn_fail(err, ATTN_INVALID, "%s: group_norm is missing%s", b->who,
                         l->spatial_norm.kind == ATTN_NORM_SPATIAL
                             ? ": a layer with added projections has it beside spatial_norm"
                             : ": a layer with added projections has it always");
    if (l->to_out.weight.shape[0] != l->query_dim)
        return attn_fail(err, ATTN_INVALID,
                         "%s: to_out.0.weight has %lld rows, expected the hidden states' %lld",
                         b->who, (long long)l->to_out.weight.shape[0], (long long)l->query_dim);
    return l->flags & ATTN_LAYER_ONLY_CROSS ? ATTN_OK : layer_check_keys(b, err);
}

/* Keys and values of the text alone; of encoder states they are kept. */
static void added_text(struct forward *f, const attn_tensor *picture, attn_tensor *k,
                       attn_tensor *v)
{
    const attn_layer *l = f->layer;
    if (!forward_has_encoder(f)) {
        *k = forward_project(f, picture, &l->add_k);
        *v = forward_project(f, picture, &l->add_v);
        return;
    }
    int64_t length = f->call->encoder.shape[1];
    *k = forward_keep(f, f->batch, length, l->add_k.weight.shape[0]);
    *v = forward_keep(f, f->batch, length, l->add_v.weight.shape[0]);
    if (forward_same(f))
        return;
    uint64_t mark = f->work->used;
    attn_tensor encoder = forward_encoder(f);
    forward_linear(f, &encoder, &l->add_k, k);
    forward_linear(f, &encoder, &l->add_v, v);
    f->work->used = mark;
}

/* [text | linear(x)] along the tokens, without a pass that joins: x is projected into its place. */
static attn_tensor added_join(struct forward *f, const attn_tensor *text, const attn_linear *linear)
{
    int64_t length = text->shape[1];
    attn_tensor all = forward_take(f, f->batch, length + f->tokens, linear->weight.shape[0]);
    if (f->work->status != ATTN_OK)
        return all;
    attn_tensor head = tensor_slice(&all, 1, 0, length);
    attn_tensor tail = tensor_slice(&all, 1, length, f->tokens);
    f->compute->copy(f->work, text, &head);
    forward_linear(f, &f->x, linear, &tail);
    return all;
}

void forward_added(struct forward *f)
{
    const attn_layer *l = f->layer;
    attn_tensor k, v;
    /* Of upstream's four classes one takes temb and norms by it; the others pass it over. */
    if (!tensor_absent(&f->call->temb))
        forward_spatial_norm(f);
    const attn_tensor picture = f->x;
    forward_group_norm(f);
    attn_tensor q = forward_project(f, &f->x, &l->to_q);
    added_text(f, &picture, &k, &v);
    if (!(l->flags & ATTN_LAYER_ONLY_CROSS)) {
        k = added_join(f, &k, &l->to_k);
        v = added_join(f, &v, &l->to_v);
    }
    attn_tensor o = forward_take(f, f->batch, f->tokens, q.shape[2]);
    forward_attend(f, ATTENTION_OWN, &q, &k, &v, &o);
    forward_output(f, &o, &l->to_out, &f->residual, 1.0f);
}
