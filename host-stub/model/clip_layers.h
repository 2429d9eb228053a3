/* clip_layers.h: the transformer that CLIP's text and vision models share (transformers v4.37.2,
 * models/clip/modeling_clip.py, CLIPEncoder): layers of norm, attention, norm, feed-forward. */
#ifndef ATTNPLUG_MODEL_CLIP_LAYERS_H
#define ATTNPLUG_MODEL_CLIP_LAYERS_H

#include "config.h"
#include "weights.h"

struct clip_layers_config {
    int64_t width, inner, layers, heads;
    enum activation activation;
    double eps;
};

/* Of a CLIPTextConfig or CLIPVisionConfig, whose defaults are in *out before; a failure stays with
 * the config. */
void clip_layers_config_read(struct config *c, struct clip_layers_config *out);

struct clip_layer {
    attn_norm norm1, norm2;
    attn_linear q, k, v, out, fc1, fc2;
};

/* The layers "<prefix>encoder.layers.<i>", as long-lived as the weights; NULL after a failure,
 * which stays with the weights. */
struct clip_layer *clip_layers_build(struct weights *w, const struct clip_layers_config *c,
                                     const char *prefix);

/* x [B, tokens, width] through one layer, in place; `op` is for the attention (NULL: auto).
 * causal: a token sees itself and those before it. */
void clip_layer_forward(attn_work *w, const struct clip_layers_config *c,
                        const struct clip_layer *l, const char *op, int32_t causal,
                        const attn_tensor *x);

#endif
