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

static int64_t out_size(const struct conv *conv, int64_t in)
{
    int64_t room = in + conv->pad_low + conv->pad_high - conv->kernel;
    return room < 0 ? 0 : room / conv->stride + 1;
}

attn_status conv_check(attn_work *w, const struct conv *conv, const attn_tensor *x,
                       const attn_tensor *x2, const struct epilogue *e, const attn_tensor *y)
{
    const attn_tensor *all[] = {x, y, tensor_here(x2) ? x2 : x,
                                e && tensor_here(e->residual) ? e->residual : y};
    if (w->status != ATTN_OK || check_floats(w, "conv", 4, all) != ATTN_OK)
        return w->status;
    int64_t channels = x->rank == 4 ? x->shape[3] : 0;
    if (tensor_here(x2))
        channels += tensor_same_leading(x, x2) ? x2->shape[3] : 0;
    if (x->rank != 4 || y->rank != 4 || channels != conv->in_channels ||
        y->shape[0] != x->shape[0] || y->shape[1] != out_size(conv, x->shape[1]) ||
        y->shape[2] != out_size(conv, x->shape[2]) || y->shape[3] != conv->out_channels)
        return work_fail(w, ATTN_INVALID,
                         "conv %lldx%lld of %lld to %lld channels, stride %lld: x %s, x2 %s, y %s "
                         "do not fit",
                         (long long)conv->kernel, (long long)conv->kernel,
                         (long long)conv->in_channels, (long long)conv->out_channels,
                         (long long)conv->stride, tensor_describe(x).text, tensor_describe(x2).text,
                         tensor_describe(y).text);
    if (e && tensor_here(e->residual) && !tensor_same_shape(e->residual, y))
        return work_fail(w, ATTN_INVALID, "conv: residual %s: expected the shape of y %s",
                         tensor_describe(e->residual).text, tensor_describe(y).text);
    return ATTN_OK;
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
