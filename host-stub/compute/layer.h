/* layer.h: attention layers inside a model's forward pass: what attn_layer.h does, on the model's
 * arena. */
#ifndef ATTNPLUG_COMPUTE_LAYER_H
#define ATTNPLUG_COMPUTE_LAYER_H

#include "attn_layer.h"
#include "compute.h"

/* A layer bound to its processor, for use in a pass. */
struct layer;
attn_status layer_bind(struct compute *c, const attn_layer *layer, const attn_layer_spec *spec,
                       struct layer **out, attn_error *err);
void layer_unbind(struct layer *l);

/* In the model's pass: dry it prepares (finding an op that gives what the call asks for), real it
 * runs.  call->work is set to w. */
attn_status layer_run(attn_work *w, struct layer *l, attn_layer_call *call);

const char *layer_processor(const struct layer *l);
const char *layer_op(const struct layer *l); /* id of the op that the last planned call took */

#endif
