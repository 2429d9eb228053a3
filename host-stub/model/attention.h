/* attention.h: diffusers' Attention module (v0.26.3, models/attention_processor.py): its weights
 * from a folder, bound to the processor that somebody chose.
 */
#ifndef ATTNPLUG_MODEL_ATTENTION_H
#define ATTNPLUG_MODEL_ATTENTION_H

#include "weights.h"

/* The module's arguments, as far as Stable Diffusion's models set them. */
struct attention_desc {
    int64_t heads, dim_head;
    int64_t query_dim;
    int64_t cross_dim;   /* 0: self attention */
    int32_t bias;        /* of query, key and value */
    uint32_t flags;      /* ATTN_LAYER_... */
    int64_t norm_groups; /* group norm before the projections; 0: none */
    double norm_eps;
};

/* name: the module's, also in the file.  Belongs to the weights; NULL after a failure. */
struct layer *attention_open(struct weights *w, const struct attention_desc *desc, const char *name,
                             const attn_layer_spec *spec);

#endif
