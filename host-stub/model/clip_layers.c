#include "clip_layers.h"

#include "forward.h"

#include <stdio.h>
#include <string.h>

enum { MAX_WIDTH = 1 << 16, MAX_LAYERS = 256, NAME_BYTES = 128 };

void clip_layers_config_read(struct config *c, struct clip_layers_config *out)
{
    struct clip_layers_config l = {
        .width = config_int(c, "hidden_size", out->width, 1, MAX_WIDTH),
        .inner = config_int(c, "intermediate_size", out->inner, 1, 4 * MAX_WIDTH),
        .layers = config_int(c, "num_hidden_layers", out->layers, 1, MAX_LAYERS),
        .heads = config_int(c, "num_attention_heads", out->heads, 1, MAX_WIDTH),
        .eps = config_float(c, "layer_norm_eps", 1e-5)};
    const char *act = config_text(c, "hidden_act", "quick_gelu");
    l.activation = strcmp(act, "gelu") == 0 ? ACT_GELU : ACT_QUICK_GELU;
    if (l.activation == ACT_QUICK_GELU && strcmp(act, "quick_gelu") != 0) {
        config_refuse(c, ATTN_UNSUPPORTED, "hidden_act", "quick_gelu or gelu");
    }
    if (l.width % l.heads != 0) {
        config_refuse(c, ATTN_INVALID, "num_attention_heads", "a divisor of hidden_size");
    }
    *out = l;
}

static void layer_build(struct weights *w, const struct clip_layers_config *c, struct clip_layer *l,
                        const char *name)
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

struct clip_layer *clip_layers_build(struct weights *w, const struct clip_layers_config *c,
                                     const char *prefix)
{
    struct clip_layer *layers = weights_alloc(w, (size_t)c->layers, sizeof *layers);
    for (int64_t i = 0; layers && i < c->layers; i++) {
        char name[NAME_BYTES];
        (void)snprintf(name, sizeof name, "%sencoder.layers.%lld", prefix, (long long)i);
        layer_build(w, c, &layers[i], name);
    }
    return layers;
}

/* x += out(attention(norm(x))). */
static void add_attention(attn_work *w, const struct clip_layers_config *c,
                          const struct clip_layer *l, const char *op, int32_t causal,
                          const attn_tensor *x)
{
    const struct compute_api *api = work_api(w);
    const uint64_t mark = work_mark(w);
    const attn_tensor normed = take_like(w, x, c->width);
    const attn_tensor q = take_like(w, x, c->width);
    const attn_tensor k = take_like(w, x, c->width);
    const attn_tensor v = take_like(w, x, c->width);
    const struct epilogue add = {ACT_NONE, x};
    const struct op_choice choice = {.op = op};
    const int64_t dim = c->width / c->heads;
    attn_op_call call = {.size = sizeof call,
                         .q = heads_of(&q, 0, c->heads, dim),
                         .k = heads_of(&k, 0, c->heads, dim),
                         .v = heads_of(&v, 0, c->heads, dim),
                         .out = heads_of(&normed, 0, c->heads, dim)};
    if (causal) {
        call.flags = ATTN_CALL_BAND;
        call.band_lo = INT64_MIN;
        call.band_hi = 0;
    }
    api->norm(w, &l->norm1, ACT_NONE, x, NULL, NULL, NULL, NULL, &normed);
    api->linear(w, &normed, &l->q, NULL, &q);
    api->linear(w, &normed, &l->k, NULL, &k);
    api->linear(w, &normed, &l->v, NULL, &v);
    const char *outer = w->name;
    w->name = causal ? "text encoder" : "image encoder"; /* an op that was named may refuse */
    work_attend_by(w, &choice, &call, NULL);
    w->name = outer;
    api->linear(w, &normed, &l->out, &add, x);
    work_reset(w, mark);
}

/* x += fc2(activation(fc1(norm(x)))). */
static void add_feed_forward(attn_work *w, const struct clip_layers_config *c,
                             const struct clip_layer *l, const attn_tensor *x)
{
    const struct compute_api *api = work_api(w);
    const uint64_t mark = work_mark(w);
    const struct epilogue activate = {c->activation, NULL};
    const struct epilogue add = {ACT_NONE, x};
    const attn_tensor normed = take_like(w, x, c->width);
    const attn_tensor inner = take_like(w, x, c->inner);
    api->norm(w, &l->norm2, ACT_NONE, x, NULL, NULL, NULL, NULL, &normed);
    api->linear(w, &normed, &l->fc1, &activate, &inner);
    api->linear(w, &inner, &l->fc2, &add, x);
    work_reset(w, mark);
}

void clip_layer_forward(attn_work *w, const struct clip_layers_config *c,
                        const struct clip_layer *l, const char *op, int32_t causal,
                        const attn_tensor *x)
{
    add_attention(w, c, l, op, causal, x);
    add_feed_forward(w, c, l, x);
}
