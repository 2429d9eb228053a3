/* linear_onednn.c: linears by oneDNN's matrix product, which reads weights as they lie.  Plans know
 * shapes alone: layers of the same shapes share them. */
#include "linear.h"
#include "onednn.h"

/* -- one product ------------------------------------------------------------------------------- */

/* Floats from row to row, or -1 where rows are not evenly spaced one after another. */
static int64_t row_stride(const attn_tensor *t)
{
    struct rows rows = rows_of(t);
    if (rows.count <= 1)
        return rows.length;
    int64_t stride = rows.stride[2] / (int64_t)sizeof(float);
    return rows.even && stride >= rows.length ? stride : -1;
}

static bool ready(const attn_tensor *t)
{
    return tensor_f32(t) && tensor_last_contiguous(t) && row_stride(t) >= 0;
}

static attn_tensor ready_input(attn_work *w, const attn_tensor *t)
{
    if (ready(t))
        return *t;
    attn_tensor copy = work_take(w, NULL, t->rank, t->shape);
    cpu_copy(w, t, &copy);
    return copy;
}

static void plan_release(struct compute *c, void *plan)
{
    (void)c;
    onednn_plan_free(plan);
}

static struct onednn_plan *plan_of(attn_work *w, const struct onednn_linear *shape)
{
    struct plan_key key;
    key_begin(&key, "linear");
    const int64_t numbers[] = {shape->rows,     shape->depth,         shape->columns,
                               shape->x_stride, shape->weight_stride, shape->y_stride,
                               shape->bias,     shape->activation,    shape->accumulate};
    key_bytes(&key, numbers, sizeof numbers);
    struct onednn_plan *plan = plan_find(work_pass(w), &key);
    if (plan)
        return plan;
    ATTN_ERROR_ON(err, 256);
    attn_status status = ATTN_OK;
    if (!work_dry(w))
        work_fail(w, ATTN_INTERNAL, "linear: no dry run planned this size");
    else if ((status = onednn_linear_plan(cpu_of(w)->onednn, shape, &plan, &err)) != ATTN_OK)
        work_fail(w, status, "%s", err.text);
    else if (plan_keep(w, &key, plan, plan_release) == ATTN_OK)
        return plan;
    return NULL;
}

/* out = act(x weight' + bias), or accumulate: out += x weight'.  x and out are ready. */
static attn_status product(attn_work *w, const attn_tensor *x, const attn_tensor *weight,
                           const attn_tensor *bias, enum activation act, bool accumulate,
                           const attn_tensor *out)
{
    uint64_t mark = work_mark(w);
    attn_tensor weights = ready_input(w, weight), b = {0};
    if (tensor_here(bias))
        b = rows_input(w, bias);
    struct onednn_linear shape = {.rows = rows_of(x).count,
                                  .depth = tensor_last(x),
                                  .columns = tensor_last(out),
                                  .x_stride = row_stride(x),
                                  .weight_stride = row_stride(&weights),
                                  .y_stride = row_stride(out),
                                  .bias = tensor_here(bias),
                                  .activation = act,
                                  .accumulate = accumulate};
    struct onednn_plan *plan = w->status == ATTN_OK ? plan_of(w, &shape) : NULL;
    if (plan) {
        const int64_t floats[] = {(int64_t)(onednn_plan_scratch(plan) + 3) / 4};
        attn_tensor scratch = work_take(w, NULL, 1, floats);
        struct onednn_buffers buffers = {.x = x->data,
                                         .weight = weights.data,
                                         .bias = b.data,
                                         .y = out->data,
                                         .scratch = scratch.data};
        ATTN_ERROR_ON(err, 256);
        attn_status status = ATTN_OK;
        if (!work_dry(w) && w->status == ATTN_OK)
            status = onednn_run(plan, &buffers, &err);
        if (status != ATTN_OK)
            work_fail(w, status, "%s", err.text);
    }
    work_reset(w, mark);
    return w->status;
}

/* -- the parts of a linear --------------------------------------------------------------------- */

/* Rows [first, first + n) of a matrix, or that part of a vector. */
static attn_tensor cut(const attn_tensor *t, int64_t first, int64_t n)
{
    attn_tensor part = *t;
    if (!tensor_here(t))
        return part;
    part.shape[0] = n;
    if (part.data)
        part.data = (char *)part.data + first * t->stride[0] * (t->bits / 8);
    return part;
}

/* out += s (x down') up' for one term, of which columns [first, ..) are wanted. */
static attn_status add_term(struct linear_call *l, const attn_tensor *x, const attn_term *t,
                            int64_t first, const attn_tensor *out)
{
    attn_work *w = l->w;
    int64_t shape[4];
    memcpy(shape, x->shape, sizeof shape);
    shape[x->rank - 1] = t->down.shape[0];
    attn_tensor thin = work_take(w, NULL, x->rank, shape);
    attn_tensor up = cut(&t->up, first, l->columns);
    float scale = t->factor * (work_dry(w) ? 1.0f : w->scales[t->slot]);
    product(w, x, &t->down, NULL, ACT_NONE, false, &thin);
    cpu_combine(w, scale, &thin, 0.0f, NULL, &thin);
    return product(w, &thin, &up, NULL, ACT_NONE, true, out);
}

/* out (+)= act(x weight' + bias + terms), columns [first, first + columns) of the weight. */
static attn_status sum(struct linear_call *l, const attn_tensor *x, int64_t first,
                       enum activation act, bool accumulate, const attn_tensor *out)
{
    const attn_linear *linear = l->linear;
    attn_work *w = l->w;
    uint64_t mark = work_mark(w);
    attn_tensor weight = cut(&linear->weight, first, l->columns);
    attn_tensor bias = cut(&linear->bias, first, l->columns);
    product(w, x, &weight, &bias, l->rank ? ACT_NONE : act, accumulate, out);
    for (uint32_t i = 0; i < linear->n_terms && w->status == ATTN_OK; ++i)
        add_term(l, x, &linear->terms[i], first, out);
    if (l->rank && act != ACT_NONE)
        cpu_activate(w, act, out, out);
    work_reset(w, mark);
    return w->status;
}

/* -- gates ------------------------------------------------------------------------------------- */

struct gate {
    struct rows value, gate;
};

static void gate_rows(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct gate *g = arg;
    (void)thread;
    for (int64_t row = begin; row < end; ++row) {
        float *restrict y = rows_at(&g->value, row);
        const float *restrict gate = rows_at(&g->gate, row);
        for (int64_t i = 0; i < g->value.length; ++i)
            y[i] *= gate[i];
    }
}

static attn_status run_gated(struct linear_call *l, const attn_tensor *x, const attn_tensor *out)
{
    attn_work *w = l->w;
    attn_tensor gate = work_take(w, NULL, out->rank, out->shape);
    sum(l, x, l->columns, ACT_GELU, false, &gate);
    sum(l, x, 0, ACT_NONE, false, out);
    if (work_dry(w) || w->status != ATTN_OK)
        return w->status;
    struct gate job = {.value = rows_of(out), .gate = rows_of(&gate)};
    parallel(cpu_of(w), job.value.count, 1 + 16384 / (l->columns + 1), gate_rows, &job);
    return w->status;
}

/* -- weights ----------------------------------------------------------------------------------- */

attn_status cpu_weights_open(struct cpu *c, attn_error *err)
{
    return onednn_open(c->base.host.max_threads, &c->onednn, err);
}

void cpu_weights_close(struct cpu *c)
{
    onednn_close(c->onednn);
}

void cpu_weights_forget(struct cpu *c, const void *data, uint64_t bytes)
{
    (void)c;
    (void)data;
    (void)bytes;
}

/* -- run --------------------------------------------------------------------------------------- */

/* c goes first into y, onto which oneDNN adds, where nothing but the sum is asked for. */
static attn_status run_plain(struct linear_call *l, const attn_tensor *x, bool accumulate,
                             const attn_tensor *out)
{
    attn_work *w = l->w;
    bool combine = l->c && !accumulate;
    attn_tensor here = combine ? work_take(w, NULL, out->rank, out->shape) : *out;
    if (accumulate && (work_dry(w) || l->c->data != here.data))
        cpu_copy(w, l->c, &here);
    sum(l, x, 0, l->activation, accumulate, &here);
    if (combine)
        cpu_combine(w, l->alpha, &here, l->beta, l->c, out);
    else if (l->alpha != 1.0f)
        cpu_combine(w, l->alpha, &here, 0.0f, NULL, out);
    return w->status;
}

static attn_status run_once(struct linear_call *l, bool accumulate)
{
    attn_work *w = l->w;
    uint64_t mark = work_mark(w);
    attn_tensor x = ready_input(w, l->x);
    attn_tensor out = *l->y;
    if (!ready(l->y))
        out = work_take(w, NULL, l->y->rank, l->y->shape);
    if (l->gated)
        run_gated(l, &x, &out);
    else
        run_plain(l, &x, accumulate, &out);
    if (!ready(l->y))
        cpu_copy(w, &out, l->y);
    work_reset(w, mark);
    return w->status;
}

attn_status linear_run(struct linear_call *l)
{
    bool may_accumulate = l->c && l->activation == ACT_NONE && !l->gated;
    bool accumulate = may_accumulate && l->alpha == 1.0f && l->beta == 1.0f;
    if (!tensor_count(l->y))
        return l->w->status;
    /* Later runs may bring other alphas and betas. */
    if (may_accumulate && work_dry(l->w))
        run_once(l, !accumulate);
    return run_once(l, accumulate);
}
