/* conv.c: convolutions over channels-last pictures: what is asked for, and whether it fits. */
#include "conv.h"

#include <stdlib.h>

void cpu_conv_destroy(struct compute *c, struct conv *conv)
{
    if (!conv)
        return;
    conv_terms_destroy(c, conv->terms);
    conv_weights_destroy(conv->cpu, conv->weights);
    free(conv);
}

attn_status cpu_conv_create(struct compute *c, const struct conv_desc *d, struct conv **out,
                            attn_error *err)
{
    attn_status status = conv_desc_check(d, KERNEL_MAX, err);
    if (status != ATTN_OK)
        return status;
    struct conv *conv = calloc(1, sizeof *conv);
    if (!conv)
        return attn_fail(err, ATTN_NOMEM, "conv: no memory for weights %s",
                         tensor_describe(d->weight).text);
    *conv = (struct conv){.cpu = (struct cpu *)c,
                          .in_channels = d->in_channels,
                          .out_channels = d->out_channels,
                          .kernel = d->kernel,
                          .stride = d->stride,
                          .pad_low = d->pad_low,
                          .pad_high = d->pad_high,
                          .seldom = d->seldom};
    status = conv_weights_create(conv, d, err);
    if (status == ATTN_OK && d->n_terms)
        status = conv_terms_create(conv, d, err);
    if (status != ATTN_OK) {
        cpu_conv_destroy(c, conv);
        return status;
    }
    *out = conv;
    return ATTN_OK;
}

attn_status conv_check(attn_work *w, const struct conv *conv, const attn_tensor *x,
                       const attn_tensor *x2, const struct epilogue *e, const attn_tensor *y)
{
    const struct conv_sizes sizes = {conv->in_channels, conv->out_channels, conv->kernel,
                                     conv->stride,      conv->pad_low,      conv->pad_high};
    return check_conv(w, &sizes, x, x2, e, y);
}

attn_status cpu_conv(attn_work *w, const struct conv *conv, const attn_tensor *x,
                     const attn_tensor *x2, const struct epilogue *e, const attn_tensor *y)
{
    if (conv_check(w, conv, x, x2, e, y) != ATTN_OK)
        return w->status;
    const struct conv_call call = {.conv = conv,
                                   .x = x,
                                   .x2 = tensor_here(x2) ? x2 : NULL,
                                   .residual = epilogue_residual(e),
                                   .act = e ? e->activation : ACT_NONE,
                                   .y = y};
    uint64_t mark = work_mark(w);
    if (conv->terms)
        conv_terms_run(w, &call);
    else
        conv_run(w, &call);
    work_reset(w, mark);
    return w->status;
}
