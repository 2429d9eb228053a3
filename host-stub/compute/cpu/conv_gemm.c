/* conv_gemm.c: convolutions as products of the rows under each tap, where oneDNN is absent. */
#include "conv.h"
#include "pack.h"

#include <stdlib.h>

struct conv_weights {
    float *panels, *bias, *zeros;
    uint64_t bytes; /* of all of them, as compute_took was told */
};

static float *floats(uint64_t n)
{
    return aligned_alloc(64, (n * sizeof(float) + 63) & ~UINT64_C(63));
}

void conv_weights_destroy(struct cpu *c, struct conv_weights *weights)
{
    if (!weights)
        return;
    compute_gave(&c->base, weights->bytes);
    free(weights->panels);
    free(weights->bias);
    free(weights->zeros);
    free(weights);
}

/* Each tap is a matrix of its own. */
static float *pack_taps(const struct cpu *c, const struct conv_desc *d, uint64_t *bytes)
{
    struct pack_source sources[KERNEL_MAX * KERNEL_MAX];
    struct pack_shape shape = {.columns = d->out_channels,
                               .n_sources = (int32_t)(d->kernel * d->kernel),
                               .sources = sources};
    const attn_tensor *w = d->weight;
    for (int32_t tap = 0; tap < shape.n_sources; ++tap) {
        int64_t at = tap / d->kernel * w->stride[2] + tap % d->kernel * w->stride[3];
        sources[tap] = (struct pack_source){.type = *w,
                                            .data = (const char *)w->data + at * (w->bits / 8),
                                            .column_stride = w->stride[0],
                                            .depth_stride = w->stride[1],
                                            .depth = d->in_channels};
    }
    float *panels = floats(pack_floats(c->kernels, &shape));
    *bytes = pack_floats(c->kernels, &shape) * sizeof(float);
    if (panels)
        pack_panels(c, &shape, panels);
    return panels;
}

attn_status conv_weights_create(struct conv *conv, const struct conv_desc *d, attn_error *err)
{
    struct cpu *c = conv->cpu;
    struct conv_weights *weights = calloc(1, sizeof *weights);
    conv->weights = weights;
    if (weights) {
        weights->panels = pack_taps(c, d, &weights->bytes);
        weights->bias = floats((uint64_t)gemm_padded(c->kernels, d->out_channels, false));
        weights->zeros = floats((uint64_t)d->in_channels);
        compute_took(&c->base, weights->bytes);
    }
    if (!weights || !weights->panels || !weights->bias || !weights->zeros)
        return attn_fail(err, ATTN_NOMEM, "conv: no memory for weights %s",
                         tensor_describe(d->weight).text);
    memset(weights->zeros, 0, (size_t)d->in_channels * sizeof(float));
    pack_bias(c, d->bias, d->out_channels, false, weights->bias);
    return ATTN_OK;
}

static void part_fill(struct gemm *g, struct window *win, int part, const attn_tensor *x)
{
    g->x[part] = x->data;
    g->x_rows[part] = rows_of(x);
    g->depth[part] = x->shape[3];
    win->batch_stride[part] = x->stride[0];
    win->row_stride[part] = x->stride[1];
    win->pixel_stride[part] = x->stride[2];
}

static void product(const struct conv *conv, const attn_tensor *x, const attn_tensor *x2,
                    const attn_tensor *residual, enum activation act, const attn_tensor *y)
{
    struct window win = {.in_height = x->shape[1],
                         .in_width = x->shape[2],
                         .out_height = y->shape[1],
                         .out_width = y->shape[2],
                         .kernel = conv->kernel,
                         .stride = conv->stride,
                         .pad = conv->pad_low};
    struct gemm g = {.cpu = conv->cpu,
                     .rows = y->shape[0] * y->shape[1] * y->shape[2],
                     .columns = conv->out_channels,
                     .taps = (int32_t)(conv->kernel * conv->kernel),
                     .parts = x2 ? 2 : 1,
                     .zeros = conv->weights->zeros,
                     .panels = conv->weights->panels,
                     .activation = act,
                     .alpha = 1.0f,
                     .bias = conv->weights->bias,
                     .y = rows_of(y)};
    part_fill(&g, &win, 0, x);
    if (x2)
        part_fill(&g, &win, 1, x2);
    if (residual) {
        g.c = rows_of(residual);
        g.beta = 1.0f;
    }
    if (conv->kernel != 1 || conv->stride != 1 || conv->pad_low || conv->pad_high)
        g.window = &win;
    gemm_run(&g);
}

bool conv_takes_more(attn_work *w, const struct conv *conv, const attn_tensor *y)
{
    (void)w, (void)conv, (void)y;
    return false;
}

attn_status conv_run(attn_work *w, const struct conv_call *call)
{
    const attn_tensor *x2 = call->x2, *residual = call->residual;
    attn_tensor in = rows_input(w, call->x), in2, add;
    if (x2)
        in2 = rows_input(w, x2);
    if (residual)
        add = rows_input(w, residual);
    attn_tensor out = rows_output(w, call->y);
    if (work_dry(w) || w->status != ATTN_OK)
        return w->status;
    product(call->conv, &in, x2 ? &in2 : NULL, residual ? &add : NULL, call->act, &out);
    return rows_finish(w, &out, call->y);
}
