/* lora.h: LoRA weights given as parameters, made low-rank terms of a layer's linears.
 *
 * Compiled into lora.so.  Names are diffusers' (v0.26.3 src/diffusers/models/lora.py and
 * attention_processor.py, LoRAAttnProcessor): "<adapter>.to_q_lora.down.weight"; a single LoRA may
 * leave "<adapter>." out.
 */
#ifndef ATTN_COMMON_LORA_H
#define ATTN_COMMON_LORA_H

#include "attn_abi.h"

enum { LORA_SLOTS = 64, LORA_NAME = 96, LORA_TARGETS = 6 };

struct lora_adapter {
    char name[LORA_NAME]; /* "" where it was left out */
    double scale;         /* from bind; a call's "<adapter>.scale" stands in for it */
};

/* The terms of adapter i have slot i. */
struct lora {
    attn_layer layer; /* the given one, its linears with the terms */
    attn_term *terms;
    struct lora_adapter adapters[LORA_SLOTS];
    uint32_t n_adapters;
    double scale;   /* of all adapters; a call's "scale" stands in for it */
    int64_t merged; /* the parameter of that name */
};

/* What lora_read takes. */
extern const attn_param_list lora_params;

/* Reads those of the params that are in lora_params; the others are somebody else's.  INVALID names
 * what is missing, superfluous or misshaped; a layer that has terms already is UNSUPPORTED.  layer
 * and the tensors of params outlive l. */
attn_status lora_read(struct lora *l, const attn_layer *layer, const attn_param *params,
                      uint32_t n_params, const char *who, attn_error *err);
void lora_free(struct lora *l);
/* The linears that LoRA knows: to_q, to_k, to_v, to_out, add_k, add_v. */
attn_linear *lora_linear(attn_layer *layer, int target);

/* The scales of a call: scales[LORA_SLOTS], n_adapters of them are set.  params: the call's. */
attn_status lora_scales(const struct lora *l, const attn_param *params, uint32_t n_params,
                        float *scales, const char *who, attn_error *err);

/* Adds the terms, at the scales of bind, to copies of the weights, summed in fp32, and takes them
 * from the layer.  *memory is compute's, to be freed after the layer's last use; the original
 * weights stay as they are.  work: that of a bind. */
attn_status lora_merge(struct lora *l, const attn_compute *compute, attn_work *work, void **memory,
                       attn_error *err);
/* A merged LoRA has the scales of its bind: a call that names another is INVALID. */
attn_status lora_merged_check(const struct lora *l, const attn_param *params, uint32_t n_params,
                              const char *who, attn_error *err);

#endif
