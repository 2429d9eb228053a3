/* conv.c: convolutions over channels-last pictures: what is asked for, whether it fits, and which
 * way it is computed: of one pixel as a product of matrices, else by cuDNN.
 *
 * Weights are kept as [out, kernel, kernel, in], as cuDNN's tensor-core kernels want them. */
#include "cuda.h"

#include <stdlib.h>

#define KERNEL_MAX 15

/* y += scales[slot] factor up (down * x), as conv_term has it. */
struct term {
    struct conv *down;
    attn_tensor up;
    float factor;
    uint32_t slot;
};

struct conv {
    int64_t in_channels, out_channels, kernel, stride, pad_low, pad_high;
    attn_tensor weight, bias; /* [out, kernel, kernel, in], [out] or absent */
    struct term *terms;
    uint32_t n_terms;
};

/* -- creation ---------------------------------------------------------------------------------- */

void cuda_conv_destroy(struct compute *c, struct conv *conv)
{
    if (!conv)
        return;
    for (uint32_t i = 0; i < conv->n_terms; ++i)
        cuda_conv_destroy(c, conv->terms[i].down);
    free(conv->terms);
    cuda_unload(c, &conv->weight);
    cuda_unload(c, &conv->bias);
    free(conv);
}

static attn_status weight_upload(struct cuda *c, const attn_tensor *host, attn_tensor *out,
                                 attn_error *err)
{
    const int64_t *s = host->shape;
    const int64_t kept[] = {s[0], s[2], s[3], s[1]};
    attn_tensor t = tensor_of(NULL, &c->base.dtype, 4, kept);
    t.device_type = c->base.device.type;
    t.device_id = c->base.device.id;
    t.align = 256;
    attn_status status = cuda_alloc(c, tensor_bytes(&t), &t.data, err);
    if (status != ATTN_OK)
        return status;
    *out = t;
    /* The same memory, its dimensions in the file's order. */
    attn_tensor turned = t;
    const int order[] = {0, 3, 1, 2};
    for (int i = 0; i < 4; ++i) {
        turned.shape[i] = t.shape[order[i]];
        turned.stride[i] = t.stride[order[i]];
    }
    if (s[2] * s[3] == 1) { /* nothing to turn: the file's order is ours */
        turned = tensor_of(t.data, &t, 4, host->shape);
        turned.align = t.align;
    }
    return cuda_send(c, host, &turned, err);
}

static attn_status terms_create(struct compute *c, struct conv *conv, const struct conv_desc *d,
                                attn_error *err)
{
    attn_status status = ATTN_OK;
    conv->terms = calloc(d->n_terms, sizeof *conv->terms);
    if (!conv->terms)
        return attn_fail(err, ATTN_NOMEM, "conv: no memory for %u low-rank terms", d->n_terms);
    for (uint32_t i = 0; i < d->n_terms && status == ATTN_OK; ++i) {
        const struct conv_term *t = &d->terms[i];
        struct conv_desc down = *d;
        down.weight = &t->down;
        down.out_channels = t->down.shape[0];
        down.bias = NULL;
        down.terms = NULL;
        down.n_terms = 0;
        conv->terms[conv->n_terms++] =
            (struct term){.up = t->up, .factor = t->factor, .slot = t->slot};
        status = cuda_conv_create(c, &down, &conv->terms[i].down, err);
    }
    return status;
}

attn_status cuda_conv_create(struct compute *c, const struct conv_desc *d, struct conv **out,
                             attn_error *err)
{
    attn_status status = conv_desc_check(d, KERNEL_MAX, err);
    if (status != ATTN_OK)
        return status;
    struct conv *conv = calloc(1, sizeof *conv);
    if (!conv)
        return attn_fail(err, ATTN_NOMEM, "conv: no memory for weights %s",
                         tensor_describe(d->weight).text);
    *conv = (struct conv){.in_channels = d->in_channels,
                          .out_channels = d->out_channels,
                          .kernel = d->kernel,
                          .stride = d->stride,
                          .pad_low = d->pad_low,
                          .pad_high = d->pad_high};
    status = weight_upload((struct cuda *)c, d->weight, &conv->weight, err);
    if (status == ATTN_OK && tensor_here(d->bias))
        status = cuda_upload(c, d->bias, NULL, &conv->bias, err);
    if (status == ATTN_OK && d->n_terms)
        status = terms_create(c, conv, d, err);
    if (status != ATTN_OK) {
        cuda_conv_destroy(c, conv);
        return status;
    }
    *out = conv;
    return ATTN_OK;
}

/* -- of one pixel: a product ------------------------------------------------------------------- */

/* Columns [first, first + n) of the weight seen as [out, in]. */
static attn_tensor weight_columns(const struct conv *conv, int64_t first, int64_t n)
{
    attn_tensor t = conv->weight;
    const int64_t offset = first * (t.bits / 8);
    t.rank = 2;
    t.shape[1] = n;
    t.stride[0] = conv->in_channels;
    t.stride[1] = 1;
    t.data = (char *)t.data + offset;
    while (t.align > 1 && offset % t.align)
        t.align /= 2;
    return t;
}

/* y = x w1' + x2 w2' + bias + residual: what lies side by side is never joined. */
static void run_pointwise(attn_work *w, const struct conv *conv, const attn_tensor *x,
                          const attn_tensor *x2, const attn_tensor *residual, const attn_tensor *y)
{
    const attn_tensor first = weight_columns(conv, 0, x->shape[3]);
    attn_tensor in = ready_input(w, x), c = {0};
    if (residual)
        c = ready_input(w, residual);
    const struct product one = {.x = &in,
                                .weight = &first,
                                .bias = &conv->bias,
                                .c = residual ? &c : NULL,
                                .y = y,
                                .alpha = 1.0f,
                                .beta = 1.0f};
    product_run(w, &one);
    if (!x2)
        return;
    const attn_tensor second = weight_columns(conv, x->shape[3], x2->shape[3]);
    in = ready_input(w, x2);
    const struct product two = {
        .x = &in, .weight = &second, .c = y, .y = y, .alpha = 1.0f, .beta = 1.0f};
    product_run(w, &two);
}

/* -- by cuDNN ---------------------------------------------------------------------------------- */

static void plan_release(struct compute *c, void *plan)
{
    (void)c;
    conv_plan_destroy(plan);
}

static struct conv_plan *plan_of(attn_work *w, const struct conv_shape *s)
{
    struct plan_key key;
    key_begin(&key, "conv");
    const int64_t numbers[] = {s->batch,     s->height, s->width,    s->in,     s->out_height,
                               s->out_width, s->out,    s->kernel,   s->stride, s->pad_low,
                               s->pad_high,  s->bias,   s->residual, s->x_pixel};
    key_bytes(&key, numbers, sizeof numbers);
    struct conv_plan *plan = plan_find(work_pass(w), &key);
    if (plan)
        return plan;
    ATTN_ERROR_ON(why, 256);
    attn_status status = ATTN_OK;
    if (!work_dry(w)) {
        work_fail(w, ATTN_INTERNAL, "conv: no dry run planned this size");
        return NULL;
    }
    status = conv_plan_create(cuda_of(w), s, &plan, &why);
    if (status != ATTN_OK) {
        work_fail(w, status, "%s", why.text);
        return NULL;
    }
    return plan_keep(w, &key, plan, plan_release) == ATTN_OK ? plan : NULL;
}

static bool dense(attn_work *w, const attn_tensor *t)
{
    return is_ready(work_compute(w), t) && tensor_contiguous(t) && t->align >= 16;
}

/* Of the compute's type, with pixels evenly spaced on addresses that cuDNN takes. */
static attn_tensor picture_input(attn_work *w, const attn_tensor *t)
{
    const int64_t pixel = row_stride(t) * (t->bits / 8);
    if (is_ready(work_compute(w), t) && t->align >= 16 && (tensor_contiguous(t) || pixel % 16 == 0))
        return *t;
    attn_tensor copy = work_take(w, NULL, t->rank, t->shape);
    cuda_copy(w, t, &copy);
    return copy;
}

/* x and x2 side by side in channels. */
static attn_tensor join(attn_work *w, const attn_tensor *x, const attn_tensor *x2)
{
    int64_t shape[4] = {x->shape[0], x->shape[1], x->shape[2], x->shape[3] + x2->shape[3]};
    attn_tensor all = work_take(w, NULL, 4, shape);
    attn_tensor part = all;
    part.shape[3] = x->shape[3];
    cuda_copy(w, x, &part);
    part.shape[3] = x2->shape[3];
    part.align = 0;
    part.data = all.data ? (char *)all.data + x->shape[3] * (all.bits / 8) : NULL;
    cuda_copy(w, x2, &part);
    return all;
}

static struct conv_shape shape_of(const struct conv *conv, const attn_tensor *x,
                                  const attn_tensor *y, bool residual)
{
    return (struct conv_shape){.batch = x->shape[0],
                               .height = x->shape[1],
                               .width = x->shape[2],
                               .in = x->shape[3],
                               .out_height = y->shape[1],
                               .out_width = y->shape[2],
                               .out = y->shape[3],
                               .kernel = conv->kernel,
                               .stride = conv->stride,
                               .pad_low = conv->pad_low,
                               .pad_high = conv->pad_high,
                               .x_pixel = row_stride(x),
                               .bias = tensor_here(&conv->bias),
                               .residual = residual};
}

/* Of a plan: out is y where the plan does all of it, else scratch, from which one kernel goes on.
 */
static void run_planned(attn_work *w, const struct conv *conv, struct conv_plan *plan,
                        const attn_tensor *x, const attn_tensor *residual, enum activation act,
                        const attn_tensor *y)
{
    const bool bias = tensor_here(&conv->bias) && !conv_plan_biases(plan);
    const bool adds = residual && !conv_plan_adds(plan);
    const bool whole = !bias && !adds && act == ACT_NONE && dense(w, y);
    attn_tensor out = whole ? *y : work_take(w, NULL, 4, y->shape);
    const attn_tensor byte = {.code = ATTN_CODE_UINT, .bits = 8};
    const int64_t bytes[] = {(int64_t)conv_plan_scratch(plan)};
    uint64_t mark = work_mark(w);
    const attn_tensor scratch = work_take(w, &byte, 1, bytes);
    const struct conv_buffers buffers = {.x = x->data,
                                         .weight = conv->weight.data,
                                         .bias = conv->bias.data,
                                         .residual = residual ? residual->data : NULL,
                                         .y = out.data,
                                         .scratch = scratch.data};
    work_reset(w, mark);
    if (work_dry(w) || w->status != ATTN_OK || conv_plan_run(w, plan, &buffers) != ATTN_OK || whole)
        return;
    work_check(w, "a convolution's epilogue",
               kernels()->epilogue(1.0f, (int32_t)act, &out, bias ? &conv->bias : NULL,
                                   adds ? 1.0f : 0.0f, adds ? residual : NULL, y, w->stream));
}

static void run_spatial(attn_work *w, const struct conv *conv, const attn_tensor *x,
                        const attn_tensor *x2, const attn_tensor *residual, enum activation act,
                        const attn_tensor *y)
{
    attn_tensor in = x2 ? join(w, x, x2) : picture_input(w, x), r = {0};
    /* An activation comes before the residual, which is then not the engine's to add. */
    const bool within = residual && act == ACT_NONE;
    if (within) {
        r = dense(w, residual) ? *residual : work_take(w, NULL, 4, residual->shape);
        if (!dense(w, residual))
            cuda_copy(w, residual, &r);
    }
    const struct conv_shape shape = shape_of(conv, &in, y, within);
    struct conv_plan *plan = w->status == ATTN_OK ? plan_of(w, &shape) : NULL;
    if (plan)
        run_planned(w, conv, plan, &in, within ? &r : residual, act, y);
}

static void convolve(attn_work *w, const struct conv *conv, const attn_tensor *x,
                     const attn_tensor *x2, const attn_tensor *residual, enum activation act,
                     const attn_tensor *y)
{
    const bool pointwise =
        conv->kernel == 1 && conv->stride == 1 && !conv->pad_low && !conv->pad_high;
    uint64_t mark = work_mark(w);
    if (pointwise && act == ACT_NONE && is_ready(work_compute(w), y))
        run_pointwise(w, conv, x, x2, residual, y);
    else
        run_spatial(w, conv, x, x2, residual, act, y);
    work_reset(w, mark);
}

/* y += scale up (down * x) for one term. */
static void add_term(attn_work *w, const struct term *t, const attn_tensor *x,
                     const attn_tensor *x2, const attn_tensor *y)
{
    int64_t shape[4];
    if (!work_dry(w) && t->slot >= w->n_scales) {
        work_fail(w, ATTN_INVALID, "conv: a low-rank term has slot %u of %u scales", t->slot,
                  w->n_scales);
        return;
    }
    uint64_t mark = work_mark(w);
    memcpy(shape, y->shape, sizeof shape);
    shape[3] = t->down->out_channels;
    attn_tensor thin = work_take(w, NULL, 4, shape);
    convolve(w, t->down, x, x2, NULL, ACT_NONE, &thin);
    const struct product up = {.x = &thin,
                               .weight = &t->up,
                               .c = y,
                               .y = y,
                               .alpha = t->factor * (work_dry(w) ? 1.0f : w->scales[t->slot]),
                               .beta = 1.0f};
    product_run(w, &up);
    work_reset(w, mark);
}

/* The sum with its terms first, then what comes after it. */
static void run_terms(attn_work *w, const struct conv *conv, const attn_tensor *x,
                      const attn_tensor *x2, const attn_tensor *residual, enum activation act,
                      const attn_tensor *y)
{
    attn_tensor sum = work_take(w, NULL, 4, y->shape);
    convolve(w, conv, x, x2, NULL, ACT_NONE, &sum);
    for (uint32_t i = 0; i < conv->n_terms; ++i)
        add_term(w, &conv->terms[i], x, x2, &sum);
    if (!work_dry(w) && w->status == ATTN_OK)
        work_check(w, "a convolution's epilogue",
                   kernels()->epilogue(1.0f, (int32_t)act, &sum, NULL, residual ? 1.0f : 0.0f,
                                       residual, y, w->stream));
}

attn_status cuda_conv(attn_work *w, const struct conv *conv, const attn_tensor *x,
                      const attn_tensor *x2, const struct epilogue *e, const attn_tensor *y)
{
    const attn_tensor *residual = e && tensor_here(e->residual) ? e->residual : NULL;
    const enum activation act = e ? e->activation : ACT_NONE;
    const attn_tensor *beside = tensor_here(x2) ? x2 : NULL;
    const struct conv_sizes sizes = {conv->in_channels, conv->out_channels, conv->kernel,
                                     conv->stride,      conv->pad_low,      conv->pad_high};
    if (check_conv(w, &sizes, x, x2, e, y) != ATTN_OK || !tensor_count(y))
        return w->status;
    if (cuda_current(cuda_of(w), NULL) != ATTN_OK)
        return work_fail(w, ATTN_DEVICE, "device cuda: it cannot be made current");
    uint64_t mark = work_mark(w);
    if (conv->n_terms)
        run_terms(w, conv, x, beside, residual, act, y);
    else
        convolve(w, conv, x, beside, residual, act, y);
    work_reset(w, mark);
    return w->status;
}
