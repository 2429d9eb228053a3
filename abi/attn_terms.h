/* attn_terms.h: the interface "org.attnplug.terms/1" that a processor may answer query with:
 * low-rank terms read from parameters, for whoever gives them to the linears of another processor.
 *
 * Beside the contract, not part of it: lora.so has it, and libattnsag asks for it to run "lora+B",
 * so that a LoRA's parameters are read in one place.  Conventions are those of attn_abi.h.
 */
#ifndef ATTN_TERMS_H
#define ATTN_TERMS_H

#include "attn_abi.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ATTN_TERMS_V1 "org.attnplug.terms/1"

typedef struct attn_terms attn_terms; /* the terms of one layer */

typedef struct {
    uint32_t size;
    uint32_t slots;                /* the most scales that a layer's terms have */
    const attn_param_list *params; /* what read takes */

    /* [any] A copy of the layer whose linears have the terms that params describe.  Others among
     * params are INVALID, as is what is missing or misshaped; a layer that has terms already is
     * UNSUPPORTED.  layer's weights and the tensors of params outlive the terms. */
    attn_status (*read)(const attn_layer *layer, const attn_param *params, uint32_t n_params,
                        const char *who, attn_terms **terms, attn_error *err);
    void (*release)(attn_terms *terms);                  /* [owner] NULL does nothing */
    const attn_layer *(*layer)(const attn_terms *terms); /* [any] lives as long as they do */
    uint32_t (*n_scales)(const attn_terms *terms);       /* [any] slots in use */
    int32_t (*wants_merging)(const attn_terms *terms);   /* [any] params said merged=1 */
    /* [owner] Adds the terms to copies of the weights and takes them from the layer.  *memory is
     * compute's, to be freed after the layer's last use.  work: that of a bind. */
    attn_status (*merge)(attn_terms *terms, const attn_compute *compute, attn_work *work,
                         void **memory, attn_error *err);
    /* [any] Scales of a call with these params: scales[slots], n_scales of them are set.  Merged
     * terms have the scales of read: a call that names another is INVALID. */
    attn_status (*scales)(const attn_terms *terms, const attn_param *params, uint32_t n_params,
                          float *scales, attn_error *err);
} attn_terms_api;

#ifdef __cplusplus
}
#endif

#endif /* ATTN_TERMS_H */
