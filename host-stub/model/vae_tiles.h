/* vae_tiles.h: decoding in tiles, so that a large picture takes the memory of one tile.
 *
 * diffusers v0.26.3, models/autoencoders/autoencoder_kl.py, AutoencoderKL.tiled_decode: tiles of
 * the model's own size, a quarter of which overlaps, where they are faded into one another.  The
 * result differs from a decoding in one: a tile's attention and norms see the tile alone.  Where
 * the model's size is not a multiple of four latents, upstream's pieces do not fit together; here
 * they overlap by what is left of a tile after the whole latents of three quarters. */
#ifndef ATTNPLUG_MODEL_VAE_TILES_H
#define ATTNPLUG_MODEL_VAE_TILES_H

#include "vae.h"

/* Whether tiles are fewer than one decoding for latents of h x w. */
int32_t vae_tiles_help(const struct vae *v, int64_t h, int64_t w);

/* latents: host fp32 [h, w, channels], already divided by the scaling factor; pixels: host fp32
 * [H, W, 3], -1 to 1.  Both NULL in a dry run, which plans every size of tile. */
attn_status vae_decode_tiles(attn_work *w, struct vae *v, int64_t h, int64_t width,
                             const float *latents, float *pixels);

#endif
