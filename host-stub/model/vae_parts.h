/* vae_parts.h: what AutoencoderKL's two halves share (diffusers v0.26.3,
 * models/autoencoders/autoencoder_kl.py, models/autoencoders/vae.py).
 */
#ifndef ATTNPLUG_MODEL_VAE_PARTS_H
#define ATTNPLUG_MODEL_VAE_PARTS_H

#include "resnet.h"

enum { VAE_MAX_BLOCKS = 8, VAE_NAME_BYTES = 96 };

/* The autoencoder's own, which no config sets. */
#define VAE_NORM_EPS 1e-6

struct vae_config {
    int64_t latent_channels, in_channels, out_channels, layers, groups;
    int64_t sample_size; /* pixels a side that it was trained at */
    float scaling_factor;
    uint32_t n_levels;
    int64_t channels[VAE_MAX_BLOCKS]; /* from the picture's size down */
};

/* What a half is built from: the config, checked, and the weights, which are the caller's to close
 * where they are not NULL, after a failure too. */
attn_status vae_half_open(struct compute *c, const struct model_source *source,
                          struct vae_config *config, struct weights **weights, attn_error *err);
/* "<block>.resnets.<index>" */
void vae_resnet(struct weights *w, const struct vae_config *c, struct resnet *r, int64_t in,
                int64_t out, const char *block, int64_t index);

/* UNetMidBlock2D: a residual block, attention with one head, a residual block. */
struct vae_mid {
    struct resnet resnets[2];
    struct layer *attention;
};
/* name: "decoder.mid_block"; op: for the attention. */
void vae_mid_build(struct weights *w, const struct vae_config *c, struct vae_mid *mid,
                   const char *name, const char *op);
attn_tensor vae_mid_forward(attn_work *w, const struct vae_mid *mid, const attn_tensor *x);

#endif
