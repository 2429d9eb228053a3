#include "forward.h"

#include "error.h"

#include <inttypes.h>
#include <string.h>

void forward_fail(struct forward *f, attn_status status, const char *format, ...)
{
    if (f->work->status != ATTN_OK)
        return;
    char text[384];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    f->work->status = attn_fail(f->work->err, status, "%s: %s", f->binding->who, text);
}

int forward_dry(const struct forward *f)
{
    return (f->work->flags & ATTN_WORK_DRY) != 0;
}

int forward_same(const struct forward *f)
{
    return !forward_dry(f) && (f->call->flags & ATTN_LAYER_CALL_SAME) != 0;
}

int forward_has_encoder(const struct forward *f)
{
    return !tensor_absent(&f->call->encoder);
}

/* -- memory ------------------------------------------------------------------------------------ */

/* A contiguous tensor of the hidden states' type, without data.  0 where its bytes overflow. */
static int forward_shape(const struct forward *f, const int64_t shape[3], attn_tensor *t,
                         uint64_t *bytes)
{
    const attn_tensor *like = &f->call->hidden;
    *t = (attn_tensor){.device_type = like->device_type,
                       .device_id = like->device_id,
                       .code = like->code,
                       .bits = like->bits,
                       .lanes = like->lanes,
                       .rank = 3,
                       .align = 256};
    int64_t total = like->bits / 8;
    for (int i = 0; i < 3; i++) {
        t->shape[i] = shape[i];
        if (__builtin_mul_overflow(total, shape[i], &total))
            return 0;
    }
    tensor_pack_strides(t);
    *bytes = (uint64_t)total;
    return 1;
}

attn_tensor forward_take(struct forward *f, int64_t a, int64_t b, int64_t c)
{
    const int64_t shape[3] = {a, b, c};
    attn_work *work = f->work;
    attn_tensor t = {0};
    uint64_t bytes = 0;
    if (work->status != ATTN_OK)
        return t;
    if (!forward_shape(f, shape, &t, &bytes)) {
        forward_fail(f, ATTN_INVALID, "scratch [%" PRId64 ", %" PRId64 ", %" PRId64 "] overflows",
                     a, b, c);
        return t;
    }
    uint64_t at = (work->used + 255u) & ~UINT64_C(255);
    work->used = at + bytes;
    if (work->used > work->peak)
        work->peak = work->used;
    if (!forward_dry(f)) {
        if (work->used > work->capacity)
            forward_fail(f, ATTN_INTERNAL,
                         "scratch of %" PRIu64 " bytes where prepare counted %" PRIu64, work->used,
                         work->capacity);
        else
            t.data = (void *)(uintptr_t)(work->base + at); /* NOLINT: an address by contract */
    }
    return t;
}

attn_tensor forward_keep(struct forward *f, int64_t a, int64_t b, int64_t c)
{
    const int64_t shape[3] = {a, b, c};
    attn_tensor t = {0};
    uint64_t bytes = 0;
    if (f->work->status != ATTN_OK)
        return t;
    if (!forward_shape(f, shape, &t, &bytes)) {
        forward_fail(f, ATTN_INVALID, "keys [%" PRId64 ", %" PRId64 ", %" PRId64 "] overflow", a, b,
                     c);
        return t;
    }
    if (!forward_dry(f)) {
        if (f->kept + bytes > f->plan->kept_bytes)
            forward_fail(f, ATTN_INTERNAL,
                         "keys of %" PRIu64 " bytes where prepare counted %" PRIu64,
                         f->kept + bytes, f->plan->kept_bytes);
        else
            t.data = (char *)f->plan->kept + f->kept;
    }
    f->kept += (bytes + 255u) & ~UINT64_C(255);
    return t;
}

/* -- before the attention ---------------------------------------------------------------------- */

/* out is shaped as hidden but for its channels, which are to_out's. */
static int out_fits(const attn_tensor *hidden, const attn_tensor *out)
{
    uint32_t channels = hidden->rank == 4 ? 1 : 2;
    attn_tensor like = *hidden;
    like.shape[channels] = out->shape[channels];
    return tensor_same_shape(&like, out) && tensor_same_type(hidden, out);
}

void forward_begin(struct forward *f)
{
    const attn_layer_call *call = f->call;
    const attn_tensor *hidden = &call->hidden, *encoder = &call->encoder;
    if (hidden->rank != 3 && hidden->rank != 4)
        forward_fail(f, ATTN_INVALID, "hidden states of rank %" PRIu32 ", expected 3 or 4",
                     hidden->rank);
    else if (!out_fits(hidden, &call->out))
        forward_fail(f, ATTN_INVALID, "out differs from the hidden states in shape or type");
    else if (!tensor_tokens(hidden, &f->residual) || !tensor_tokens(&call->out, &f->out))
        forward_fail(f, ATTN_UNSUPPORTED,
                     "rows of a picture [B, C, height, width] must follow one another in memory");
    else if (f->residual.shape[2] != f->layer->query_dim)
        forward_fail(f, ATTN_INVALID, "hidden states have %" PRId64 " channels, expected %" PRId64,
                     f->residual.shape[2], f->layer->query_dim);
    else if (forward_has_encoder(f) && encoder->rank != 3)
        forward_fail(f, ATTN_INVALID, "encoder states of rank %" PRIu32 ", expected 3",
                     encoder->rank);
    else if (forward_has_encoder(f) && encoder->shape[0] != hidden->shape[0])
        forward_fail(f, ATTN_INVALID, "encoder states of batch %" PRId64 ", expected %" PRId64,
                     encoder->shape[0], hidden->shape[0]);
    f->batch = f->residual.shape[0];
    f->tokens = f->residual.shape[1];
    f->x = f->residual;
}

void forward_spatial_norm(struct forward *f)
{
    const attn_norm *norm = &f->layer->spatial_norm;
    const attn_tensor *hidden = &f->call->hidden;
    if (f->work->status != ATTN_OK || norm->kind == ATTN_NORM_NONE)
        return;
    if (hidden->rank != 4) {
        forward_fail(f, ATTN_INVALID,
                     "spatial_norm wants hidden states [B, C, height, width], got rank %" PRIu32,
                     hidden->rank);
        return;
    }
    if (tensor_absent(&f->call->temb)) {
        forward_fail(f, ATTN_INVALID, "spatial_norm wants temb, which is absent");
        return;
    }
    attn_tensor y = forward_take(f, f->batch, f->tokens, f->residual.shape[2]);
    attn_tensor picture = tensor_picture(&y, hidden->shape[2], hidden->shape[3]);
    f->compute->norm(f->work, norm, hidden, &f->call->temb, &picture);
    f->x = y;
}

void forward_group_norm(struct forward *f)
{
    const attn_norm *norm = &f->layer->group_norm;
    if (f->work->status != ATTN_OK || norm->kind == ATTN_NORM_NONE)
        return;
    attn_tensor y = forward_take(f, f->batch, f->tokens, f->residual.shape[2]);
    f->compute->norm(f->work, norm, &f->x, NULL, &y);
    f->x = y;
}

void forward_enter(struct forward *f)
{
    forward_spatial_norm(f);
    forward_group_norm(f);
}

/* -- queries, keys, values --------------------------------------------------------------------- */

void forward_linear(struct forward *f, const attn_tensor *x, const attn_linear *linear,
                    const attn_tensor *y)
{
    if (f->work->status == ATTN_OK)
        f->compute->linear(f->work, 1.0f, x, linear, 0.0f, NULL, y);
}

attn_tensor forward_project(struct forward *f, const attn_tensor *x, const attn_linear *linear)
{
    attn_tensor y = forward_take(f, x->shape[0], x->shape[1], linear->weight.shape[0]);
    forward_linear(f, x, linear, &y);
    return y;
}

attn_tensor forward_encoder(struct forward *f)
{
    const attn_tensor *encoder = &f->call->encoder;
    const attn_norm *norm = &f->layer->norm_cross;
    if (norm->kind == ATTN_NORM_NONE)
        return *encoder;
    attn_tensor y = forward_take(f, encoder->shape[0], encoder->shape[1], encoder->shape[2]);
    if (f->work->status == ATTN_OK)
        f->compute->norm(f->work, norm, encoder, NULL, &y);
    return y;
}

void forward_need_encoder(struct forward *f)
{
    forward_fail(f, ATTN_INVALID,
                 "encoder states are missing; keys and values are made of their %" PRId64
                 " channels",
                 f->layer->cross_dim);
}

void forward_keys(struct forward *f, const attn_linear *to_k, const attn_linear *to_v,
                  attn_tensor *k, attn_tensor *v)
{
    if (!forward_has_encoder(f)) {
        if (f->layer->cross_dim != f->layer->query_dim)
            forward_need_encoder(f);
        *k = forward_project(f, &f->x, to_k);
        *v = forward_project(f, &f->x, to_v);
        return;
    }
    int64_t length = f->call->encoder.shape[1];
    *k = forward_keep(f, f->batch, length, to_k->weight.shape[0]);
    *v = forward_keep(f, f->batch, length, to_v->weight.shape[0]);
    if (forward_same(f))
        return;
    uint64_t mark = f->work->used;
    attn_tensor encoder = forward_encoder(f);
    forward_linear(f, &encoder, to_k, k);
    forward_linear(f, &encoder, to_v, v);
    f->work->used = mark;
}

/* -- attention and what follows ---------------------------------------------------------------- */

attn_op_call forward_op_call(const struct forward *f, enum attention whose, const attn_tensor *q,
                             const attn_tensor *k, const attn_tensor *v, const attn_tensor *o)
{
    const attn_layer *layer = f->layer;
    attn_op_call c = {.size = sizeof c, .scale = layer->scale};
    if (layer->flags & ATTN_LAYER_UPCAST_ATTENTION)
        c.flags |= ATTN_CALL_F32_SCORES;
    if (layer->flags & ATTN_LAYER_UPCAST_SOFTMAX)
        c.flags |= ATTN_CALL_F32_SOFTMAX;
    c.q = tensor_heads(q, layer->heads);
    c.k = tensor_heads(k, layer->heads);
    c.v = tensor_heads(v, layer->heads);
    c.out = tensor_heads(o, layer->heads);
    if (whose == ATTENTION_OWN) {
        c.bias = f->call->bias;
        c.mask = f->call->mask;
        c.lse = f->call->lse;
        c.key_mass = f->call->key_mass;
        c.probs = f->call->probs;
    }
    return c;
}

void forward_attend(struct forward *f, enum attention whose, const attn_tensor *q,
                    const attn_tensor *k, const attn_tensor *v, const attn_tensor *o)
{
    if (f->work->status != ATTN_OK)
        return;
    attn_op_call c = forward_op_call(f, whose, q, k, v, o);
    f->compute->attend(f->work, &c);
}

void forward_output(struct forward *f, const attn_tensor *o, const attn_linear *linear,
                    const attn_tensor *residual, float rescale)
{
    float factor = 1.0f / rescale;
    if (f->work->status == ATTN_OK)
        f->compute->linear(f->work, factor, o, linear, residual ? factor : 0.0f, residual, &f->out);
}

void forward_leave(struct forward *f, const attn_tensor *o)
{
    const attn_layer *layer = f->layer;
    int residual = (layer->flags & ATTN_LAYER_RESIDUAL) != 0;
    forward_output(f, o, &layer->to_out, residual ? &f->residual : NULL, layer->rescale);
}

/* One linear of three whose weights lie one after another in memory, as a host for which that is
 * worth while lays them; 0 where they do not. */
static int linears_join(const attn_layer *layer, attn_linear *all)
{
    const attn_linear *parts[] = {&layer->to_q, &layer->to_k, &layer->to_v};
    *all = layer->to_q;
    all->weight.shape[0] = 0;
    for (int i = 0; i < 3; i++) {
        const attn_tensor *t = &parts[i]->weight;
        const int64_t bytes = t->shape[1] * (int64_t)(t->bits / 8);
        if (t->rank != 2 || parts[i]->bias.rank || parts[i]->n_terms || !t->data ||
            t->stride[1] != 1 || t->stride[0] != t->shape[1] || t->shape[1] != layer->query_dim ||
            !tensor_same_type(t, &layer->to_q.weight) ||
            (const char *)t->data != (const char *)all->weight.data + all->weight.shape[0] * bytes)
            return 0;
        all->weight.shape[0] += t->shape[0];
    }
    return 1;
}

/* Queries, keys and values of self attention by one product. */
static void forward_joined(struct forward *f, const attn_linear *all, attn_tensor *q,
                           attn_tensor *k, attn_tensor *v)
{
    const attn_layer *layer = f->layer;
    const int64_t n_q = layer->to_q.weight.shape[0], n_k = layer->to_k.weight.shape[0];
    attn_tensor y = forward_project(f, &f->x, all);
    *q = tensor_slice(&y, 2, 0, n_q);
    *k = tensor_slice(&y, 2, n_q, n_k);
    *v = tensor_slice(&y, 2, n_q + n_k, layer->to_v.weight.shape[0]);
}

void forward_standard(struct forward *f)
{
    attn_tensor q, k, v;
    attn_linear all;
    forward_enter(f);
    if (!forward_has_encoder(f) && linears_join(f->layer, &all)) {
        forward_joined(f, &all, &q, &k, &v);
    } else {
        q = forward_project(f, &f->x, &f->layer->to_q);
        forward_keys(f, &f->layer->to_k, &f->layer->to_v, &k, &v);
    }
    attn_tensor o = forward_take(f, f->batch, f->tokens, q.shape[2]);
    forward_attend(f, ATTENTION_OWN, &q, &k, &v, &o);
    forward_leave(f, &o);
}
