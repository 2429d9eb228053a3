/* linear.c: linears: what is asked for, whether it fits, and the products that it is made of. */
#include "cuda.h"

#define GATED_BYTES (INT64_C(24) << 20) /* of a gated sum at once; the cache has 50 MB */

/* y = alpha act(x weight' + bias + terms) + beta c; gated: y = a gelu(g), [a | g] = the sum. */
struct linear_call {
    attn_work *w;
    const attn_tensor *x;
    const attn_linear *linear;
    const attn_tensor *y;
    const attn_tensor *c; /* NULL: none */
    float alpha, beta;
    enum activation activation;
    bool gated;
    int64_t columns; /* of the sum */
};

static attn_status check(struct linear_call *l, const char *what)
{
    const struct linear_args args = {
        .x = l->x, .linear = l->linear, .c = l->c, .y = l->y, .beta = l->beta, .gated = l->gated};
    if (check_linear(l->w, what, &args) != ATTN_OK)
        return l->w->status;
    l->columns = tensor_last(l->y) * (l->gated ? 2 : 1);
    if (!tensor_here(l->c) || l->beta == 0.0f)
        l->c = NULL;
    return ATTN_OK;
}

/* -- the sum ----------------------------------------------------------------------------------- */

/* out += alpha s (x down') up' for one term. */
static void add_term(const struct linear_call *l, const attn_tensor *x, const attn_term *t,
                     float alpha, const attn_tensor *out)
{
    attn_work *w = l->w;
    int64_t shape[4];
    memcpy(shape, x->shape, sizeof shape);
    shape[x->rank - 1] = t->down.shape[0];
    uint64_t mark = work_mark(w);
    attn_tensor thin = work_take(w, NULL, x->rank, shape);
    const float scale = alpha * t->factor * (work_dry(w) ? 1.0f : w->scales[t->slot]);
    const struct product down = {.x = x, .weight = &t->down, .y = &thin, .alpha = 1.0f};
    const struct product up = {
        .x = &thin, .weight = &t->up, .c = out, .y = out, .alpha = scale, .beta = 1.0f};
    product_run(w, &down);
    product_run(w, &up);
    work_reset(w, mark);
}

/* out = alpha (x weight' + terms) + beta c + bias. */
static void sum(const struct linear_call *l, const attn_tensor *x, const attn_tensor *bias,
                float alpha, float beta, const attn_tensor *c, const attn_tensor *out)
{
    const struct product all = {.x = x,
                                .weight = &l->linear->weight,
                                .bias = bias,
                                .c = c,
                                .y = out,
                                .alpha = alpha,
                                .beta = beta};
    product_run(l->w, &all);
    for (uint32_t i = 0; i < l->linear->n_terms && l->w->status == ATTN_OK; ++i)
        add_term(l, x, &l->linear->terms[i], alpha, out);
}

/* -- run --------------------------------------------------------------------------------------- */

/* By the product's own epilogue: alpha is 1 or there is no bias, and nothing is activated. */
static void run_fused(const struct linear_call *l, const attn_tensor *x, const attn_tensor *out)
{
    uint64_t mark = work_mark(l->w);
    attn_tensor c = {0};
    if (l->c)
        c = ready_input(l->w, l->c);
    sum(l, x, &l->linear->bias, l->alpha, l->beta, l->c ? &c : NULL, out);
    work_reset(l->w, mark);
}

/* The sum by itself, then one kernel for all that comes after it. */
static void run_apart(const struct linear_call *l, const attn_tensor *x, const attn_tensor *out)
{
    attn_work *w = l->w;
    uint64_t mark = work_mark(w);
    int64_t shape[4];
    memcpy(shape, out->shape, sizeof shape);
    shape[out->rank - 1] = l->columns;
    attn_tensor whole = work_take(w, NULL, out->rank, shape);
    sum(l, x, NULL, 1.0f, 0.0f, NULL, &whole);
    if (!work_dry(w) && w->status == ATTN_OK) {
        if (l->gated)
            work_check(w, "geglu", kernels()->geglu(&whole, &l->linear->bias, out, w->stream));
        else
            work_check(w, "a linear's epilogue",
                       kernels()->epilogue(l->alpha, (int32_t)l->activation, &whole,
                                           &l->linear->bias, l->beta, l->c, out, w->stream));
    }
    work_reset(w, mark);
}

/* Rows [first, first + n) of t seen as a matrix of evenly spaced rows. */
static attn_tensor rows_of(const attn_tensor *t, int64_t first, int64_t n)
{
    attn_tensor m = *t;
    const int64_t offset = first * row_stride(t) * (t->bits / 8);
    m.rank = 2;
    m.shape[0] = n;
    m.shape[1] = tensor_last(t);
    m.stride[0] = row_stride(t);
    m.stride[1] = 1;
    m.data = t->data ? (char *)t->data + offset : NULL;
    while (m.align > 1 && offset % m.align)
        m.align /= 2;
    return m;
}

/* A gated sum in parts whose unfinished values stay in the second-level cache until the gate reads
 * them. */
static void run_gated(const struct linear_call *l, const attn_tensor *x, const attn_tensor *out)
{
    const int64_t rows = tensor_count(out) / tensor_last(out);
    const int64_t bytes = l->columns * (out->bits / 8);
    int64_t parts = (rows * bytes + GATED_BYTES - 1) / GATED_BYTES;
    if (parts < 2 || !is_ready(work_compute(l->w), out)) {
        run_apart(l, x, out);
        return;
    }
    const int64_t each = ((rows + parts - 1) / parts + 127) / 128 * 128;
    for (int64_t first = 0; first < rows; first += each) {
        const int64_t n = rows - first < each ? rows - first : each;
        const attn_tensor part = rows_of(x, first, n), to = rows_of(out, first, n);
        run_apart(l, &part, &to);
    }
}

static attn_status run_once(const struct linear_call *l, bool fused)
{
    attn_work *w = l->w;
    uint64_t mark = work_mark(w);
    attn_tensor x = ready_input(w, l->x), out = *l->y;
    bool direct = !fused || is_ready(&cuda_of(w)->base, l->y);
    if (!direct)
        out = work_take(w, NULL, l->y->rank, l->y->shape);
    if (fused)
        run_fused(l, &x, &out);
    else if (l->gated)
        run_gated(l, &x, &out);
    else
        run_apart(l, &x, &out);
    if (!direct)
        cuda_copy(w, &out, l->y);
    work_reset(w, mark);
    return w->status;
}

static attn_status run(struct linear_call *l)
{
    bool may_fuse = l->activation == ACT_NONE && !l->gated;
    bool fused = may_fuse && (l->alpha == 1.0f || !tensor_here(&l->linear->bias));
    if (cuda_current(cuda_of(l->w), NULL) != ATTN_OK)
        return work_fail(l->w, ATTN_DEVICE, "device cuda: it cannot be made current");
    if (!tensor_count(l->y))
        return l->w->status;
    /* Later runs may bring other alphas and betas. */
    if (may_fuse && work_dry(l->w))
        run_once(l, !fused);
    return run_once(l, fused);
}

attn_status cuda_linear(attn_work *w, float alpha, const attn_tensor *x, const attn_linear *linear,
                        float beta, const attn_tensor *c, const attn_tensor *y)
{
    struct linear_call l = {
        .w = w, .x = x, .linear = linear, .y = y, .c = c, .alpha = alpha, .beta = beta};
    return check(&l, "linear") == ATTN_OK ? run(&l) : w->status;
}

attn_status cuda_linear_epilogue(attn_work *w, const attn_tensor *x, const attn_linear *linear,
                                 const struct epilogue *e, const attn_tensor *y)
{
    struct linear_call l = {.w = w, .x = x, .linear = linear, .y = y, .alpha = 1.0f};
    if (e) {
        l.activation = e->activation;
        l.c = e->residual;
        l.beta = tensor_here(e->residual) ? 1.0f : 0.0f;
    }
    return check(&l, "linear") == ATTN_OK ? run(&l) : w->status;
}

attn_status cuda_geglu(attn_work *w, const attn_tensor *x, const attn_linear *linear,
                       const attn_tensor *y)
{
    struct linear_call l = {.w = w, .x = x, .linear = linear, .y = y, .alpha = 1.0f, .gated = true};
    return check(&l, "geglu") == ATTN_OK ? run(&l) : w->status;
}
