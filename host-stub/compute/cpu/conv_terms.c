/* conv_terms.c: convolutions with low-rank terms: y += s up (down * x), the first a convolution to
 * as many channels as the rank, the second a product. */
#include "conv.h"

#include <stdlib.h>

struct term {
    struct conv *down;
    attn_linear up;
    float factor;
    uint32_t slot;
};

struct conv_terms {
    uint32_t n;
    struct term of[];
};

attn_status conv_terms_create(struct conv *conv, const struct conv_desc *d, attn_error *err)
{
    struct compute *c = &conv->cpu->base;
    attn_status status = ATTN_OK;
    conv->terms = calloc(1, sizeof *conv->terms + d->n_terms * sizeof conv->terms->of[0]);
    if (!conv->terms)
        return attn_fail(err, ATTN_NOMEM, "conv: no memory for %u low-rank terms", d->n_terms);
    for (uint32_t i = 0; i < d->n_terms && status == ATTN_OK; ++i) {
        const struct conv_term *t = &d->terms[i];
        struct conv_desc down = *d;
        down.weight = &t->down;
        down.bias = NULL;
        down.terms = NULL;
        down.n_terms = 0;
        down.weight_read = NULL; /* which speaks of the convolution's own */
        down.out_channels = t->down.shape[0];
        conv->terms->of[conv->terms->n++] =
            (struct term){.up = {.weight = t->up}, .factor = t->factor, .slot = t->slot};
        status = cpu_conv_create(c, &down, &conv->terms->of[i].down, err);
    }
    return status;
}

void conv_terms_destroy(struct compute *c, struct conv_terms *terms)
{
    if (!terms)
        return;
    for (uint32_t i = 0; i < terms->n; ++i)
        cpu_conv_destroy(c, terms->of[i].down);
    free(terms);
}

/* y += s up (down * x) */
static void add_term(attn_work *w, const struct term *t, const attn_tensor *x,
                     const attn_tensor *x2, const attn_tensor *y)
{
    if (w->status == ATTN_OK && !work_dry(w) && t->slot >= w->n_scales) {
        work_fail(w, ATTN_INVALID, "conv: a low-rank term has slot %u of %u scales", t->slot,
                  w->n_scales);
        return;
    }
    uint64_t mark = work_mark(w);
    int64_t shape[] = {y->shape[0], y->shape[1], y->shape[2], t->down->out_channels};
    attn_tensor thin = work_take(w, NULL, 4, shape);
    cpu_conv(w, t->down, x, x2, NULL, &thin);
    float scale = t->factor * (work_dry(w) || w->status != ATTN_OK ? 1.0f : w->scales[t->slot]);
    cpu_combine(w, scale, &thin, 0.0f, NULL, &thin);
    cpu_linear(w, 1.0f, &thin, &t->up, 1.0f, y, y);
    work_reset(w, mark);
}

attn_status conv_terms_run(attn_work *w, const struct conv_call *call)
{
    const struct conv_terms *terms = call->conv->terms;
    /* The activation acts on the whole sum, before the residual joins. */
    const bool plain = call->act == ACT_NONE;
    const attn_tensor sum = plain ? *call->y : work_take(w, NULL, 4, call->y->shape);
    struct conv_call first = *call;
    first.act = ACT_NONE;
    first.residual = plain ? call->residual : NULL;
    first.y = &sum;
    conv_run(w, &first);
    for (uint32_t i = 0; i < terms->n; ++i)
        add_term(w, &terms->of[i], call->x, call->x2, &sum);
    if (plain)
        return w->status;
    cpu_activate(w, call->act, &sum, &sum);
    if (call->residual)
        return cpu_combine(w, 1.0f, &sum, 1.0f, call->residual, call->y);
    return cpu_copy(w, &sum, call->y);
}
