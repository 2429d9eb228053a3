/* conv_onednn.c: convolutions by oneDNN.
 *
 * Weights are laid out once, as a primitive for a picture of usual size wants them; a plan that
 * wants another layout adds it to the convolution's list.  Plans are shared by all convolutions of
 * the same shapes.
 */
#include "conv.h"
#include "onednn.h"

#include <stdlib.h>

#define LAYOUTS_MAX 4
#define USUAL_SIZE  32

struct conv_weights {
    struct onednn_weights *layouts[LAYOUTS_MAX]; /* only ever added to, under cpu->lock */
    float *bias;
    uint64_t bytes; /* of all of them, as compute_took was told */
};

static struct onednn_conv shape_of(const struct conv *conv, int64_t batch, int64_t height,
                                   int64_t width)
{
    int64_t pads = conv->pad_low + conv->pad_high;
    return (struct onednn_conv){.batch = batch,
                                .height = height,
                                .width = width,
                                .in = conv->in_channels,
                                .out_height = (height + pads - conv->kernel) / conv->stride + 1,
                                .out_width = (width + pads - conv->kernel) / conv->stride + 1,
                                .out = conv->out_channels,
                                .kernel = conv->kernel,
                                .stride = conv->stride,
                                .pad_low = conv->pad_low,
                                .pad_high = conv->pad_high};
}

/* -- weights ----------------------------------------------------------------------------------- */

void conv_weights_destroy(struct cpu *c, struct conv_weights *weights)
{
    if (!weights)
        return;
    compute_gave(&c->base, weights->bytes);
    for (int i = 0; i < LAYOUTS_MAX; ++i)
        onednn_weights_free(weights->layouts[i]);
    free(weights->bias);
    free(weights);
}

static void count(struct conv *conv, uint64_t bytes)
{
    conv->weights->bytes += bytes;
    compute_took(&conv->cpu->base, bytes);
}

/* A contiguous fp32 copy; NULL without memory. */
static float *plain_copy(const struct cpu *c, const attn_tensor *t)
{
    float *data = malloc((size_t)tensor_count(t) * sizeof *data);
    if (!data)
        return NULL;
    attn_tensor copy = tensor_of(data, &c->base.dtype, t->rank, t->shape);
    copy_convert(c, t, &copy);
    return data;
}

static attn_status pack_usual(struct conv *conv, const float *weight, attn_error *err)
{
    struct onednn_conv shape = shape_of(conv, 1, USUAL_SIZE, USUAL_SIZE);
    struct onednn_plan *plan;
    attn_status status = onednn_conv_plan(conv->cpu->onednn, &shape, &plan, err);
    if (status != ATTN_OK)
        return status;
    status = onednn_weights_pack(plan, &shape, weight, &conv->weights->layouts[0], err);
    onednn_plan_free(plan);
    if (status == ATTN_OK)
        count(conv, onednn_weights_bytes(conv->weights->layouts[0]));
    return status;
}

attn_status conv_weights_create(struct conv *conv, const struct conv_desc *d, attn_error *err)
{
    struct cpu *c = conv->cpu;
    const uint64_t plain = tensor_count(d->weight) * sizeof(float);
    compute_took(&c->base, plain);
    conv->weights = calloc(1, sizeof *conv->weights);
    float *weight = plain_copy(c, d->weight);
    if (conv->weights)
        conv->weights->bias = tensor_here(d->bias) ? plain_copy(c, d->bias)
                                                   : calloc((size_t)d->out_channels, sizeof(float));
    attn_status status;
    if (weight && conv->weights && conv->weights->bias)
        status = pack_usual(conv, weight, err);
    else
        status = attn_fail(err, ATTN_NOMEM, "conv: no memory for weights %s",
                           tensor_describe(d->weight).text);
    if (status == ATTN_OK)
        count(conv, (uint64_t)d->out_channels * sizeof(float));
    free(weight);
    compute_gave(&c->base, plain);
    return status;
}

/* The weights as the plan wants them, or NULL.  Where there is room in the list, dry runs add them.
 */
static struct onednn_weights *weights_for(attn_work *w, const struct conv *conv,
                                          const struct onednn_plan *plan)
{
    struct onednn_weights **layouts = conv->weights->layouts, *found = NULL;
    struct cpu *c = conv->cpu;
    int i = 0;
    pthread_mutex_lock(&c->lock);
    for (; i < LAYOUTS_MAX && layouts[i] && !found; ++i) {
        if (onednn_weights_fit(plan, layouts[i]))
            found = layouts[i];
    }
    attn_error *err = w->err;
    if (!found && work_dry(w) && i < LAYOUTS_MAX &&
        onednn_weights_repack(plan, layouts[0], &layouts[i], err) == ATTN_OK) {
        found = layouts[i];
        conv->weights->bytes += onednn_weights_bytes(found);
        compute_took(&c->base, onednn_weights_bytes(found));
    }
    pthread_mutex_unlock(&c->lock);
    if (!found)
        work_fail(w, ATTN_INTERNAL, "conv: no dry run laid the weights out for this size");
    return found;
}

/* -- plans ------------------------------------------------------------------------------------- */

static void plan_release(struct compute *c, void *plan)
{
    (void)c;
    onednn_plan_free(plan);
}

static struct onednn_plan *plan_of(attn_work *w, const struct onednn_conv *shape)
{
    struct plan_key key;
    key_begin(&key, "conv");
    const int64_t numbers[] = {
        shape->batch,     shape->height,     shape->width,     shape->in,     shape->out_height,
        shape->out_width, shape->out,        shape->kernel,    shape->stride, shape->pad_low,
        shape->pad_high,  shape->activation, shape->accumulate};
    key_bytes(&key, numbers, sizeof numbers);
    struct onednn_plan *plan = plan_find(work_pass(w), &key);
    if (plan)
        return plan;
    ATTN_ERROR_ON(err, 256);
    if (!work_dry(w))
        work_fail(w, ATTN_INTERNAL, "conv: no dry run planned this size");
    else if (onednn_conv_plan(cpu_of(w)->onednn, shape, &plan, &err) != ATTN_OK)
        work_fail(w, ATTN_INTERNAL, "%s", err.text);
    else if (plan_keep(w, &key, plan, plan_release) == ATTN_OK)
        return plan;
    return NULL;
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

static attn_status convolve(attn_work *w, const struct conv *conv, const attn_tensor *x,
                            enum activation act, bool accumulate, const attn_tensor *y)
{
    struct onednn_conv shape = shape_of(conv, x->shape[0], x->shape[1], x->shape[2]);
    shape.activation = act;
    shape.accumulate = accumulate;
    struct onednn_plan *plan = w->status == ATTN_OK ? plan_of(w, &shape) : NULL;
    struct onednn_weights *weights = plan ? weights_for(w, conv, plan) : NULL;
    if (!weights)
        return w->status;
    const int64_t floats[] = {(int64_t)(onednn_plan_scratch(plan) + 3) / 4};
    attn_tensor scratch = work_take(w, NULL, 1, floats);
    if (work_dry(w) || w->status != ATTN_OK)
        return w->status;
    ATTN_ERROR_ON(err, 256);
    struct onednn_buffers buffers = {.x = x->data,
                                     .packed = weights,
                                     .bias = conv->weights->bias,
                                     .y = y->data,
                                     .scratch = scratch.data};
    attn_status status = onednn_run(plan, &buffers, &err);
    return status == ATTN_OK ? status : work_fail(w, status, "%s", err.text);
}

/* A residual goes first into y, onto which oneDNN adds; after an activation it is added last. */
attn_status conv_run(attn_work *w, const struct conv *conv, const attn_tensor *x,
                     const attn_tensor *x2, const attn_tensor *residual, enum activation act,
                     const attn_tensor *y)
{
    bool accumulate = residual && act == ACT_NONE, adds_last = residual && act != ACT_NONE;
    if (!tensor_count(y))
        return w->status;
    attn_tensor in = x2 ? join(w, x, x2) : dense_input(w, x);
    attn_tensor out = *y;
    if (!dense(y) || adds_last)
        out = work_take(w, NULL, 4, y->shape);
    if (accumulate && (work_dry(w) || residual->data != out.data))
        cpu_copy(w, residual, &out);
    if (convolve(w, conv, &in, act, accumulate, &out) != ATTN_OK)
        return w->status;
    if (adds_last)
        return cpu_combine(w, 1.0f, &out, 1.0f, residual, y);
    return dense(y) ? w->status : cpu_copy(w, &out, y);
}
