/* unet_blocks.h: the blocks of Stable Diffusion's UNets (diffusers v0.26.3,
 * models/unets/unet_2d_blocks.py: DownBlock2D, CrossAttnDownBlock2D, UNetMidBlock2DCrossAttn,
 * UpBlock2D, CrossAttnUpBlock2D).
 */
#ifndef ATTNPLUG_MODEL_UNET_BLOCKS_H
#define ATTNPLUG_MODEL_UNET_BLOCKS_H

#include "resnet.h"
#include "transformer.h"
#include "unet_config.h"

/* Outputs of the down path that the up path takes back, last first. */
struct skips {
    attn_tensor of[UNET_MAX_BLOCKS * (UNET_MAX_LAYERS + 1) + 1];
    uint32_t n;
};

struct unet_block {
    int64_t n_layers;
    struct resnet *resnets;           /* n_layers; the mid block has one more */
    struct transformer *transformers; /* n_layers, or NULL: a block without attention */
    struct conv *resize;              /* down- or upsampler; NULL in the last block */
    int64_t channels;
};

struct unet_builder {
    struct weights *weights;
    const struct unet_config *config;
    const struct transformer_hooks *hooks;
    int64_t time_channels;
};

void down_block_build(struct unet_builder *b, struct unet_block *block, uint32_t level);
void mid_block_build(struct unet_builder *b, struct unet_block *block);
/* index: from the deepest level. */
void up_block_build(struct unet_builder *b, struct unet_block *block, uint32_t index);

struct block_call {
    const attn_tensor *time; /* [B, channels], activated */
    const struct transformer_call *attend;
    int64_t padding; /* downsample_padding */
};

/* Takes what it gives from the arena: the block's results are the last of `skips`. */
void down_block_forward(attn_work *w, const struct unet_block *block, const struct block_call *call,
                        struct skips *skips);
attn_tensor mid_block_forward(attn_work *w, const struct unet_block *block,
                              const struct block_call *call, const attn_tensor *x);
/* Takes n_layers of the skips. */
attn_tensor up_block_forward(attn_work *w, const struct unet_block *block,
                             const struct block_call *call, const attn_tensor *x,
                             struct skips *skips);

#endif
