/* composition.h: "lora+B": processor B on a layer whose linears have the low-rank terms of LoRA
 * adapters, which come as parameters under diffusers' names.  "lora" alone is "lora+standard".
 * The plugin lora reads them (attn_terms.h).
 *
 * B needs to know nothing of it but to hand its linears to compute as they are
 * (ATTN_HEAD_TERMS); merged into copies of the weights, the terms suit any B.
 */
#ifndef ATTNPLUG_COMPUTE_COMPOSITION_H
#define ATTNPLUG_COMPUTE_COMPOSITION_H

#include "attn_terms.h"
#include "compute.h"

#include <stdbool.h>

enum { COMPOSITION_SLOTS = 64 };

struct composition;

/* The processor below "lora" or "lora+B"; NULL where `processor` is not composed. */
const char *composition_base(const char *processor);

/* The plugin's interface, checked; `id` names it in texts. */
attn_status composition_api(const void *queried, const char *id, const attn_terms_api **api,
                            attn_error *err);

/* Takes its own from params and leaves the rest for B, whose id and head are given for what it
 * cannot do.  work: that of a bind.  layer and the tensors of params outlive it. */
attn_status composition_open(struct compute *c, const attn_terms_api *api, const attn_layer *layer,
                             const attn_param *params, uint32_t n_params, const attn_head *base,
                             attn_work *work, struct composition **out, attn_error *err);
void composition_close(struct composition *composition); /* NULL does nothing */

/* The layer to bind B to. */
const attn_layer *composition_layer(const struct composition *composition);

/* Every parameter against all that takes some: the composition (terms NULL: none), the layer's
 * choice of an op, and the processor, whose list is "attn.params/1" (NULL: it says nothing, and
 * will check by itself).  So that the nearest name is found wherever it belongs. */
attn_status composition_check(const attn_param_list *terms, const attn_param_list *processor,
                              const attn_param *params, uint32_t n_params, const char *who,
                              attn_error *err);

/* Sets work's scales to those of a call, in scales[COMPOSITION_SLOTS]. */
attn_status composition_scales(const struct composition *composition, const attn_layer_call *call,
                               float *scales, attn_work *work);

#endif
