/* staged_layer.h: layers at a device of which something lies in host memory: weights and a
 * processor's own tensors go there once, at bind; tensors of a call with each run. */
#ifndef ATTNPLUG_COMPUTE_STAGED_LAYER_H
#define ATTNPLUG_COMPUTE_STAGED_LAYER_H

#include "layer.h"

/* Copies at the device of what a layer and its processor's parameters point to in host memory; the
 * rest as it is. */
struct staged_weights;
attn_status staged_weights_open(struct compute *c, const attn_layer *layer,
                                const attn_layer_spec *spec, struct staged_weights **out,
                                attn_error *err);
void staged_weights_close(struct staged_weights *s); /* NULL does nothing */
const attn_layer *staged_layer(const struct staged_weights *s);
const attn_layer_spec *staged_spec(const struct staged_weights *s);

/* One run in a pass: dry it plans, real it copies in, computes, copies out and waits. */
attn_status staged_run(attn_work *w, struct layer *l, const attn_layer_call *call);

#endif
