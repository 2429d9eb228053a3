/* norm_conv.c: a group norm whose factor and term go into the convolution that reads it. */
#include "conv.h"

attn_status cpu_norm_conv(attn_work *w, const struct norm_call *n, const struct conv *conv,
                          const struct epilogue *e, const attn_tensor *y)
{
    const attn_tensor *x2 = tensor_here(n->x2) ? n->x2 : NULL;
    if (n->x->rank != 4 || !conv_takes_norm(w, conv, n->x))
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
