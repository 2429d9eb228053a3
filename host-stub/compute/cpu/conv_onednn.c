/* conv_onednn.c: convolutions by oneDNN.  Plans are shared by all convolutions of the same shapes.
 */
#include "conv_weights.h"

/* -- plans ------------------------------------------------------------------------------------- */

static void plan_release(struct compute *c, void *plan)
{
    (void)c;
    onednn_plan_free(plan);
}

struct onednn_plan *conv_plan(attn_work *w, const struct onednn_conv *shape)
{
    struct plan_key key;
    key_begin(&key, "conv");
    const int64_t numbers[] = {
        shape->batch,     shape->height,     shape->width,    shape->in,     shape->out_height,
        shape->out_width, shape->out,        shape->kernel,   shape->stride, shape->pad_low,
        shape->pad_high,  shape->activation, shape->winograd, shape->halo,   shape->accumulate};
    key_bytes(&key, numbers, sizeof numbers);
    struct onednn_plan *plan = plan_find(work_pass(w), &key);
    if (plan || (shape->winograd && !work_dry(w)))
        return plan;
    ATTN_ERROR_ON(err, 256);
    attn_status status = ATTN_INTERNAL;
    if (!work_dry(w))
        work_fail(w, ATTN_INTERNAL, "conv: no dry run planned this size");
    else if ((status = onednn_conv_plan(cpu_of(w)->onednn, shape, &plan, &err)) == ATTN_OK)
        return plan_keep(w, &key, plan, plan_release) == ATTN_OK ? plan : NULL;
    else if (status != ATTN_UNSUPPORTED)
        work_fail(w, status, "%s", err.text);
    return NULL;
}

attn_status conv_execute(attn_work *w, const struct conv *conv, const struct onednn_conv *shape,
                         const float *x, float *y)
{
    struct onednn_plan *plan = w->status == ATTN_OK ? conv_plan(w, shape) : NULL;
    if (!plan)
        return w->status;
    uint64_t mark = work_mark(w);
    const int64_t floats[] = {(int64_t)(onednn_plan_scratch(plan) + 3) / 4};
    attn_tensor scratch = work_take(w, NULL, 1, floats);
    work_reset(w, mark);
    if (work_dry(w) || w->status != ATTN_OK)
        return w->status;
    const struct conv_layout layout = {.shape = shape, .plan = plan, .scratch = scratch.data};
    const struct onednn_weights *weights = conv_weights_use(w, conv, &layout);
    if (!weights)
        return w->status;
    ATTN_ERROR_ON(err, 256);
    struct onednn_buffers buffers = {
        .x = x, .packed = weights, .bias = conv_bias(conv), .y = y, .scratch = scratch.data};
    attn_status status = onednn_run(plan, &buffers, &err);
    conv_weights_done(conv, weights);
    return status == ATTN_OK ? status : work_fail(w, status, "%s", err.text);
}

/* -- run --------------------------------------------------------------------------------------- */

static bool dense(const attn_tensor *t)
{
    return tensor_f32(t) && tensor_contiguous(t);
}

static attn_tensor dense_input(attn_work *w, const attn_tensor *t)
{
    if (dense(t))
        return *t;
    attn_tensor copy = work_take(w, NULL, t->rank, t->shape);
    cpu_copy(w, t, &copy);
    return copy;
}

/* x and x2 side by side in channels. */
static attn_tensor join(attn_work *w, const attn_tensor *x, const attn_tensor *x2)
{
    int64_t shape[4] = {x->shape[0], x->shape[1], x->shape[2], x->shape[3] + x2->shape[3]};
    attn_tensor all = work_take(w, NULL, 4, shape);
    attn_tensor part = all;
    part.shape[3] = x->shape[3];
    cpu_copy(w, x, &part);
    part.shape[3] = x2->shape[3];
    part.data = all.data ? (float *)all.data + x->shape[3] : NULL;
    cpu_copy(w, x2, &part);
    return all;
}

/* Channels last throughout.  A residual goes first into y, onto which oneDNN adds; after an
 * activation it is added last. */
static attn_status run_direct(attn_work *w, const struct conv_call *call)
{
    const attn_tensor *x = call->x, *residual = call->residual, *y = call->y;
    const bool adds_last = residual && call->act != ACT_NONE;
    struct onednn_conv shape = conv_shape(call->conv, x->shape[0], x->shape[1], x->shape[2]);
    shape.activation = call->act;
    shape.accumulate = residual && !adds_last;
    attn_tensor in = call->x2 ? join(w, x, call->x2) : dense_input(w, x);
    attn_tensor out = *y;
    if (!dense(y) || adds_last)
        out = work_take(w, NULL, 4, y->shape);
    if (shape.accumulate && (work_dry(w) || residual->data != out.data))
        cpu_copy(w, residual, &out);
    if (conv_execute(w, call->conv, &shape, in.data, out.data) != ATTN_OK)
        return w->status;
    if (adds_last)
        return cpu_combine(w, 1.0f, &out, 1.0f, residual, y);
    return dense(y) ? w->status : cpu_copy(w, &out, y);
}

bool conv_takes_more(attn_work *w, const struct conv *conv, const attn_tensor *y)
{
    return w->status == ATTN_OK && !conv->terms && conv_is_winograd(w, conv, y);
}

attn_status conv_run(attn_work *w, const struct conv_call *call)
{
    if (!tensor_count(call->y) || w->status != ATTN_OK)
        return w->status;
    if (conv_is_winograd(w, call->conv, call->y))
        return conv_winograd_run(w, call);
    return run_direct(w, call);
}
