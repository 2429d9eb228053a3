/* layer_case.h: one random attention layer and a call of it, fp32, every tensor between guard
 * pages, with double precision's answer. */
#ifndef ATTNPLUG_CHECK_LAYER_CASE_H
#define ATTNPLUG_CHECK_LAYER_CASE_H

#include "guard.h"
#include "random.h"

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

/* The memory of a tensor. */
struct layer_block {
    struct guard guard;
    const char *name;
    int output;
    unsigned char *elements; /* of an output: strided_mark's */
    uint64_t filled;         /* of anything else: guard_bits once it was filled */
};

struct layer_case {
    attn_layer layer;
    attn_layer_call call;
    struct layer_block blocks[LAYER_BLOCKS];
    int n_blocks, short_of_memory;
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
    char text[512];
};

/* 0, or -1 for no memory.  Zeroed before; closed after either. */
int layer_case_open(struct layer_case *c, enum layer_form form, uint64_t seed, uint64_t index);
/* New hidden states; recomputes what is wanted. */
int layer_case_refresh(struct layer_case *c, uint64_t data_seed);
/* layer_memory.c: as named from the slowest axis, with a token's or a pixel's channels together, or
 * with gaps; pixels of a picture always follow one another, since processors may refuse others. */
enum lay { LAY_PACKED, LAY_CHANNELS_LAST, LAY_GAPS };
attn_tensor layer_tensor(uint32_t rank, int64_t a, int64_t b, int64_t d, int64_t e); /* packed */
void layer_lay_out(attn_tensor *t, enum lay lay);
/* With memory, the case's; absent where there is none, which layer_case_open then says. */
attn_tensor layer_tensor_open(struct layer_case *c, const char *name, attn_tensor t, int output);
void layer_fill(const attn_tensor *t, struct random *r, double center, double spread);
/* Bytes of which most are not 0; a row in ten is all 0. */
void layer_fill_mask(const attn_tensor *t, struct random *r);
void layer_case_poison(struct layer_case *c); /* NaN in every output */
/* Whether something was written to that is no element of an output, and in words where. */
int layer_case_overrun(const struct layer_case *c, char *text, size_t bytes);
/* Whether two tensors of one shape hold the same bits. */
int layer_case_same(const attn_tensor *a, const attn_tensor *b);
/* A sum over what the outputs hold. */
uint64_t layer_case_bits(const struct layer_case *c);
void layer_case_close(struct layer_case *c);

/* layer_reference.c: diffusers' AttnProcessor, AttnAddedKVProcessor or IPAdapterAttnProcessor
 * (v0.26.3) in double; fills what is wanted. */
int layer_reference(struct layer_case *c);

/* out as [B, tokens, channels], whatever its rank. */
attn_tensor layer_tokens(const attn_tensor *t);

#endif
