/* layer_case.h: one random attention layer and a call of it, fp32, with double precision's answer.
 */
#ifndef ATTNPLUG_CHECK_LAYER_CASE_H
#define ATTNPLUG_CHECK_LAYER_CASE_H

#include "attn_abi.h"

#include <stdint.h>

enum { LAYER_BLOCKS = 64 };

struct layer_case {
    attn_layer layer;
    attn_layer_call call;
    void *blocks[LAYER_BLOCKS]; /* every tensor's memory */
    int n_blocks;
    uint64_t seed, index;
    int64_t tokens, keys; /* of the layer's own attention */
    double *want;         /* [B, tokens, channels]: what the plain layer gives */
    double *want_lse;     /* [B, heads, tokens] */
    double *want_mass;    /* [B, keys] */
    char text[256];
};

/* 0, or -1 for no memory.  Zeroed before; closed after either. */
int layer_case_open(struct layer_case *c, uint64_t seed, uint64_t index);
/* New hidden states; recomputes what is wanted. */
int layer_case_refresh(struct layer_case *c, uint64_t data_seed);
void layer_case_poison(struct layer_case *c); /* NaN in every output */
void layer_case_close(struct layer_case *c);

/* layer_reference.c: diffusers' AttnProcessor (v0.26.3) in double; fills want, want_lse and
 * want_mass. */
int layer_reference(struct layer_case *c);

/* out as [B, tokens, channels], whatever its rank. */
attn_tensor layer_tokens(const attn_tensor *t);

#endif
