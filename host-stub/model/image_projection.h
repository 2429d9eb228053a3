/* image_projection.h: the networks between an image encoder and the cross-attention layers of an
 * IP-Adapter (diffusers v0.26.3, models/embeddings.py: ImageProjection,
 * IPAdapterFullImageProjection, IPAdapterPlusImageProjection), from files with the names of the
 * adapters' first publication. */
#ifndef ATTNPLUG_MODEL_IMAGE_PROJECTION_H
#define ATTNPLUG_MODEL_IMAGE_PROJECTION_H

#include "weights.h"

enum image_projection_kind { PROJECTION_PLAIN, PROJECTION_FULL, PROJECTION_PLUS };

struct image_projection {
    enum image_projection_kind kind;
    int64_t width;  /* of what it reads */
    int64_t cross;  /* of the tokens that it gives */
    int64_t tokens; /* that it gives; full: as many as it reads */
    attn_linear in, out;
    attn_norm norm;
    int64_t hidden, heads, depth; /* the rest is Plus's */
    attn_tensor latents;          /* [1, tokens, hidden] */
    struct resampler_layer *layers;
};

/* Which kind the file holds and how large it is, by its tensors.  A failure stays with weights. */
void image_projection_build(struct weights *w, struct image_projection *p);

/* in [batch, seen, width] and out [batch, tokens, cross], both at the host.  op: of the
 * resampler's attention, NULL: auto. */
void image_projection_forward(attn_work *w, const struct image_projection *p, const char *op,
                              const attn_tensor *in, const attn_tensor *out);

#endif
