/* linear_gemm.c: linears where oneDNN is absent, with low-rank terms as more depth of the same
 * product:
 *
 *   x W' + sum s (x down') up'  =  [x | s x down'] [W | up]'
 *
 * so that a term costs its two thin products and no pass over y.
 */
#include "linear.h"
#include "pack.h"

#include <stdlib.h>

#define DOTS_ROWS 4

struct linear_plan {
    struct cpu *cpu;
    struct packed *packed;
};

static void plan_release(struct compute *c, void *plan)
{
    struct linear_plan *p = plan;
    packed_release((struct cpu *)c, p->packed);
    free(p);
}

static struct pack_source source_of(const attn_tensor *t)
{
    return (struct pack_source){.type = *t,
                                .data = t->data,
                                .column_stride = t->stride[0],
                                .depth_stride = t->shape[1] == 1 ? 1 : t->stride[1],
                                .depth = t->shape[1]};
}

/* Weights in the arena change from run to run: their panels are not kept.  In a dry run the arena
 * begins at address 0. */
static bool in_arena(const attn_work *w, const void *data)
{
    uint64_t at = (uint64_t)(uintptr_t)data;
    return work_dry(w) ? at <= w->peak : at >= w->base && at - w->base < w->capacity;
}

static bool may_keep(const struct linear_call *l, const struct pack_shape *shape)
{
    for (int32_t i = 0; i < shape->n_sources; ++i) {
        if (in_arena(l->w, shape->sources[i].data))
            return false;
    }
    return true;
}

static void plan_key_of(struct plan_key *key, const struct pack_shape *shape, int64_t rows)
{
    key_begin(key, "linear");
    key_number(key, rows);
    key_number(key, shape->columns);
    key_number(key, shape->gated);
    for (int32_t i = 0; i < shape->n_sources; ++i) {
        const struct pack_source *s = &shape->sources[i];
        int64_t numbers[6] = {(int64_t)(uintptr_t)s->data,
                              s->column_stride,
                              s->depth_stride,
                              s->depth,
                              s->type.code,
                              s->type.bits};
        key_bytes(key, numbers, sizeof numbers);
    }
}

/* The kept panels, or NULL: then they are packed into scratch in each run. */
static const float *panels_kept(const struct linear_call *l, const struct pack_shape *shape,
                                int64_t rows, bool *kept)
{
    *kept = false;
    if (!may_keep(l, shape))
        return NULL;
    struct plan_key key;
    plan_key_of(&key, shape, rows);
    struct linear_plan *plan = plan_find(work_pass(l->w), &key);
    if (work_dry(l->w) && (!plan || plan->packed->forgotten)) {
        struct packed *packed = packed_find(cpu_of(l->w), shape, rows);
        if (!packed)
            return NULL;
        plan = malloc(sizeof *plan);
        if (!plan) {
            packed_release(cpu_of(l->w), packed);
            work_fail(l->w, ATTN_NOMEM, "linear: no memory for a plan");
            return NULL;
        }
        *plan = (struct linear_plan){.cpu = cpu_of(l->w), .packed = packed};
        if (plan_keep(l->w, &key, plan, plan_release) != ATTN_OK)
            return NULL;
    }
    *kept = plan != NULL;
    return plan ? plan->packed->panels : NULL;
}

static void gemm_fill(struct gemm *g, const struct linear_call *l, const attn_tensor *x,
                      const attn_tensor *c, const attn_tensor *y)
{
    *g = (struct gemm){.cpu = cpu_of(l->w),
                       .columns = l->columns,
                       .taps = 1,
                       .parts = 1,
                       .depth = {l->depth},
                       .gated = l->gated,
                       .activation = l->activation,
                       .alpha = l->alpha,
                       .beta = l->beta};
    g->x_rows[0] = rows_of(x);
    g->y = rows_of(y);
    g->rows = g->y.count;
    if (c)
        g->c = rows_of(c);
}

/* s x down' of all terms, side by side. */
static attn_tensor run_terms(const struct linear_call *l, const attn_tensor *x)
{
    attn_tensor all = *l->y;
    all.shape[all.rank - 1] = l->rank;
    all = work_take(l->w, NULL, all.rank, all.shape);
    attn_tensor part = all;
    int64_t at = 0;
    for (uint32_t i = 0; i < l->linear->n_terms && l->w->status == ATTN_OK; ++i) {
        const attn_term *t = &l->linear->terms[i];
        attn_linear down = {.weight = t->down};
        part.shape[part.rank - 1] = t->down.shape[0];
        part.data = all.data ? (float *)all.data + at : NULL;
        at += t->down.shape[0];
        struct linear_call inner = {.w = l->w,
                                    .x = x,
                                    .linear = &down,
                                    .y = &part,
                                    .alpha = t->factor *
                                             (work_dry(l->w) ? 1.0f : l->w->scales[t->slot])};
        inner.columns = t->down.shape[0];
        inner.depth = l->depth;
        linear_run(&inner);
    }
    return all;
}

/* Few rows: every weight is read once, where it lies. */
static bool runs_as_dots(const struct linear_call *l, int64_t rows)
{
    const attn_tensor *weight = &l->linear->weight;
    return rows <= DOTS_ROWS && !l->gated && !l->rank && !l->c && tensor_f32(weight) &&
           tensor_last_contiguous(weight);
}

struct dots_job {
    const struct gemm *g;
    const attn_tensor *weight;
};

static void dots_range(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct dots_job *job = arg;
    const struct gemm *g = job->g;
    const float *x[DOTS_ROWS];
    float *y[DOTS_ROWS];
    (void)thread;
    for (int64_t r = 0; r < g->rows; ++r) {
        x[r] = rows_at(&g->x_rows[0], r);
        y[r] = (float *)rows_at(&g->y, r) + begin;
    }
    const attn_tensor *weight = job->weight;
    g->cpu->kernels->dots(g->rows, end - begin, g->depth[0], x,
                          (const float *)weight->data + begin * weight->stride[0],
                          weight->stride[0], y);
    const struct kernels *k = g->cpu->kernels;
    for (int64_t r = 0; r < g->rows; ++r) {
        k->combine(end - begin, 1.0f, y[r], 1.0f, g->bias + begin, y[r]);
        k->activate(g->activation, end - begin, y[r], y[r]);
        if (g->alpha != 1.0f)
            k->combine(end - begin, g->alpha, y[r], 0.0f, y[r], y[r]);
    }
}

static attn_status run_gemm(struct linear_call *l, const attn_tensor *x, const attn_tensor *y)
{
    attn_work *w = l->w;
    const struct kernels *k = cpu_of(w)->kernels;
    struct gemm g;
    attn_tensor c;
    if (l->c)
        c = rows_input(w, l->c);
    gemm_fill(&g, l, x, l->c ? &c : NULL, y);
    const int64_t bias_shape[] = {gemm_padded(k, l->columns, l->gated)};
    attn_tensor bias = work_take(w, NULL, 1, bias_shape);
    g.bias = bias.data;
    bool dry = work_dry(w);
    if (runs_as_dots(l, g.rows)) {
        if (dry || w->status != ATTN_OK)
            return w->status;
        pack_bias(cpu_of(w), &l->linear->bias, l->columns, false, bias.data);
        struct dots_job job = {.g = &g, .weight = &l->linear->weight};
        parallel(cpu_of(w), l->columns, 64, dots_range, &job);
        return w->status;
    }
    struct pack_source sources[1 + TERMS_MAX] = {source_of(&l->linear->weight)};
    struct pack_shape shape = {
        .columns = l->columns, .gated = l->gated, .n_sources = 1, .sources = sources};
    attn_tensor terms;
    if (l->rank) {
        terms = run_terms(l, x);
        g.x_rows[1] = rows_of(&terms);
        g.parts = 2;
        g.depth[1] = l->rank;
        for (uint32_t i = 0; i < l->linear->n_terms; ++i)
            sources[shape.n_sources++] = source_of(&l->linear->terms[i].up);
    }
    bool kept;
    g.panels = panels_kept(l, &shape, g.rows, &kept);
    attn_tensor panels = {0};
    if (!kept) {
        const int64_t floats[] = {(int64_t)pack_floats(k, &shape)};
        panels = work_take(w, NULL, 1, floats);
    }
    if (dry || w->status != ATTN_OK)
        return w->status;
    if (!kept) {
        pack_panels(cpu_of(w), &shape, panels.data);
        g.panels = panels.data;
    }
    pack_bias(cpu_of(w), &l->linear->bias, l->columns, l->gated, bias.data);
    gemm_run(&g);
    return w->status;
}

attn_status linear_run(struct linear_call *l)
{
    attn_work *w = l->w;
    uint64_t mark = work_mark(w);
    attn_tensor x = rows_input(w, l->x);
    attn_tensor y = rows_output(w, l->y);
    if (w->status == ATTN_OK && run_gemm(l, &x, &y) == ATTN_OK)
        rows_finish(w, &y, l->y);
    work_reset(w, mark);
    return w->status;
}
