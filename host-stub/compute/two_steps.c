/* two_steps.c: a convolution and what is done to its input: by the device in one operation where it
 * has one, else one after the other. */
#include "pass.h"

attn_status norm_then_conv(attn_work *w, const struct norm_call *n, const struct conv *conv,
                           const struct epilogue *e, const attn_tensor *y)
{
    const struct compute_api *api = work_compute(w)->api;
    const attn_tensor *x = n->x;
    const int64_t second = tensor_here(n->x2) ? tensor_last(n->x2) : 0;
    const int64_t shape[] = {x->shape[0], x->shape[1], x->shape[2], x->shape[3] + second};
    const uint64_t mark = work_mark(w);
    const attn_tensor normed = work_take(w, NULL, 4, shape);
    api->norm(w, n->norm, n->act, x, n->x2, n->add, n->scale, n->shift, &normed);
    api->conv(w, conv, &normed, NULL, e, y);
    work_reset(w, mark);
    return w->status;
}

attn_status norm_conv(attn_work *w, const struct norm_call *n, const struct conv *conv,
                      const struct epilogue *e, const attn_tensor *y)
{
    const struct compute_api *api = work_compute(w)->api;
    return api->norm_conv ? api->norm_conv(w, n, conv, e, y) : norm_then_conv(w, n, conv, e, y);
}

attn_status upsample_then_conv(attn_work *w, const attn_tensor *x, const struct conv *conv,
                               const attn_tensor *y)
{
    const struct compute_api *api = work_compute(w)->api;
    const int64_t shape[] = {x->shape[0], y->shape[1], y->shape[2], x->shape[3]};
    const uint64_t mark = work_mark(w);
    const attn_tensor large = work_take(w, NULL, 4, shape);
    api->upsample(w, x, &large);
    api->conv(w, conv, &large, NULL, NULL, y);
    work_reset(w, mark);
    return w->status;
}

attn_status upsample_conv(attn_work *w, const attn_tensor *x, const struct conv *conv,
                          const attn_tensor *y)
{
    const struct compute_api *api = work_compute(w)->api;
    return api->upsample_conv ? api->upsample_conv(w, x, conv, y)
                              : upsample_then_conv(w, x, conv, y);
}
