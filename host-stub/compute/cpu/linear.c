/* linear.c: linears: what is asked for, and whether it fits. */
#include "linear.h"

static attn_status check_terms(struct linear_call *l)
{
    const attn_linear *linear = l->linear;
    int64_t out = l->columns * (l->gated ? 2 : 1);
    if (linear->n_terms > TERMS_MAX)
        return work_fail(l->w, ATTN_UNSUPPORTED, "linear: %u low-rank terms: at most %d",
                         linear->n_terms, TERMS_MAX);
    for (uint32_t i = 0; i < linear->n_terms; ++i) {
        const attn_term *t = &linear->terms[i];
        const attn_tensor *both[] = {&t->down, &t->up};
        if (t->kind != ATTN_TERM_LOW_RANK)
            return work_fail(l->w, ATTN_UNSUPPORTED,
                             "linear: term %u is of kind %u, expected %u (low rank)", i, t->kind,
                             ATTN_TERM_LOW_RANK);
        if (check_floats(l->w, "linear's term", 2, both) != ATTN_OK)
            return l->w->status;
        if (t->down.rank != 2 || t->up.rank != 2 || t->down.shape[1] != l->depth ||
            t->up.shape[0] != out || t->up.shape[1] != t->down.shape[0])
            return work_fail(l->w, ATTN_INVALID,
                             "linear: term %u has down %s and up %s: expected [rank, %lld] and "
                             "[%lld, rank]",
                             i, tensor_describe(&t->down).text, tensor_describe(&t->up).text,
                             (long long)l->depth, (long long)out);
        if (!work_dry(l->w) && t->slot >= l->w->n_scales)
            return work_fail(l->w, ATTN_INVALID, "linear: term %u has slot %u of %u scales", i,
                             t->slot, l->w->n_scales);
        l->rank += t->down.shape[0];
    }
    pass_saw_terms(l->w, linear);
    return l->w->status;
}

static attn_status check(struct linear_call *l, const char *what)
{
    const attn_tensor *weight = &l->linear->weight, *bias = &l->linear->bias;
    const attn_tensor *all[5] = {l->x, l->y, weight};
    uint32_t n = 3;
    if (l->w->status != ATTN_OK)
        return l->w->status;
    if (tensor_here(l->c))
        all[n++] = l->c;
    if (tensor_here(bias))
        all[n++] = bias;
    if (check_floats(l->w, what, n, all) != ATTN_OK)
        return l->w->status;
    l->depth = tensor_last(l->x);
    l->columns = tensor_last(l->y);
    int64_t out = l->columns * (l->gated ? 2 : 1);
    if (weight->rank != 2 || weight->shape[1] != l->depth || weight->shape[0] != out ||
        !tensor_same_leading(l->x, l->y))
        return work_fail(l->w, ATTN_INVALID, "%s: x %s, weight %s, y %s do not fit", what,
                         tensor_describe(l->x).text, tensor_describe(weight).text,
                         tensor_describe(l->y).text);
    if (tensor_here(bias) && (bias->rank != 1 || bias->shape[0] != out))
        return work_fail(l->w, ATTN_INVALID, "%s: bias %s: expected [%lld]", what,
                         tensor_describe(bias).text, (long long)out);
    if (tensor_here(l->c) ? !tensor_same_shape(l->c, l->y) : l->beta != 0.0f)
        return work_fail(l->w, ATTN_INVALID, "%s: c %s: expected the shape of y %s", what,
                         tensor_describe(l->c).text, tensor_describe(l->y).text);
    if (!tensor_here(l->c) || l->beta == 0.0f)
        l->c = NULL;
    return check_terms(l);
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
