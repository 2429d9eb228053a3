#include "image_projection.h"

#include "forward.h"

#include <string.h>

enum { HEAD_DIM = 64, MOST_DEPTH = 64, MOST_WIDTH = 1 << 16 };

static const double norm_eps = 1e-5; /* torch.nn.LayerNorm's own */

struct resampler_layer {
    attn_norm norm_states, norm_latents, norm_ff;
    attn_linear to_q, to_kv, to_out, ff_in, ff_out;
};

/* -- building ---------------------------------------------------------------------------------- */

static void plain_build(struct weights *w, struct image_projection *p)
{
    int64_t shape[2] = {0};
    int64_t cross = 0;
    p->kind = PROJECTION_PLAIN;
    if (!weights_shape(w, 2, shape, "image_proj.proj.weight") ||
        !weights_shape(w, 1, &cross, "image_proj.norm.weight") || shape[0] % cross != 0) {
        weights_fail(w, ATTN_INVALID,
                     "image_proj.proj.weight and image_proj.norm.weight: expected [tokens *"
                     " channels, width] and [channels]");
        return;
    }
    p->width = shape[1];
    p->cross = cross;
    p->tokens = shape[0] / cross;
    weights_linear(w, &p->in, shape[0], shape[1], 1, "image_proj.proj");
    weights_norm(w, &p->norm, ATTN_NORM_LAYER, cross, 0, norm_eps, "image_proj.norm");
}

static void full_build(struct weights *w, struct image_projection *p)
{
    int64_t shape[2] = {0};
    p->kind = PROJECTION_FULL;
    if (!weights_shape(w, 2, shape, "image_proj.proj.2.weight")) {
        weights_fail(w, ATTN_INVALID, "image_proj.proj.2.weight: expected [channels, width]");
        return;
    }
    p->cross = shape[0];
    p->width = shape[1];
    weights_linear(w, &p->in, p->width, p->width, 1, "image_proj.proj.0");
    weights_linear(w, &p->out, p->cross, p->width, 1, "image_proj.proj.2");
    weights_norm(w, &p->norm, ATTN_NORM_LAYER, p->cross, 0, norm_eps, "image_proj.proj.3");
}

static void resampler_layer_build(struct weights *w, const struct image_projection *p,
                                  struct resampler_layer *l, int64_t index)
{
    const int64_t n = p->hidden;
    const int64_t inner = p->heads * HEAD_DIM;
    const int i = (int)index;
    int64_t ff[2] = {0};
    if (!weights_shape(w, 2, ff, "image_proj.layers.%d.1.1.weight", i)) {
        weights_fail(w, ATTN_NOT_FOUND, "image_proj.layers.%d.1.1.weight is missing or no matrix",
                     i);
    }
    weights_norm(w, &l->norm_states, ATTN_NORM_LAYER, n, 0, norm_eps,
                 "image_proj.layers.%d.0.norm1", i);
    weights_norm(w, &l->norm_latents, ATTN_NORM_LAYER, n, 0, norm_eps,
                 "image_proj.layers.%d.0.norm2", i);
    weights_linear(w, &l->to_q, inner, n, 0, "image_proj.layers.%d.0.to_q", i);
    weights_linear(w, &l->to_kv, 2 * inner, n, 0, "image_proj.layers.%d.0.to_kv", i);
    weights_linear(w, &l->to_out, n, inner, 0, "image_proj.layers.%d.0.to_out", i);
    weights_norm(w, &l->norm_ff, ATTN_NORM_LAYER, n, 0, norm_eps, "image_proj.layers.%d.1.0", i);
    weights_linear(w, &l->ff_in, ff[0], n, 0, "image_proj.layers.%d.1.1", i);
    weights_linear(w, &l->ff_out, n, ff[0], 0, "image_proj.layers.%d.1.3", i);
}

static void plus_build(struct weights *w, struct image_projection *p)
{
    int64_t latents[3] = {0};
    int64_t in[2] = {0};
    int64_t out[2] = {0};
    int64_t q[2] = {0};
    p->kind = PROJECTION_PLUS;
    if (!weights_shape(w, 3, latents, "image_proj.latents") || latents[0] != 1 ||
        !weights_shape(w, 2, in, "image_proj.proj_in.weight") ||
        !weights_shape(w, 2, out, "image_proj.proj_out.weight") ||
        !weights_shape(w, 2, q, "image_proj.layers.0.0.to_q.weight") || q[0] % HEAD_DIM != 0) {
        weights_fail(w, ATTN_INVALID,
                     "image_proj.latents, proj_in, proj_out and layers.0.0.to_q: expected"
                     " [1, tokens, channels], matrices, and heads of %d",
                     HEAD_DIM);
        return;
    }
    p->tokens = latents[1];
    p->hidden = latents[2];
    p->width = in[1];
    p->cross = out[0];
    p->heads = q[0] / HEAD_DIM;
    while (p->depth < MOST_DEPTH &&
           weights_has(w, "image_proj.layers.%d.0.to_q.weight", (int)p->depth)) {
        p->depth++;
    }
    p->latents = weights_tensor(w, 3, latents, "image_proj.latents");
    weights_linear(w, &p->in, p->hidden, p->width, 1, "image_proj.proj_in");
    weights_linear(w, &p->out, p->cross, p->hidden, 1, "image_proj.proj_out");
    weights_norm(w, &p->norm, ATTN_NORM_LAYER, p->cross, 0, norm_eps, "image_proj.norm_out");
    p->layers = weights_alloc(w, (size_t)p->depth, sizeof *p->layers);
    for (int64_t i = 0; p->layers && i < p->depth; i++) {
        resampler_layer_build(w, p, &p->layers[i], i);
    }
}

void image_projection_build(struct weights *w, struct image_projection *p)
{
    *p = (struct image_projection){0};
    if (weights_has(w, "image_proj.proj.weight")) {
        plain_build(w, p);
    } else if (weights_has(w, "image_proj.proj.3.weight")) {
        full_build(w, p);
    } else if (weights_has(w, "image_proj.latents")) {
        plus_build(w, p);
    } else {
        weights_fail(w, ATTN_INVALID,
                     "no IP-Adapter that is known: none of image_proj.proj.weight (plain),"
                     " image_proj.proj.3.weight (full) and image_proj.latents (Plus) is in it");
    }
    if (p->width > MOST_WIDTH || p->cross > MOST_WIDTH || p->tokens > MOST_WIDTH) {
        weights_fail(w, ATTN_UNSUPPORTED, "a projection of %lld channels to %lld tokens of %lld",
                     (long long)p->width, (long long)p->tokens, (long long)p->cross);
    }
}

/* -- the forward pass -------------------------------------------------------------------------- */

static void plain_forward(attn_work *w, const struct image_projection *p, const attn_tensor *x,
                          const attn_tensor *tokens)
{
    const int64_t shape[] = {x->shape[0], 1, p->tokens * p->cross};
    const attn_tensor flat = tensor_of(tokens->data, tokens, 3, shape);
    work_api(w)->linear(w, x, &p->in, NULL, &flat);
}

static void full_forward(attn_work *w, const struct image_projection *p, const attn_tensor *x,
                         const attn_tensor *tokens)
{
    const struct epilogue gelu = {ACT_GELU, NULL};
    const attn_tensor inner = take_like(w, x, p->width);
    work_api(w)->linear(w, x, &p->in, &gelu, &inner);
    work_api(w)->linear(w, &inner, &p->out, NULL, tokens);
}

/* latents = out(attention(norm(latents), [norm(x) | norm(latents)])) + latents: as in diffusers the
 * latents that are attended from are the normed ones. */
static void resampler_attend(attn_work *w, const struct image_projection *p,
                             const struct resampler_layer *l, const char *op, const attn_tensor *x,
                             const attn_tensor *latents)
{
    const uint64_t mark = work_mark(w);
    const int64_t inner = p->heads * HEAD_DIM;
    const int64_t seen = x->shape[1];
    const int64_t shape[] = {x->shape[0], seen + p->tokens, p->hidden};
    const struct epilogue add = {ACT_NONE, latents};
    const attn_tensor states = work_take(w, NULL, 3, shape);
    const attn_tensor before = tokens_of(&states, 0, seen);
    const attn_tensor normed = tokens_of(&states, seen, p->tokens);
    const attn_tensor q = take_like(w, latents, inner);
    const attn_tensor kv = take_like(w, &states, 2 * inner);
    const attn_tensor out = take_like(w, latents, inner);
    const struct op_choice choice = {.op = op};
    const attn_op_call call = {.size = sizeof call,
                               .q = heads_of(&q, 0, p->heads, HEAD_DIM),
                               .k = heads_of(&kv, 0, p->heads, HEAD_DIM),
                               .v = heads_of(&kv, inner, p->heads, HEAD_DIM),
                               .out = heads_of(&out, 0, p->heads, HEAD_DIM)};
    work_math(w)->norm(w, &l->norm_states, x, NULL, &before);
    work_math(w)->norm(w, &l->norm_latents, latents, NULL, &normed);
    work_math(w)->linear(w, 1.0f, &normed, &l->to_q, 0.0f, NULL, &q);
    work_api(w)->linear(w, &states, &l->to_kv, NULL, &kv);
    work_attend_by(w, &choice, &call, NULL);
    work_api(w)->linear(w, &out, &l->to_out, &add, latents);
    work_reset(w, mark);
}

static void resampler_feed(attn_work *w, const struct image_projection *p,
                           const struct resampler_layer *l, const attn_tensor *latents)
{
    const uint64_t mark = work_mark(w);
    const struct epilogue gelu = {ACT_GELU, NULL};
    const struct epilogue add = {ACT_NONE, latents};
    const attn_tensor normed = take_like(w, latents, p->hidden);
    const attn_tensor inner = take_like(w, latents, l->ff_in.weight.shape[0]);
    work_api(w)->norm(w, &l->norm_ff, ACT_NONE, latents, NULL, NULL, NULL, NULL, &normed);
    work_api(w)->linear(w, &normed, &l->ff_in, &gelu, &inner);
    work_api(w)->linear(w, &inner, &l->ff_out, &add, latents);
    work_reset(w, mark);
}

static void plus_forward(attn_work *w, const struct image_projection *p, const char *op,
                         const attn_tensor *in, const attn_tensor *tokens)
{
    const int64_t shape[] = {in->shape[0], p->tokens, p->hidden};
    const attn_tensor x = take_like(w, in, p->hidden);
    const attn_tensor latents = work_take(w, NULL, 3, shape);
    attn_tensor start = p->latents;
    start.shape[0] = in->shape[0];
    start.stride[0] = 0;
    work_math(w)->copy(w, &start, &latents);
    work_api(w)->linear(w, in, &p->in, NULL, &x);
    for (int64_t i = 0; i < p->depth; i++) {
        resampler_attend(w, p, &p->layers[i], op, &x, &latents);
        resampler_feed(w, p, &p->layers[i], &latents);
    }
    work_api(w)->linear(w, &latents, &p->out, NULL, tokens);
}

void image_projection_forward(attn_work *w, const struct image_projection *p, const char *op,
                              const attn_tensor *in, const attn_tensor *out)
{
    const uint64_t mark = work_mark(w);
    const attn_tensor x = work_take(w, NULL, 3, in->shape);
    const attn_tensor tokens = work_take(w, NULL, 3, out->shape);
    work_api(w)->write(w, in, &x);
    switch (p->kind) {
    case PROJECTION_PLAIN:
        plain_forward(w, p, &x, &tokens);
        break;
    case PROJECTION_FULL:
        full_forward(w, p, &x, &tokens);
        break;
    case PROJECTION_PLUS:
        plus_forward(w, p, op, &x, &tokens);
        break;
    }
    work_api(w)->norm(w, &p->norm, ACT_NONE, &tokens, NULL, NULL, NULL, NULL, &tokens);
    work_api(w)->read(w, &tokens, out);
    work_api(w)->synchronize(w);
    work_reset(w, mark);
}
