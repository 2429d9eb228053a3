/* stored_layer.h: one file of tests/golden/processors: a layer, the words that name its processor,
 * and what is expected of it. */
#ifndef STORED_LAYER_H
#define STORED_LAYER_H

#include "attn_router.h"
#include "layer_file.h"
#include "processor_words.h"

struct stored_layer {
    struct layer_file *file;
    struct processor_words words;
    attn_name name;
    char base[32];      /* the processor that runs the layer: "lora+added_kv" has "added_kv" */
    char reference[16]; /* "diffusers" or "float64" */
    attn_tensor bias;
    float *bias_memory, *out;
    int64_t out_count;
};

/* 0 on success; otherwise err says why. */
attn_status stored_open(const char *path, struct stored_layer *s, attn_error *err);
void stored_close(struct stored_layer *s);

/* The call, with out poisoned. */
attn_layer_call stored_call(struct stored_layer *s);
/* Relative L2 of out against what is expected; infinite if a number is not finite. */
double stored_error(const struct stored_layer *s);

int64_t tensor_count(const attn_tensor *t);
double relative_error(const float *got, const float *expected, int64_t n);

#endif
