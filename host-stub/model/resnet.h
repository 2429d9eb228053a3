/* resnet.h: diffusers' ResnetBlock2D, Downsample2D and Upsample2D (v0.26.3, models/resnet.py,
 * models/downsampling.py, models/upsampling.py), with the options of Stable Diffusion's models.
 */
#ifndef ATTNPLUG_MODEL_RESNET_H
#define ATTNPLUG_MODEL_RESNET_H

#include "weights.h"

struct resnet {
    int64_t in, out;
    int32_t scale_shift; /* the time embedding scales and shifts; else it is added */
    float output_scale;  /* the sum is divided by it */
    attn_norm norm1, norm2;
    attn_linear time; /* time_emb_proj; absent in the autoencoder */
    struct conv *conv1, *conv2;
    struct conv *shortcut; /* NULL where in == out */
};

struct resnet_desc {
    int64_t in, out;
    int64_t time;        /* channels of the time embedding; 0: none */
    int32_t scale_shift; /* resnet_time_scale_shift "scale_shift" */
    float output_scale;
    int64_t groups;
    double eps;
};

void resnet_build(struct weights *w, struct resnet *r, const struct resnet_desc *desc,
                  const char *name);
/* x [B,H,W,.] and, unless it is NULL, x2 beside it in channels; time [B, channels] after its
 * activation, or NULL; y [B,H,W,out], not x. */
void resnet_forward(attn_work *w, const struct resnet *r, const attn_tensor *x,
                    const attn_tensor *x2, const attn_tensor *time, const attn_tensor *y);

/* A 3x3 convolution of stride 2.  padding 0 pads below and right, as diffusers does. */
struct conv *downsample_build(struct weights *w, int64_t channels, int64_t padding,
                              const char *name);
/* What one side becomes. */
int64_t downsample_size(int64_t size, int64_t padding);

/* A 3x3 convolution, for upsample_conv. */
struct conv *upsample_build(struct weights *w, int64_t channels, const char *name);

#endif
