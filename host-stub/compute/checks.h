/* checks.h: what every device asks of the tensors of an operation, before it does its own.
 *
 * A failure sticks to the work and names the operation and what does not fit.  All return
 * w->status, and do nothing where that is a failure already. */
#ifndef ATTNPLUG_COMPUTE_CHECKS_H
#define ATTNPLUG_COMPUTE_CHECKS_H

#include "pass.h"

/* Cells on each side of one that sag_degrade's blur takes in. */
#define BLUR_RADIUS 4

/* Each is a float tensor; what names the operation. */
attn_status check_floats(attn_work *w, const char *what, uint32_t n, const attn_tensor *const *t);

attn_status check_copy(attn_work *w, const attn_tensor *src, const attn_tensor *dst);
attn_status check_combine(attn_work *w, const attn_tensor *a, float beta, const attn_tensor *b,
                          const attn_tensor *out);
attn_status check_activate(attn_work *w, const attn_tensor *x, const attn_tensor *y);
attn_status check_upsample(attn_work *w, const attn_tensor *x, const attn_tensor *y);
attn_status check_embed(attn_work *w, const attn_tensor *ids, const attn_tensor *table,
                        const attn_tensor *positions, const attn_tensor *y);
attn_status check_timestep(attn_work *w, const attn_tensor *t, const attn_tensor *y);
attn_status check_degrade(attn_work *w, const attn_tensor *key_mass, int64_t mh, int64_t mw,
                          const attn_tensor *mask_in, const attn_tensor *x0,
                          const attn_tensor *out);

/* GROUP and LAYER; of attn_compute.norm's SPATIAL the tensors alone. */
attn_status check_norm(attn_work *w, const struct norm_call *n, const attn_tensor *y);
attn_status check_spatial(attn_work *w, const attn_tensor *x, const attn_tensor *zq,
                          const attn_tensor *y);

/* Of a linear, and of its terms, of which pass_saw_terms is told. */
struct linear_args {
    const attn_tensor *x;
    const attn_linear *linear;
    const attn_tensor *c, *y; /* c may be NULL or absent where beta is 0 */
    float beta;
    bool gated; /* the weight has two halves for y's columns */
};
attn_status check_linear(attn_work *w, const char *what, const struct linear_args *l);

/* Weight and bias have the shapes that the numbers say, and kernel <= kernel_max. */
attn_status conv_desc_check(const struct conv_desc *d, int64_t kernel_max, attn_error *err);
/* What a convolution is, without its weights. */
struct conv_sizes {
    int64_t in_channels, out_channels, kernel, stride, pad_low, pad_high;
};
attn_status check_conv(attn_work *w, const struct conv_sizes *s, const attn_tensor *x,
                       const attn_tensor *x2, const struct epilogue *e, const attn_tensor *y);

#endif
