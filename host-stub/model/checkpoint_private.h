#ifndef ATTNPLUG_MODEL_CHECKPOINT_PRIVATE_H
#define ATTNPLUG_MODEL_CHECKPOINT_PRIVATE_H

#include "checkpoint.h"

enum {
    CHECKPOINT_LEVELS = 8,
    CHECKPOINT_LAYERS = 16,
    CHECKPOINT_DEPTH = 64,
    CHECKPOINT_NAME = 256
};

#define CHECKPOINT_UNET "model.diffusion_model."
#define CHECKPOINT_EMA  "model_ema."
#define CHECKPOINT_VAE  "first_stage_model."
#define CHECKPOINT_CLIP "cond_stage_model.transformer."
#define CHECKPOINT_OPEN "cond_stage_model.model."

/* What the shapes say. */
struct checkpoint_unet {
    int64_t in_channels, out_channels, cross_dim;
    int64_t class_inputs; /* of label_emb; 0: none */
    int64_t layers;       /* resnets of a down block */
    uint32_t n_levels;
    int32_t linear; /* proj_in is a linear */
    int64_t channels[CHECKPOINT_LEVELS];
    int64_t depth[CHECKPOINT_LEVELS]; /* transformer blocks of each attention; 0: no attention */
    int64_t up_depth[CHECKPOINT_LEVELS];
    int64_t mid_depth;
};

struct checkpoint_vae {
    int64_t in_channels, out_channels, latent_channels, layers;
    uint32_t n_levels;
    int64_t channels[CHECKPOINT_LEVELS];
};

struct checkpoint_text {
    int32_t openclip;
    int64_t vocabulary, width, inner, layers, tokens;
};

struct checkpoint {
    safetensors *file;
    int32_t ema;
    struct checkpoint_unet unet;
    struct checkpoint_vae vae;
    struct checkpoint_text text;
};

/* checkpoint_shapes.c */
attn_status checkpoint_measure(struct checkpoint *c, attn_error *err);

/* checkpoint_names.c: the diffusers name of a tensor of the UNet (its prefix taken off), or of the
 * autoencoder likewise; `name` as it is where no pattern fits. */
void unet_name(const struct checkpoint_unet *u, const char *name, char out[CHECKPOINT_NAME]);
void vae_name(const struct checkpoint_vae *v, const char *name, char out[CHECKPOINT_NAME]);
/* OpenCLIP's; in_proj_weight and in_proj_bias, which hold query, key and value, are the caller's to
 * cut: *cut is 1 and `out` ends before "q_proj.weight". */
void openclip_name(const char *name, char out[CHECKPOINT_NAME], int32_t *cut);

#endif
