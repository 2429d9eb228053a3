/* norm_then_conv.c: a norm and the convolution that reads it. */
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
