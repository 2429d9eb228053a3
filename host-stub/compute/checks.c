/* checks.c: what every device asks of its tensors and of a convolution's description. */
#include "checks.h"

attn_status check_floats(attn_work *w, const char *what, uint32_t n, const attn_tensor *const *t)
{
    for (uint32_t i = 0; i < n; ++i) {
        if (!t[i] || t[i]->rank < 1 || t[i]->rank > 4 || !tensor_is_float(t[i]))
            return work_fail(w, ATTN_INVALID, "%s: tensor %u is %s: expected fp32, fp16 or bf16",
                             what, i, tensor_describe(t[i] ? t[i] : &(attn_tensor){0}).text);
    }
    return w->status;
}

attn_status conv_desc_check(const struct conv_desc *d, int64_t kernel_max, attn_error *err)
{
    const attn_tensor *w = d->weight;
    if (d->kernel < 1 || d->kernel > kernel_max || d->stride < 1 || d->pad_low < 0 ||
        d->pad_high < 0)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         "conv: kernel %lld, stride %lld, padding %lld, %lld", (long long)d->kernel,
                         (long long)d->stride, (long long)d->pad_low, (long long)d->pad_high);
    const int64_t shape[] = {d->out_channels, d->in_channels, d->kernel, d->kernel};
    if (!tensor_here(w) || !tensor_is_float(w) || w->rank != 4 ||
        memcmp(w->shape, shape, sizeof shape) != 0)
        return attn_fail(err, ATTN_INVALID,
                         "conv: weight %s: expected [%lld, %lld, %lld, %lld] of a float type",
                         tensor_describe(w).text, (long long)shape[0], (long long)shape[1],
                         (long long)shape[2], (long long)shape[3]);
    if (tensor_here(d->bias) &&
        (!tensor_is_float(d->bias) || d->bias->rank != 1 || d->bias->shape[0] != d->out_channels))
        return attn_fail(err, ATTN_INVALID, "conv: bias %s: expected [%lld] of a float type",
                         tensor_describe(d->bias).text, (long long)d->out_channels);
    return ATTN_OK;
}
