#include "clip_vision.h"

#include "forward.h"

#include <string.h>

enum { MAX_PROJECTION = 1 << 16, MAX_SIDE = 1 << 12 };

struct clip_vision {
    struct clip_vision_config config;
    attn_linear patch;               /* the convolution as a linear over patches */
    attn_tensor class_, positions;   /* [width], [tokens, width] */
    attn_norm norm_first, norm_last; /* pre_layrnorm, as it is spelt, and post_layernorm */
    struct clip_layer *layers;
};

/* -- building ---------------------------------------------------------------------------------- */

void clip_vision_config_read(struct config *c, struct clip_vision_config *out)
{
    struct clip_vision_config v = {
        .layers = {.width = 768, .inner = 3072, .layers = 12, .heads = 12}};
    config_only(c, "model_type", "\"clip_vision_model\"");
    config_only(c, "num_channels", "3");
    clip_layers_config_read(c, &v.layers);
    v.size = config_int(c, "image_size", 224, 1, MAX_SIDE);
    v.patch = config_int(c, "patch_size", 32, 1, MAX_SIDE);
    v.projection = config_int(c, "projection_dim", 512, 1, MAX_PROJECTION);
    if (v.patch > v.size) {
        config_refuse(c, ATTN_INVALID, "patch_size", "at most image_size");
    }
    v.side = v.size / v.patch;
    v.tokens = v.side * v.side + 1;
    *out = v;
}

/* [out, 3, patch, patch] as [out, 3 patch^2]: patches do not overlap. */
static attn_linear patch_build(struct weights *w, const struct clip_vision_config *c,
                               const char *prefix)
{
    const int64_t shape[] = {c->layers.width, 3, c->patch, c->patch};
    const int64_t flat[] = {c->layers.width, 3 * c->patch * c->patch};
    attn_linear linear = {0};
    attn_tensor weight = weights_tensor(w, 4, shape, "%sembeddings.patch_embedding.weight", prefix);
    if (weight.rank) {
        linear.weight = tensor_of(weight.data, &weight, 2, flat);
        linear.weight.align = weight.align;
    }
    return linear;
}

struct clip_vision *clip_vision_build(struct weights *w, const struct clip_vision_config *c,
                                      const char *prefix)
{
    const int64_t positions[] = {c->tokens, c->layers.width};
    struct clip_vision *v = weights_alloc(w, 1, sizeof *v);
    if (!v) {
        return NULL;
    }
    v->config = *c;
    v->patch = patch_build(w, c, prefix);
    v->class_ = weights_tensor(w, 1, &c->layers.width, "%sembeddings.class_embedding", prefix);
    v->positions =
        weights_tensor(w, 2, positions, "%sembeddings.position_embedding.weight", prefix);
    weights_norm(w, &v->norm_first, ATTN_NORM_LAYER, c->layers.width, 0, c->layers.eps,
                 "%spre_layrnorm", prefix);
    weights_norm(w, &v->norm_last, ATTN_NORM_LAYER, c->layers.width, 0, c->layers.eps,
                 "%spost_layernorm", prefix);
    v->layers = clip_layers_build(w, &c->layers, prefix);
    return weights_status(w) == ATTN_OK ? v : NULL;
}

/* -- the forward pass -------------------------------------------------------------------------- */

void clip_vision_cut(const struct clip_vision_config *c, int64_t batch, const float *planes,
                     float *patches)
{
    for (int64_t b = 0; b < batch; b++) {
        for (int64_t n = 0; n < c->side * c->side; n++) {
            for (int64_t channel = 0; channel < 3; channel++) {
                const float *plane = planes + (3 * b + channel) * c->size * c->size;
                const float *at = plane + n / c->side * c->patch * c->size + n % c->side * c->patch;
                for (int64_t y = 0; y < c->patch; y++, patches += c->patch) {
                    memcpy(patches, at + y * c->size, (size_t)c->patch * sizeof *patches);
                }
            }
        }
    }
}

/* `t` as one for each of the batch. */
static attn_tensor for_each(const attn_tensor *t, int64_t batch, int64_t tokens)
{
    attn_tensor r = *t;
    r.rank = 3;
    r.shape[0] = batch;
    r.shape[1] = tokens;
    r.shape[2] = tensor_last(t);
    r.stride[0] = 0;
    r.stride[1] = tensor_last(t);
    r.stride[2] = 1;
    r.align = 0;
    return r;
}

/* x = [class | patches] + positions. */
static void embed(attn_work *w, const struct clip_vision *v, const attn_tensor *host,
                  const attn_tensor *x)
{
    const struct clip_vision_config *c = &v->config;
    const uint64_t mark = work_mark(w);
    const attn_tensor patches = work_take(w, NULL, 3, host->shape);
    const attn_tensor seen = take_like(w, &patches, c->layers.width);
    const attn_tensor first = tokens_of(x, 0, 1);
    const attn_tensor rest = tokens_of(x, 1, c->tokens - 1);
    const attn_tensor class_ = for_each(&v->class_, x->shape[0], 1);
    const attn_tensor all = for_each(&v->positions, x->shape[0], c->tokens);
    const attn_tensor position = tokens_of(&all, 0, 1);
    const attn_tensor positions = tokens_of(&all, 1, c->tokens - 1);
    work_api(w)->write(w, host, &patches);
    work_api(w)->linear(w, &patches, &v->patch, NULL, &seen);
    work_math(w)->combine(w, 1.0f, &class_, 1.0f, &position, &first);
    work_math(w)->combine(w, 1.0f, &seen, 1.0f, &positions, &rest);
    work_reset(w, mark);
}

/* The class token's last state, normed and projected. */
static void pool(attn_work *w, const struct clip_vision *v, const struct clip_vision_call *call,
                 const attn_tensor *x)
{
    const uint64_t mark = work_mark(w);
    const attn_linear projection = {.weight = *call->projection};
    const int64_t shape[] = {x->shape[0], 1, v->config.layers.width};
    const attn_tensor first = tokens_of(x, 0, 1);
    const attn_tensor state = work_take(w, NULL, 3, shape);
    attn_tensor out = take_like(w, &state, tensor_last(&call->pooled));
    work_math(w)->copy(w, &first, &state);
    work_api(w)->norm(w, &v->norm_last, ACT_NONE, &state, NULL, NULL, NULL, NULL, &state);
    work_api(w)->linear(w, &state, &projection, NULL, &out);
    out.rank = 2;
    out.shape[1] = out.stride[0] = tensor_last(&call->pooled);
    out.stride[1] = 1;
    work_api(w)->read(w, &out, &call->pooled);
    work_reset(w, mark);
}

void clip_vision_forward(attn_work *w, const struct clip_vision *v,
                         const struct clip_vision_call *call)
{
    const struct clip_vision_config *c = &v->config;
    const int64_t shape[] = {call->patches->shape[0], c->tokens, c->layers.width};
    const attn_tensor x = work_take(w, NULL, 3, shape);
    embed(w, v, call->patches, &x);
    work_api(w)->norm(w, &v->norm_first, ACT_NONE, &x, NULL, NULL, NULL, NULL, &x);
    for (int64_t i = 0; i < c->layers.layers; i++) {
        const int last = i == c->layers.layers - 1;
        if (last && call->penultimate.rank) {
            work_api(w)->read(w, &x, &call->penultimate);
        }
        if (last && !call->projection) {
            break;
        }
        clip_layer_forward(w, &c->layers, &v->layers[i], call->op, 0, &x);
    }
    if (call->projection) {
        pool(w, v, call, &x);
    }
    work_api(w)->synchronize(w);
}
