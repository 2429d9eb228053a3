/* conv_of.c: convolutions that do something to their input as they read it: a group norm, or
 * nearest enlargement. */
#include "conv.h"

attn_status cpu_norm_conv(attn_work *w, const struct norm_call *n, const struct conv *conv,
                          const struct epilogue *e, const attn_tensor *y)
{
    const attn_tensor *x2 = tensor_here(n->x2) ? n->x2 : NULL;
    if (n->x->rank != 4 || !conv_takes_more(w, conv, y))
        return norm_then_conv(w, n, conv, e, y);
    if (conv_check(w, conv, n->x, x2, e, y) != ATTN_OK)
        return w->status;
    uint64_t mark = work_mark(w);
    struct folded_norm norm;
    if (cpu_norm_fold(w, n, &norm) == ATTN_OK) {
        const struct conv_call call = {.conv = conv,
                                       .x = n->x,
                                       .x2 = x2,
                                       .norm = &norm,
                                       .residual = epilogue_residual(e),
                                       .act = e ? e->activation : ACT_NONE,
                                       .y = y};
        conv_run(w, &call);
    }
    work_reset(w, mark);
    return w->status;
}

attn_status cpu_upsample_conv(attn_work *w, const attn_tensor *x, const struct conv *conv,
                              const attn_tensor *y)
{
    if (x->rank != 4 || y->rank != 4 || !conv_takes_more(w, conv, y) || x->shape[1] > y->shape[1] ||
        x->shape[2] > y->shape[2] || tensor_count(x) == 0)
        return upsample_then_conv(w, x, conv, y);
    attn_tensor large = *x; /* what the shape would be */
    large.shape[1] = y->shape[1];
    large.shape[2] = y->shape[2];
    if (conv_check(w, conv, &large, NULL, NULL, y) != ATTN_OK)
        return w->status;
    uint64_t mark = work_mark(w);
    const struct conv_call call = {.conv = conv, .x = x, .y = y};
    conv_run(w, &call);
    work_reset(w, mark);
    return w->status;
}
