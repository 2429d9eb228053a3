/* unet_config.h: what a UNet's config.json says (diffusers v0.26.3,
 * models/unets/unet_2d_condition.py), checked.
 */
#ifndef ATTNPLUG_MODEL_UNET_CONFIG_H
#define ATTNPLUG_MODEL_UNET_CONFIG_H

#include "error.h"
#include "model_source.h"

enum { UNET_MAX_BLOCKS = 8, UNET_MAX_LAYERS = 16 };

/* One level: a down block, and the up block that mirrors it. */
struct unet_level {
    int64_t channels;
    int64_t layers;       /* resnets of the down block; the up block has one more */
    int64_t heads;        /* "attention_head_dim": diffusers' name for the number of heads */
    int64_t transformers; /* transformer blocks in each attention */
    int32_t only_cross;
    int32_t down_attention; /* CrossAttnDownBlock2D, else DownBlock2D */
    int32_t up_attention;   /* CrossAttnUpBlock2D, else UpBlock2D */
};

struct unet_config {
    int64_t in_channels, out_channels;
    int64_t sample_size; /* 0: the config has none */
    int64_t cross_dim;
    int64_t time_channels; /* of the time embedding */
    int64_t conv_in_kernel, conv_out_kernel;
    int64_t groups;
    double eps;
    int64_t downsample_padding;
    int32_t center_input, flip_sin_to_cos, linear_projection, upcast_attention, scale_shift;
    float freq_shift;
    float mid_scale; /* mid_block_scale_factor */
    uint32_t n_levels;
    struct unet_level levels[UNET_MAX_BLOCKS];
};

/* ATTN_UNSUPPORTED names the option, its value and what is supported. */
attn_status unet_config_read(const struct model_source *source, struct unet_config *out,
                             attn_error *err);

#endif
