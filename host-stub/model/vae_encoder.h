/* vae_encoder.h: AutoencoderKL's encoder (diffusers v0.26.3,
 * models/autoencoders/autoencoder_kl.py): pictures to the distribution of their latents. */
#ifndef ATTNPLUG_MODEL_VAE_ENCODER_H
#define ATTNPLUG_MODEL_VAE_ENCODER_H

#include "layer.h"
#include "model_source.h"

struct vae_encoder;

/* op: for its attention; NULL: auto. */
attn_status vae_encoder_open(struct compute *c, const struct model_source *source, const char *op,
                             struct vae_encoder **out, attn_error *err);
void vae_encoder_close(struct vae_encoder *v); /* NULL does nothing */
int64_t vae_encoder_latent_channels(const struct vae_encoder *v);
/* Latents for a side of that many pixels; 0: too few. */
int64_t vae_encoder_side(const struct vae_encoder *v, int64_t pixels);

/* pictures [B, H, W, 3], -1 to 1, in the compute's type -> moments [B, h, w, 2 * latent channels]:
 * the means, then the logarithms of the variances.  In a pass of the caller's. */
attn_status vae_encode(attn_work *w, struct vae_encoder *v, const attn_tensor *pictures,
                       const attn_tensor *moments);

/* moments [h, w, 2 * channels] of one picture in host memory -> latents [channels, h, w]: the
 * means, and unless `noise` (normal numbers of the latents' layout) is NULL a sample of the
 * distribution.  diffusers' DiagonalGaussianDistribution: logarithms are held to -30..20.  Not
 * multiplied by scaling_factor. */
void vae_latents(const float *moments, int64_t channels, int64_t cells, const float *noise,
                 float *latents);

#endif
