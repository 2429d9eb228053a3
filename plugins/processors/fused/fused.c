/* fused: diffusers' FusedAttnProcessor2_0 (v0.26.3 src/diffusers/models/attention_processor.py):
 * the plain layer with its projections packed into one.
 *
 *   self:   [q | k | v] = x [Wq | Wk | Wv]' + [bq | bk | bv]       one pass over x, not three
 *   cross:  [k | v]     = e [Wk | Wv]' + [bk | bv]                 one pass over e, not two
 *
 * Weights are packed at bind; the op reads q, k and v where they lie, as slices.
 *
 * Check: meson test processors       Time: meson test --benchmark processors
 */
#include "error.h"
#include "forward.h"

struct fused {
    void *weights;   /* device memory, the biases behind them */
    attn_linear qkv; /* absent where keys are made of other channels than queries */
    attn_linear kv;
};

/* -- packing ----------------------------------------------------------------------------------- */

static attn_status fused_check(const attn_binding *b, attn_error *err)
{
    const attn_layer *l = b->layer;
    const attn_linear *const all[] = {&l->to_q, &l->to_k, &l->to_v, &l->to_out};
    if (!tensor_absent(&l->add_k.weight))
        return attn_fail(err, ATTN_UNSUPPORTED,
                         "%s: add_k_proj is there; layers with added projections are not fused",
                         b->who);
    for (int i = 0; i < 4; i++)
        if (all[i]->n_terms)
            return attn_fail(err, ATTN_UNSUPPORTED,
                             "%s: low-rank terms cannot be packed; merge them, or use standard",
                             b->who);
    attn_status status = layer_check_keys(b, err);
    if (status == ATTN_OK && (!tensor_same_type(&l->to_k.weight, &l->to_v.weight) ||
                              !tensor_same_type(&l->to_q.weight, &l->to_k.weight)))
        status = attn_fail(err, ATTN_UNSUPPORTED, "%s: to_q, to_k and to_v differ in element type",
                           b->who);
    return status;
}

/* A contiguous tensor like `like`, without data. */
static attn_tensor packed_tensor(const attn_tensor *like, uint32_t rank, int64_t rows,
                                 int64_t columns)
{
    attn_tensor t = *like;
    t.data = NULL;
    t.rank = rank;
    t.align = 256;
    t.shape[0] = rows;
    t.shape[1] = columns;
    tensor_pack_strides(&t);
    return t;
}

/* Copies the linears' rows below each other; biases that are absent count as zeros. */
static void fused_copy(const attn_compute *compute, attn_work *work,
                       const attn_linear *const *parts, int n, const attn_linear *packed)
{
    int64_t row = 0;
    for (int i = 0; i < n; i++) {
        int64_t rows = parts[i]->weight.shape[0];
        attn_tensor weight = tensor_slice(&packed->weight, 0, row, rows);
        compute->copy(work, &parts[i]->weight, &weight);
        if (packed->bias.rank) {
            attn_tensor bias = tensor_slice(&packed->bias, 0, row, rows);
            if (tensor_absent(&parts[i]->bias))
                compute->fill(work, 0.0f, &bias);
            else
                compute->copy(work, &parts[i]->bias, &bias);
        }
        row += rows;
    }
}

/* Packs to_q (where it fits), to_k and to_v into one linear. */
static attn_status fused_pack(const attn_binding *b, struct fused *s, attn_work *work,
                              attn_error *err)
{
    const attn_layer *l = b->layer;
    const attn_compute *compute = b->processor->compute;
    const attn_linear *const all[3] = {&l->to_q, &l->to_k, &l->to_v};
    const int with_q = l->cross_dim == l->query_dim, n = with_q ? 3 : 2;
    const attn_linear *const *parts = with_q ? all : all + 1;
    const int64_t inner = l->heads * l->dim_head, rows = n * inner;
    attn_linear packed = {.weight = packed_tensor(&l->to_k.weight, 2, rows, l->cross_dim)};
    uint64_t bytes = (uint64_t)(rows * l->cross_dim) * (packed.weight.bits / 8);
    bytes = (bytes + 255u) & ~UINT64_C(255);
    uint64_t total = bytes;
    for (int i = 0; i < n && !packed.bias.rank; i++)
        if (!tensor_absent(&parts[i]->bias))
            packed.bias = packed_tensor(&parts[i]->bias, 1, rows, 1);
    if (packed.bias.rank)
        total += (uint64_t)rows * (packed.bias.bits / 8);
    attn_status status = compute->alloc(compute->ctx, total, &s->weights, err);
    if (status != ATTN_OK)
        return status;
    packed.weight.data = s->weights;
    if (packed.bias.rank)
        packed.bias.data = (char *)s->weights + bytes;
    fused_copy(compute, work, parts, n, &packed);
    s->kv = packed;
    if (with_q) {
        s->qkv = packed;
        s->kv.weight = tensor_slice(&packed.weight, 0, inner, 2 * inner);
        if (packed.bias.rank)
            s->kv.bias = tensor_slice(&packed.bias, 0, inner, 2 * inner);
    }
    return work->status;
}

static attn_status fused_bind(attn_binding *b, const attn_param *params, uint32_t n,
                              attn_work *work, attn_error *err)
{
    (void)params;
    (void)n;
    attn_status status = fused_check(b, err);
    return status == ATTN_OK ? fused_pack(b, b->state, work, err) : status;
}

static void fused_unbind(attn_binding *b)
{
    const attn_compute *compute = b->processor->compute;
    const struct fused *s = b->state;
    if (s->weights)
        compute->free(compute->ctx, s->weights);
}

/* -- layer ------------------------------------------------------------------------------------- */

/* Keys and values side by side in the channels: of the encoder states, kept in the plan. */
static attn_tensor fused_cross(struct forward *f, const attn_linear *kv)
{
    attn_tensor both = forward_keep(f, f->batch, f->call->encoder.shape[1], kv->weight.shape[0]);
    if (!forward_same(f)) {
        uint64_t mark = f->work->used;
        attn_tensor encoder = forward_encoder(f);
        forward_linear(f, &encoder, kv, &both);
        f->work->used = mark;
    }
    return both;
}

static void fused_forward(struct forward *f)
{
    const struct fused *s = f->binding->state;
    const int64_t inner = f->layer->heads * f->layer->dim_head;
    attn_tensor q, all;
    int64_t first = 0; /* channel of `all` where the keys begin */
    forward_enter(f);
    if (forward_has_encoder(f)) {
        q = forward_project(f, &f->x, &f->layer->to_q);
        all = fused_cross(f, &s->kv);
    } else if (tensor_absent(&s->qkv.weight)) {
        forward_need_encoder(f);
        return;
    } else {
        all = forward_project(f, &f->x, &s->qkv);
        q = tensor_slice(&all, 2, 0, inner);
        first = inner;
    }
    attn_tensor k = tensor_slice(&all, 2, first, inner);
    attn_tensor v = tensor_slice(&all, 2, first + inner, inner);
    attn_tensor o = forward_take(f, f->batch, f->tokens, inner);
    forward_attend(f, ATTENTION_OWN, &q, &k, &v, &o);
    forward_leave(f, &o);
}

static const attn_param_list fused_params = {.size = sizeof fused_params};

const struct processor_kind processor_kind = {
    .name = "fused",
    .params = &fused_params,
    .state_bytes = sizeof(struct fused),
    .bind = fused_bind,
    .unbind = fused_unbind,
    .forward = fused_forward,
};

PROCESSOR_EXPORT("fused", 0, "diffusers' FusedAttnProcessor2_0: Q, K and V in one projection");
