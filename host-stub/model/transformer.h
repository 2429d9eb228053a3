/* transformer.h: diffusers' Transformer2DModel over pictures with BasicTransformerBlock inside
 * (v0.26.3, models/transformers/transformer_2d.py, models/attention.py).
 */
#ifndef ATTNPLUG_MODEL_TRANSFORMER_H
#define ATTNPLUG_MODEL_TRANSFORMER_H

#include "attention.h"

struct transformer_block {
    attn_norm norm1, norm2, norm3;
    struct layer *attn1, *attn2;
    attn_linear ff_in, ff_out; /* GEGLU: [8 C, C] and [C, 4 C] */
};

struct transformer {
    int64_t channels;
    int32_t only_cross; /* attn1 sees the encoder states too */
    attn_norm norm;
    attn_linear proj_in, proj_out;
    struct transformer_block *blocks;
    int64_t n_blocks;
};

struct transformer_desc {
    int64_t channels, heads, cross_dim, n_blocks, groups;
    int32_t
        linear_projection; /* use_linear_projection: of the files' shapes; the sum is the same */
    int32_t only_cross;
    int32_t upcast;
};

/* Who is asked which processor a layer gets, and told each layer that was bound. */
struct transformer_hooks {
    void (*choose)(void *ctx, const char *layer, attn_layer_spec *spec);
    void (*bound)(void *ctx, const char *layer, struct layer *bound);
    void *ctx;
};

void transformer_build(struct weights *w, struct transformer *t,
                       const struct transformer_desc *desc, const struct transformer_hooks *hooks,
                       const char *name);

struct transformer_call {
    const attn_tensor *encoder;  /* [B, tokens, cross_dim] */
    int32_t same_encoder;        /* as in this plan's previous run */
    const attn_tensor *key_mass; /* wanted of the first block's self-attention, or NULL */
    const attn_param *params;    /* n_params runtime values for the processors */
    uint32_t n_params;
    uint32_t n_images;
    const attn_tensor *images; /* n_images image prompts for attn2: [B, images, tokens, channels] */
};

/* x [B,H,W,C] is changed in place. */
void transformer_forward(attn_work *w, const struct transformer *t,
                         const struct transformer_call *call, const attn_tensor *x);

#endif
