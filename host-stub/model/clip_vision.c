#include "clip_vision.h"

#include "forward.h"
#include "tensor.h"

#include <string.h>

enum { MAX_WIDTH = 1 << 16, MAX_LAYERS = 256, MAX_SIDE = 1 << 12, NAME_BYTES = 128 };

struct vision_layer {
    attn_norm norm1, norm2;
    attn_linear q, k, v, out, fc1, fc2;
};

struct clip_vision {
    struct clip_vision_config config;
    attn_linear patch;               /* the convolution as a linear over patches */
    attn_tensor class_, positions;   /* [width], [tokens, width] */
    attn_norm norm_first, norm_last; /* pre_layrnorm, as it is spelt, and post_layernorm */
    struct vision_layer *layers;
};

/* -- building ---------------------------------------------------------------------------------- */

void clip_vision_config_read(struct config *c, struct clip_vision_config *out)
{
    struct clip_vision_config v = {0};
    config_only(c, "model_type", "\"clip_vision_model\"");
    config_only(c, "num_channels", "3");
    v.width = config_int(c, "hidden_size", 768, 1, MAX_WIDTH);
    v.inner = config_int(c, "intermediate_size", 3072, 1, 4 * MAX_WIDTH);
    v.layers = config_int(c, "num_hidden_layers", 12, 1, MAX_LAYERS);
    v.heads = config_int(c, "num_attention_heads", 12, 1, MAX_WIDTH);
    v.size = config_int(c, "image_size", 224, 1, MAX_SIDE);
    v.patch = config_int(c, "patch_size", 32, 1, MAX_SIDE);
    v.projection = config_int(c, "projection_dim", 512, 1, MAX_WIDTH);
    v.eps = config_float(c, "layer_norm_eps", 1e-5);
    const char *act = config_text(c, "hidden_act", "quick_gelu");
    v.activation = strcmp(act, "gelu") == 0 ? ACT_GELU : ACT_QUICK_GELU;
    if (v.activation == ACT_QUICK_GELU && strcmp(act, "quick_gelu") != 0) {
        config_refuse(c, ATTN_UNSUPPORTED, "hidden_act", "quick_gelu or gelu");
    }
    if (v.width % v.heads != 0) {
        config_refuse(c, ATTN_INVALID, "num_attention_heads", "a divisor of hidden_size");
    }
    if (v.patch > v.size) {
        config_refuse(c, ATTN_INVALID, "patch_size", "at most image_size");
    }
    v.side = v.size / v.patch;
    v.tokens = v.side * v.side + 1;
    *out = v;
}

static void layer_build(struct weights *w, const struct clip_vision_config *c,
                        struct vision_layer *l, const char *name)
{
    const int64_t n = c->width;
    weights_norm(w, &l->norm1, ATTN_NORM_LAYER, n, 0, c->eps, "%s.layer_norm1", name);
    weights_linear(w, &l->q, n, n, 1, "%s.self_attn.q_proj", name);
    weights_linear(w, &l->k, n, n, 1, "%s.self_attn.k_proj", name);
    weights_linear(w, &l->v, n, n, 1, "%s.self_attn.v_proj", name);
    weights_linear(w, &l->out, n, n, 1, "%s.self_attn.out_proj", name);
    weights_norm(w, &l->norm2, ATTN_NORM_LAYER, n, 0, c->eps, "%s.layer_norm2", name);
    weights_linear(w, &l->fc1, c->inner, n, 1, "%s.mlp.fc1", name);
    weights_linear(w, &l->fc2, n, c->inner, 1, "%s.mlp.fc2", name);
}

/* [out, 3, patch, patch] as [out, 3 patch^2]: patches do not overlap. */
static attn_linear patch_build(struct weights *w, const struct clip_vision_config *c,
                               const char *prefix)
{
    const int64_t shape[] = {c->width, 3, c->patch, c->patch};
    const int64_t flat[] = {c->width, 3 * c->patch * c->patch};
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
    const int64_t positions[] = {c->tokens, c->width};
    struct clip_vision *v = weights_alloc(w, 1, sizeof *v);
    if (!v) {
        return NULL;
    }
    v->config = *c;
    v->patch = patch_build(w, c, prefix);
    v->class_ = weights_tensor(w, 1, &c->width, "%sembeddings.class_embedding", prefix);
    v->positions =
        weights_tensor(w, 2, positions, "%sembeddings.position_embedding.weight", prefix);
    weights_norm(w, &v->norm_first, ATTN_NORM_LAYER, c->width, 0, c->eps, "%spre_layrnorm", prefix);
    weights_norm(w, &v->norm_last, ATTN_NORM_LAYER, c->width, 0, c->eps, "%spost_layernorm",
                 prefix);
    v->layers = weights_alloc(w, (size_t)c->layers, sizeof *v->layers);
    for (int64_t i = 0; v->layers && i < c->layers; i++) {
        char name[NAME_BYTES];
        (void)snprintf(name, sizeof name, "%sencoder.layers.%lld", prefix, (long long)i);
        layer_build(w, c, &v->layers[i], name);
    }
    return weights_status(w) == ATTN_OK ? v : NULL;
}

/* -- the forward pass -------------------------------------------------------------------------- */

attn_tensor clip_vision_host(const float *data, uint32_t rank, const int64_t *shape)
{
    static const attn_tensor f32 = {
        .device_type = ATTN_DEVICE_CPU, .code = ATTN_CODE_FLOAT, .bits = 32, .lanes = 1};
    return tensor_of((void *)(uintptr_t)data, &f32, rank, shape);
}

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

/* Tokens [first, first + n) of x. */
static attn_tensor tokens_of(const attn_tensor *x, int64_t first, int64_t n)
{
    attn_tensor t = *x;
    t.data = t.data ? (char *)t.data + (uint64_t)(first * t.stride[1]) * (t.bits / 8u) : NULL;
    t.shape[1] = n;
    t.align = 0;
    return t;
}

/* x = [class | patches] + positions. */
static void embed(attn_work *w, const struct clip_vision *v, const attn_tensor *host,
                  const attn_tensor *x)
{
    const struct clip_vision_config *c = &v->config;
    const uint64_t mark = work_mark(w);
    const attn_tensor patches = work_take(w, NULL, 3, host->shape);
    const attn_tensor seen = take_like(w, &patches, c->width);
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

/* [B, tokens, width] as [B, heads, tokens, head dimension]. */
static attn_tensor by_heads(const attn_tensor *x, int64_t heads)
{
    attn_tensor t = *x;
    t.rank = 4;
    t.shape[3] = x->shape[2] / heads;
    t.shape[2] = x->shape[1];
    t.shape[1] = heads;
    t.stride[3] = 1;
    t.stride[2] = x->stride[1];
    t.stride[1] = t.shape[3];
    t.align = 0;
    return t;
}

/* x += out(attention(norm(x))). */
static void add_attention(attn_work *w, const struct clip_vision *v, const struct vision_layer *l,
                          const char *op, const attn_tensor *x)
{
    const struct compute_api *api = work_api(w);
    const int64_t width = v->config.width;
    const int64_t heads = v->config.heads;
    const uint64_t mark = work_mark(w);
    const attn_tensor normed = take_like(w, x, width);
    const attn_tensor q = take_like(w, x, width);
    const attn_tensor k = take_like(w, x, width);
    const attn_tensor values = take_like(w, x, width);
    const struct epilogue add = {ACT_NONE, x};
    const struct op_choice choice = {.op = op};
    const attn_op_call call = {.size = sizeof call,
                               .q = by_heads(&q, heads),
                               .k = by_heads(&k, heads),
                               .v = by_heads(&values, heads),
                               .out = by_heads(&normed, heads)};
    api->norm(w, &l->norm1, ACT_NONE, x, NULL, NULL, NULL, NULL, &normed);
    api->linear(w, &normed, &l->q, NULL, &q);
    api->linear(w, &normed, &l->k, NULL, &k);
    api->linear(w, &normed, &l->v, NULL, &values);
    work_attend_by(w, &choice, &call, NULL);
    api->linear(w, &normed, &l->out, &add, x);
    work_reset(w, mark);
}

/* x += fc2(activation(fc1(norm(x)))). */
static void add_feed_forward(attn_work *w, const struct clip_vision *v,
                             const struct vision_layer *l, const attn_tensor *x)
{
    const struct compute_api *api = work_api(w);
    const uint64_t mark = work_mark(w);
    const struct epilogue activate = {v->config.activation, NULL};
    const struct epilogue add = {ACT_NONE, x};
    const attn_tensor normed = take_like(w, x, v->config.width);
    const attn_tensor inner = take_like(w, x, v->config.inner);
    api->norm(w, &l->norm2, ACT_NONE, x, NULL, NULL, NULL, NULL, &normed);
    api->linear(w, &normed, &l->fc1, &activate, &inner);
    api->linear(w, &inner, &l->fc2, &add, x);
    work_reset(w, mark);
}

/* The class token's last state, normed and projected. */
static void pool(attn_work *w, const struct clip_vision *v, const struct clip_vision_call *call,
                 const attn_tensor *x)
{
    const uint64_t mark = work_mark(w);
    const attn_linear projection = {.weight = *call->projection};
    const int64_t shape[] = {x->shape[0], 1, v->config.width};
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
    const int64_t shape[] = {call->patches->shape[0], c->tokens, c->width};
    const attn_tensor x = work_take(w, NULL, 3, shape);
    embed(w, v, call->patches, &x);
    work_api(w)->norm(w, &v->norm_first, ACT_NONE, &x, NULL, NULL, NULL, NULL, &x);
    for (int64_t i = 0; i < c->layers; i++) {
        const int last = i == c->layers - 1;
        if (last && call->penultimate.rank) {
            work_api(w)->read(w, &x, &call->penultimate);
        }
        if (last && !call->projection) {
            break;
        }
        add_attention(w, v, &v->layers[i], call->op, &x);
        add_feed_forward(w, v, &v->layers[i], &x);
    }
    if (call->projection) {
        pool(w, v, call, &x);
    }
    work_api(w)->synchronize(w);
}
