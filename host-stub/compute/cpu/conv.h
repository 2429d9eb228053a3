/* conv.h: a convolution and how it runs: by oneDNN (conv_onednn.c) or, in a build without it, by
 * gemm.c (conv_gemm.c). */
#ifndef ATTNPLUG_CPU_CONV_H
#define ATTNPLUG_CPU_CONV_H

#include "cpu.h"

#define KERNEL_MAX 5

struct conv_weights;
struct conv_terms;

struct conv {
    struct cpu *cpu;
    int64_t in_channels, out_channels, kernel, stride, pad_low, pad_high;
    struct conv_weights *weights;
    struct conv_terms *terms; /* NULL: none */
};

/* Lays the weights out; nothing of d is needed afterwards.  The rest of conv is filled in. */
attn_status conv_weights_create(struct conv *conv, const struct conv_desc *d, attn_error *err);
void conv_weights_destroy(struct cpu *c, struct conv_weights *weights);

/* cpu_conv after its checks; x2 and residual NULL for none. */
attn_status conv_run(attn_work *w, const struct conv *conv, const attn_tensor *x,
                     const attn_tensor *x2, const attn_tensor *residual, enum activation act,
                     const attn_tensor *y);

/* conv_terms.c: low-rank terms, each a thin convolution and a product. */
attn_status conv_terms_create(struct conv *conv, const struct conv_desc *d, attn_error *err);
void conv_terms_destroy(struct compute *c, struct conv_terms *terms);
/* conv_run with its terms. */
attn_status conv_terms_run(attn_work *w, const struct conv *conv, const attn_tensor *x,
                           const attn_tensor *x2, const struct epilogue *e, const attn_tensor *y);

#endif
