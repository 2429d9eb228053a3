/* unet.h: UNet2DConditionModel (diffusers v0.26.3, models/unets/unet_2d_condition.py). */
#ifndef ATTNPLUG_MODEL_UNET_H
#define ATTNPLUG_MODEL_UNET_H

#include "layer.h"
#include "lora_set.h"
#include "model_source.h"

struct unet;

/* Which processor a layer gets: asked once for each attention layer, by diffusers' name
 * ("down_blocks.0.attentions.0.transformer_blocks.0.attn1"). */
struct unet_processors {
    /* Called before the first layer, with the width of the prompt embeddings; may be NULL. */
    attn_status (*begin)(void *ctx, int64_t cross_dim, attn_error *err);
    attn_status (*choose)(void *ctx, const char *layer, attn_layer_spec *spec, attn_error *err);
    void *ctx;
    struct lora_set *loras; /* whose terms its modules get; outlives the UNet; NULL: none */
};

attn_status unet_open_source(struct compute *c, const struct model_source *source,
                             const struct unet_processors *p, struct unet **out, attn_error *err);
/* Of diffusers' unet folder, no variant named. */
attn_status unet_open(struct compute *c, const char *folder, const struct unet_processors *p,
                      struct unet **out, attn_error *err);
void unet_close(struct unet *u);
void unet_rest(const struct unet *u); /* as weights_rest */

int64_t unet_in_channels(const struct unet *u);
int64_t unet_cross_dim(const struct unet *u);
int64_t unet_sample_size(const struct unet *u); /* latents a side, the model's own */
int64_t unet_downscale(const struct unet *u);   /* latents' sides are multiples of it */
/* Height and width of the mid block's tokens for latents of h x w. */
void unet_mid_size(const struct unet *u, int64_t h, int64_t w, int64_t *mid_h, int64_t *mid_w);

struct unet_call {
    attn_tensor sample;   /* [B, h, w, in] in the compute's type, at the device */
    attn_tensor timestep; /* [B] fp32, at the device */
    attn_tensor encoder;  /* [B, tokens, cross_dim] */
    attn_tensor out;      /* [B, h, w, out] */
    attn_tensor
        key_mass; /* [B, mid tokens] fp32 from the mid block's first self-attention, or absent */
    int32_t
        same_encoder; /* encoder and images are what they were in this shape's previous real run */
    const attn_param *params; /* n_params runtime values for every processor: diffusers'
                                 cross_attention_kwargs */
    uint32_t n_params;
    uint32_t n_scales;
    const float *scales; /* n_scales: what low-rank terms are multiplied by, one for each LoRA */
    uint32_t n_images;
    const attn_tensor *images; /* n_images image prompts, one for each IP-Adapter: [B, images,
                                  tokens, cross_dim] */
};

/* In a pass of the caller's: dry it plans, real it computes. */
attn_status unet_forward(attn_work *w, struct unet *u, const struct unet_call *call);

/* Layer `index`: diffusers' name, processor and op; ATTN_NOT_FOUND past the end. */
attn_status unet_layer(const struct unet *u, uint32_t index, const char **name,
                       const char **processor, const char **op);

#endif
