/* vae.h: AutoencoderKL's decoder (diffusers v0.26.3, models/autoencoders/autoencoder_kl.py). */
#ifndef ATTNPLUG_MODEL_VAE_H
#define ATTNPLUG_MODEL_VAE_H

#include "layer.h"
#include "model_source.h"

struct vae;

/* op: for its attention; NULL: auto. */
attn_status vae_open_source(struct compute *c, const struct model_source *source, const char *op,
                            struct vae **out, attn_error *err);
/* Of diffusers' vae folder, no variant named. */
attn_status vae_open(struct compute *c, const char *folder, const char *op, struct vae **out,
                     attn_error *err);
void vae_close(struct vae *v);
int64_t vae_factor(const struct vae *v);      /* pixels per latent */
int64_t vae_sample_size(const struct vae *v); /* pixels a side, the model's own */
int64_t vae_latent_channels(const struct vae *v);
float vae_scaling_factor(const struct vae *v);

/* latents [B, h, w, 4], already divided by the scaling factor -> pictures [B, H, W, 3], -1 to 1, in
 * the compute's type.  In a pass of the caller's. */
attn_status vae_decode(attn_work *w, struct vae *v, const attn_tensor *latents,
                       const attn_tensor *out);

#endif
