/* clip_vision.h: CLIP's vision transformer (transformers v4.37.2, models/clip/modeling_clip.py,
 * CLIPVisionTransformer), which image encoders and safety checkers are made of. */
#ifndef ATTNPLUG_MODEL_CLIP_VISION_H
#define ATTNPLUG_MODEL_CLIP_VISION_H

#include "clip_layers.h"

struct clip_vision_config {
    struct clip_layers_config layers;
    int64_t size, patch; /* pixels a side, of the picture and of a patch */
    int64_t side;        /* patches a side; what is left of the picture is not seen */
    int64_t tokens;      /* those patches, and the class before them */
    int64_t projection;
};

/* Of a CLIPVisionConfig; a failure stays with the config. */
void clip_vision_config_read(struct config *c, struct clip_vision_config *out);

/* Lives as long as its weights. */
struct clip_vision;
/* prefix: "vision_model."; NULL after a failure, which stays with the weights. */
struct clip_vision *clip_vision_build(struct weights *w, const struct clip_vision_config *c,
                                      const char *prefix);

/* One pass over pictures [batch, 3, size, size] in fp32 at the host, planes as the processor of
 * images gives them; `op` is for the attention (NULL: auto). */
struct clip_vision_call {
    const char *op;
    const attn_tensor *patches;    /* host [batch, side^2, 3 patch^2]: clip_vision_cut */
    const attn_tensor *projection; /* weight of a linear [n, width] for the pooled states, at the
                                      device; or NULL: not wanted */
    attn_tensor pooled;            /* out, at the host: [batch, n] */
    attn_tensor penultimate;       /* out, at the host, or absent: hidden_states[-2], that is before
                                      the last layer: [batch, tokens, width] */
};
void clip_vision_forward(attn_work *w, const struct clip_vision *v,
                         const struct clip_vision_call *call);

/* A picture's planes as rows of its patches, in the order of the weight. */
void clip_vision_cut(const struct clip_vision_config *c, int64_t batch, const float *planes,
                     float *patches);

#endif
