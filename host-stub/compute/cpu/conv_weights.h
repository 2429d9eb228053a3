/* conv_weights.h: a convolution's weights in oneDNN's layouts, for conv_onednn.c and
 * conv_winograd.c. */
#ifndef ATTNPLUG_CPU_CONV_WEIGHTS_H
#define ATTNPLUG_CPU_CONV_WEIGHTS_H

#include "conv.h"
#include "onednn.h"

/* x of that size, y that follows from it; neither activation nor accumulation. */
struct onednn_conv conv_shape(const struct conv *conv, int64_t batch, int64_t height,
                              int64_t width);
/* The weights as the plan wants them, laid out now if need be, until they are done with.  NULL is a
 * failure.  Not in dry runs. */
struct conv_layout {
    const struct onednn_conv *shape;
    const struct onednn_plan *plan; /* of that shape */
    void *scratch;                  /* the plan's, unused as yet; NULL: none */
};
const struct onednn_weights *conv_weights_use(attn_work *w, const struct conv *conv,
                                              const struct conv_layout *to);
void conv_weights_done(const struct conv *conv, const struct onednn_weights *weights);
/* May weights be laid out again and again? */
bool conv_weights_stay(const struct conv *conv);
const float *conv_bias(const struct conv *conv);

/* The plan that was kept under the shape, in a dry run one made for it.  NULL: none, and an error
 * unless the shape asks for Winograd. */
struct onednn_plan *conv_plan(attn_work *w, const struct onednn_conv *shape);
/* Runs the plan from x to y, both laid out as it wants them. */
attn_status conv_execute(attn_work *w, const struct conv *conv, const struct onednn_conv *shape,
                         const float *x, float *y);

/* -- conv_winograd.c --------------------------------------------------------------------------- */

/* Is this convolution done by Winograd's algorithm where it gives y? */
bool conv_is_winograd(attn_work *w, const struct conv *conv, const attn_tensor *y);
attn_status conv_winograd_run(attn_work *w, const struct conv_call *call);

#endif
