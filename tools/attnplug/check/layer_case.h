/* layer_case.h: one random attention layer and a call of it, fp32, with double precision's answer.
 */
#ifndef ATTNPLUG_CHECK_LAYER_CASE_H
#define ATTNPLUG_CHECK_LAYER_CASE_H

#include "attn_abi.h"

#include <stdint.h>

enum { LAYER_BLOCKS = 64 };

/* What kind of layers a processor is for. */
enum layer_form {
    FORM_PLAIN,  /* self and cross attention, with every norm */
    FORM_ADDED,  /* with added projections, with and without own keys */
    FORM_IMAGES, /* an image prompt beside the text, its weights given at bind by diffusers' names
                  */
    FORM_COUNT
};

struct layer_case {
    attn_layer layer;
    attn_layer_call call;
    void *blocks[LAYER_BLOCKS]; /* every tensor's memory */
    int n_blocks;
    uint64_t seed, index;
    enum layer_form form;
    attn_param params[2]; /* of bind: the images' projections */
    uint32_t n_params;
    attn_tensor ip_k, ip_v, image;
    int64_t tokens, keys; /* of the layer's own attention */
    double *want;         /* [B, tokens, channels]: what diffusers' layer of this form gives */
    double *want_lse;     /* [B, heads, tokens] */
    double *want_mass;    /* [B, keys] */
    double *want_probs;   /* [B, heads, tokens, keys] */
    char text[256];
};

/* 0, or -1 for no memory.  Zeroed before; closed after either. */
int layer_case_open(struct layer_case *c, enum layer_form form, uint64_t seed, uint64_t index);
/* New hidden states; recomputes what is wanted. */
int layer_case_refresh(struct layer_case *c, uint64_t data_seed);
void layer_case_poison(struct layer_case *c); /* NaN in every output */
void layer_case_close(struct layer_case *c);

/* layer_reference.c: diffusers' AttnProcessor, AttnAddedKVProcessor or IPAdapterAttnProcessor
 * (v0.26.3) in double; fills what is wanted. */
int layer_reference(struct layer_case *c);

/* out as [B, tokens, channels], whatever its rank. */
attn_tensor layer_tokens(const attn_tensor *t);

#endif
