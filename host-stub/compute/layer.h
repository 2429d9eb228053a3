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

/* Which op computes an attention: as attn_router_prepare takes it.  Texts and params outlive the
 * pass. */
struct op_choice {
    const char *op; /* NULL: auto */
    const attn_param *params;
    uint32_t n_params;
    uint32_t flags; /* ATTN_ROUTE_... */
};

/* attn_compute.attend outside of layers (a text encoder's causal attention).  `taken`, unless NULL,
 * gets the id of the op. */
attn_status work_attend_by(attn_work *w, const struct op_choice *choice, const attn_op_call *call,
                           const char **taken);

const char *layer_processor(const struct layer *l);
const char *layer_op(const struct layer *l); /* id of the op that the last planned call took */

#endif
