/* conv.h: a convolution and how it runs: by oneDNN (conv_onednn.c, conv_winograd.c) or, in a build
 * without it, by gemm.c (conv_gemm.c). */
#ifndef ATTNPLUG_CPU_CONV_H
#define ATTNPLUG_CPU_CONV_H

#include "cpu.h"

#define KERNEL_MAX 5

struct conv_weights;
struct conv_terms;

struct conv {
    struct cpu *cpu;
    int64_t in_channels, out_channels, kernel, stride, pad_low, pad_high;
    bool seldom;
    struct conv_weights *weights;
    struct conv_terms *terms; /* NULL: none */
};

/* Lays the weights out; nothing of d is needed afterwards.  The rest of conv is filled in. */
attn_status conv_weights_create(struct conv *conv, const struct conv_desc *d, attn_error *err);
void conv_weights_destroy(struct cpu *c, struct conv_weights *weights);

/* cpu_conv after its checks: y = act(conv(x beside x2)) + residual. */
struct conv_call {
    const struct conv *conv;
    const attn_tensor *x, *x2;      /* x2 NULL: none */
    const struct folded_norm *norm; /* of x and x2, first; NULL: none */
    const attn_tensor *residual;    /* NULL: none */
    enum activation act;
    const attn_tensor *y;
};
attn_status conv_run(attn_work *w, const struct conv_call *call);
/* May conv_run, where it gives this y, be given a norm, or an x that is smaller than y and to be
 * enlarged?  The same in a dry run as in the real ones. */
bool conv_takes_more(attn_work *w, const struct conv *conv, const attn_tensor *y);

attn_status conv_check(attn_work *w, const struct conv *conv, const attn_tensor *x,
                       const attn_tensor *x2, const struct epilogue *e, const attn_tensor *y);

static inline const attn_tensor *epilogue_residual(const struct epilogue *e)
{
    return e && tensor_here(e->residual) ? e->residual : NULL;
}

/* conv_terms.c: low-rank terms, each a thin convolution and a product. */
attn_status conv_terms_create(struct conv *conv, const struct conv_desc *d, attn_error *err);
void conv_terms_destroy(struct compute *c, struct conv_terms *terms);
/* conv_run with its terms, without a norm. */
attn_status conv_terms_run(attn_work *w, const struct conv_call *call);

#endif
