/* @NAME@: an attention layer: projections, attention, output projection, residual.
 *
 * Written by tools/new-plugin.  It works through the host's "attn.compute/1"; a processor may as
 * well do everything on its own.  What it does not do it refuses at bind, by name: group norm,
 * normed encoder states, spatial norm, added projections.  Change forward(): prepare runs it dry,
 * so that scratch and "unsupported" follow from the code itself.
 *
 * Build: make          Check: make check
 */
#include "attn_abi.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct attn_processor {
    const attn_compute *compute;
};
struct attn_binding { /* read-only in run */
    const attn_processor *processor;
    const attn_layer *layer;
};
struct attn_layer_plan {
    const attn_binding *binding;
};

__attribute__((format(printf, 3, 4))) static attn_status refuse(attn_error *err, attn_status status,
                                                                const char *format, ...)
{
    if (err && err->text && err->capacity) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, err->capacity, format, args);
        va_end(args);
    }
    return status;
}

/* -- life
 * ------------------------------------------------------------------------------------------------
 */

static attn_status create(const attn_host *host, const attn_device *device,
                          const attn_param *params, uint32_t n_params, attn_processor **out,
                          attn_error *err)
{
    const attn_compute *compute = host->query ? host->query(host->ctx, "attn.compute/1") : NULL;
    if (device->type != ATTN_DEVICE_CPU && device->type != ATTN_DEVICE_CUDA)
        return refuse(err, ATTN_UNSUPPORTED, "device type %d is not known", device->type);
    if (n_params)
        return refuse(err, ATTN_INVALID, "parameter '%s' is not known", params[0].name);
    if (!compute || compute->size < sizeof *compute)
        return refuse(err, ATTN_UNSUPPORTED, "the host offers no attn.compute/1");
    attn_processor *p = malloc(sizeof *p);
    if (!p)
        return refuse(err, ATTN_NOMEM, "no memory for @NAME@");
    p->compute = compute;
    *out = p;
    return ATTN_OK;
}

static void destroy(attn_processor *p)
{
    free(p);
}

static attn_status want_weight(const attn_layer *l, const char *key, const attn_linear *linear,
                               int64_t out, int64_t in, attn_error *err)
{
    const attn_tensor *w = &linear->weight;
    if (w->rank != 2 || w->shape[0] != out || w->shape[1] != in)
        return refuse(err, ATTN_INVALID,
                      "layer %s: %s.weight is [%lld, %lld], expected [%lld, %lld]", l->name, key,
                      w->rank == 2 ? (long long)w->shape[0] : 0,
                      w->rank == 2 ? (long long)w->shape[1] : 0, (long long)out, (long long)in);
    return ATTN_OK;
}

/* What is not known is refused, never ignored; an extension may say that it need not be known. */
static attn_status check_known(const char *name, uint32_t flags, uint32_t known,
                               const attn_ext *ext, attn_error *err)
{
    if (flags & ~known)
        return refuse(err, ATTN_UNSUPPORTED, "layer %s: flags %#x, known are %#x", name, flags,
                      known);
    for (; ext; ext = ext->next)
        if (ext->flags & ATTN_EXT_REQUIRED)
            return refuse(err, ATTN_UNSUPPORTED, "layer %s: extension %s is not known", name,
                          ext->id);
    return ATTN_OK;
}

static attn_status check_layer(const attn_layer *l, attn_error *err)
{
    const uint32_t known = ATTN_LAYER_RESIDUAL | ATTN_LAYER_ONLY_CROSS |
                           ATTN_LAYER_UPCAST_ATTENTION | ATTN_LAYER_UPCAST_SOFTMAX;
    if (l->size < sizeof *l)
        return refuse(err, ATTN_INVALID, "layer: size %u, expected %zu", l->size, sizeof *l);
    const int64_t inner = l->heads * l->dim_head;
    if (l->heads < 1 || l->dim_head < 1)
        return refuse(err, ATTN_INVALID, "layer %s: %lld heads of %lld, expected 1 or more",
                      l->name, (long long)l->heads, (long long)l->dim_head);
    attn_status s = check_known(l->name, l->flags, known, l->ext, err);
    if (s != ATTN_OK)
        return s;
    if (l->group_norm.kind || l->norm_cross.kind || l->spatial_norm.kind || l->add_k.weight.rank ||
        (l->flags & ATTN_LAYER_ONLY_CROSS))
        return refuse(err, ATTN_UNSUPPORTED,
                      "layer %s: @NAME@ does no norms and no added projections", l->name);
    s = want_weight(l, "to_q", &l->to_q, inner, l->query_dim, err);
    if (s == ATTN_OK)
        s = want_weight(l, "to_k", &l->to_k, inner, l->cross_dim, err);
    if (s == ATTN_OK)
        s = want_weight(l, "to_v", &l->to_v, inner, l->cross_dim, err);
    if (s == ATTN_OK)
        s = want_weight(l, "to_out.0", &l->to_out, l->query_dim, inner, err);
    return s;
}

static attn_status bind(attn_processor *p, const attn_layer *l, const attn_param *params,
                        uint32_t n_params, attn_work *work, attn_binding **out, attn_error *err)
{
    (void)work;
    if (n_params)
        return refuse(err, ATTN_INVALID, "layer %s: parameter '%s' is not known", l->name,
                      params[0].name);
    attn_status s = check_layer(l, err);
    if (s != ATTN_OK)
        return s;
    attn_binding *b = malloc(sizeof *b);
    if (!b)
        return refuse(err, ATTN_NOMEM, "layer %s: no memory to bind it", l->name);
    *b = (attn_binding){p, l};
    *out = b;
    return ATTN_OK;
}

static void unbind(attn_binding *b)
{
    free(b);
}

/* -- one pass, dry or real
 * --------------------------------------------------------------------------------- */

/* Scratch [batch, tokens, channels] like t. */
static attn_tensor take(attn_work *w, const attn_tensor *t, int64_t tokens, int64_t channels)
{
    attn_tensor x = *t;
    const uint64_t at = (w->used + 255) & ~UINT64_C(255);
    x.rank = 3;
    x.shape[1] = tokens;
    x.shape[2] = channels;
    x.stride[0] = tokens * channels;
    x.stride[1] = channels;
    x.stride[2] = 1;
    x.align = 256;
    x.data = w->flags & ATTN_WORK_DRY ? NULL : (void *)(uintptr_t)(w->base + at);
    w->used = at + (uint64_t)(x.shape[0] * tokens * channels * (x.bits / 8));
    w->peak = w->used > w->peak ? w->used : w->peak;
    return x;
}

/* [B, tokens, heads * d] as [B, heads, tokens, d]: the same memory. */
static attn_tensor by_head(const attn_tensor *t, int64_t heads)
{
    attn_tensor x = *t;
    const int64_t d = t->shape[2] / heads;
    x.rank = 4;
    x.shape[1] = heads;
    x.shape[2] = t->shape[1];
    x.shape[3] = d;
    x.stride[1] = d;
    x.stride[2] = t->stride[1];
    x.stride[3] = 1;
    return x;
}

/* [B, C, height, width] as [B, height * width, C]; 0 where the pixels are not in one row. */
static int as_tokens(attn_tensor *t)
{
    if (t->rank == 3)
        return 1;
    if (t->rank != 4 || t->stride[2] != t->shape[3] * t->stride[3])
        return 0;
    const int64_t channels = t->shape[1], step = t->stride[1];
    t->rank = 3;
    t->shape[1] = t->shape[2] * t->shape[3];
    t->stride[1] = t->stride[3];
    t->shape[2] = channels;
    t->stride[2] = step;
    return 1;
}

static void forward(const attn_binding *b, const attn_layer_call *call)
{
    const attn_layer *l = b->layer;
    const attn_compute *c = b->processor->compute;
    attn_work *w = call->work;
    attn_tensor hidden = call->hidden, out = call->out;
    if (!as_tokens(&hidden) || !as_tokens(&out)) {
        w->status = refuse(w->err, ATTN_UNSUPPORTED,
                           "layer %s: hidden states of rank %u with gaps between rows", l->name,
                           call->hidden.rank);
        return;
    }
    const attn_tensor *keys = call->encoder.rank ? &call->encoder : &hidden;
    const int64_t inner = l->heads * l->dim_head;
    const uint64_t mark = w->used;
    attn_tensor q = take(w, &hidden, hidden.shape[1], inner),
                k = take(w, &hidden, keys->shape[1], inner);
    attn_tensor v = take(w, &hidden, keys->shape[1], inner),
                o = take(w, &hidden, hidden.shape[1], inner);
    c->linear(w, 1, &hidden, &l->to_q, 0, NULL, &q);
    c->linear(w, 1, keys, &l->to_k, 0, NULL, &k);
    c->linear(w, 1, keys, &l->to_v, 0, NULL, &v);

    attn_op_call a;
    memset(&a, 0, sizeof a);
    a.size = sizeof a;
    a.q = by_head(&q, l->heads);
    a.k = by_head(&k, l->heads);
    a.v = by_head(&v, l->heads);
    a.out = by_head(&o, l->heads);
    a.bias = call->bias;
    a.mask = call->mask;
    a.lse = call->lse;
    a.key_mass = call->key_mass;
    a.probs = call->probs;
    a.scale = l->scale;
    a.flags = (l->flags & ATTN_LAYER_UPCAST_ATTENTION ? ATTN_CALL_F32_SCORES : 0) |
              (l->flags & ATTN_LAYER_UPCAST_SOFTMAX ? ATTN_CALL_F32_SOFTMAX : 0);
    c->attend(w, &a);

    const int residual = (l->flags & ATTN_LAYER_RESIDUAL) != 0;
    c->linear(w, 1 / l->rescale, &o, &l->to_out, residual ? 1 / l->rescale : 0,
              residual ? &hidden : NULL, &out);
    w->used = mark;
}

/* What forward() and compute do not see. */
static attn_status check_call(const attn_layer *l, const attn_layer_call *call, attn_error *err)
{
    const attn_tensor *hidden = &call->hidden, *out = &call->out, *encoder = &call->encoder;
    if (hidden->rank < 3 || hidden->rank > 4 || out->rank != hidden->rank)
        return refuse(err, ATTN_INVALID, "layer %s: hidden states of rank %u, out of rank %u",
                      l->name, hidden->rank, out->rank);
    if (encoder->rank && (encoder->rank != 3 || encoder->shape[0] != hidden->shape[0]))
        return refuse(err, ATTN_INVALID,
                      "layer %s: encoder states of rank %u, batch %lld, not %lld", l->name,
                      encoder->rank, (long long)encoder->shape[0], (long long)hidden->shape[0]);
    return check_known(l->name, call->flags, ATTN_LAYER_CALL_SAME, call->ext, err);
}

static attn_status prepare(attn_binding *b, const attn_layer_call *call, attn_layer_plan **plan)
{
    if (call->size < sizeof *call) /* too short to be asked where a text may go */
        return ATTN_INVALID;
    attn_work *w = call->work;
    w->status = check_call(b->layer, call, w->err);
    if (w->status == ATTN_OK)
        forward(b, call);
    if (w->status != ATTN_OK)
        return w->status;
    attn_layer_plan *p = malloc(sizeof *p);
    if (!p)
        return w->status =
                   refuse(w->err, ATTN_NOMEM, "layer %s: no memory to plan it", b->layer->name);
    p->binding = b;
    *plan = p;
    return ATTN_OK;
}

static attn_status run(attn_layer_plan *plan, const attn_layer_call *call)
{
    forward(plan->binding, call);
    return call->work->status;
}

static void release(attn_layer_plan *plan)
{
    free(plan);
}

const attn_processor_api attn_processor_v1 = {
    .head = {.magic = ATTN_MAGIC,
             .abi = ATTN_ABI,
             .size = sizeof(attn_processor_api),
             .flags = ATTN_HEAD_CAPTURABLE | ATTN_HEAD_NEEDS_COMPUTE | ATTN_HEAD_TERMS,
             .devices = UINT64_C(1) << ATTN_DEVICE_CPU | UINT64_C(1) << ATTN_DEVICE_CUDA,
             .dtypes = ATTN_DTYPE_F32 | ATTN_DTYPE_F16 | ATTN_DTYPE_BF16,
             .id = "@ID@",
             .version = "0.1.0",
             .vendor = "@VENDOR@",
             .summary = "a plain attention layer"},
    .create = create,
    .destroy = destroy,
    .bind = bind,
    .unbind = unbind,
    .prepare = prepare,
    .run = run,
    .release = release,
};
