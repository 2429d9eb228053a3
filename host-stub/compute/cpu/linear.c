/* linear.c: linears: what is asked for, and whether it fits. */
#include "linear.h"

static attn_status check(struct linear_call *l, const char *what)
{
    const attn_linear *linear = l->linear;
    const struct linear_args args = {
        .x = l->x, .linear = linear, .c = l->c, .y = l->y, .beta = l->beta, .gated = l->gated};
    if (l->w->status == ATTN_OK && linear->n_terms > TERMS_MAX)
        return work_fail(l->w, ATTN_UNSUPPORTED, "linear: %u low-rank terms: at most %d",
                         linear->n_terms, TERMS_MAX);
    if (check_linear(l->w, what, &args) != ATTN_OK)
        return l->w->status;
    l->depth = tensor_last(l->x);
    l->columns = tensor_last(l->y);
    for (uint32_t i = 0; i < linear->n_terms; ++i)
        l->rank += linear->terms[i].down.shape[0];
    if (!tensor_here(l->c) || l->beta == 0.0f)
        l->c = NULL;
    return ATTN_OK;
}

attn_status cpu_linear(attn_work *w, float alpha, const attn_tensor *x, const attn_linear *linear,
                       float beta, const attn_tensor *c, const attn_tensor *y)
{
    struct linear_call l = {
        .w = w, .x = x, .linear = linear, .y = y, .c = c, .alpha = alpha, .beta = beta};
    return check(&l, "linear") == ATTN_OK ? linear_run(&l) : w->status;
}

attn_status cpu_linear_epilogue(attn_work *w, const attn_tensor *x, const attn_linear *linear,
                                const struct epilogue *e, const attn_tensor *y)
{
    struct linear_call l = {.w = w, .x = x, .linear = linear, .y = y, .alpha = 1.0f};
    if (e) {
        l.activation = e->activation;
        l.c = e->residual;
        l.beta = tensor_here(e->residual) ? 1.0f : 0.0f;
    }
    return check(&l, "linear") == ATTN_OK ? linear_run(&l) : w->status;
}

attn_status cpu_geglu(attn_work *w, const attn_tensor *x, const attn_linear *linear,
                      const attn_tensor *y)
{
    struct linear_call l = {.w = w, .x = x, .linear = linear, .y = y, .alpha = 1.0f, .gated = true};
    return check(&l, "geglu") == ATTN_OK ? linear_run(&l) : w->status;
}
