/* conv.c: convolutions over channels-last pictures, as products of the rows under each tap, or by
 * winograd.c where that is less work. */
#include "pack.h"
#include "winograd.h"

#include <stdlib.h>

#define KERNEL_MAX 5

struct conv {
    struct cpu *cpu;
    int64_t in_channels, out_channels, kernel, stride, pad_low, pad_high;
    bool winograd;
    float *panels, *bias, *zeros;
};

static attn_status desc_check(const struct conv_desc *d, attn_error *err)
{
    const attn_tensor *w = d->weight;
    if (d->kernel < 1 || d->kernel > KERNEL_MAX || d->stride < 1 || d->pad_low < 0 ||
        d->pad_high < 0)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         "conv: kernel %lld, stride %lld, padding %lld, %lld", (long long)d->kernel,
                         (long long)d->stride, (long long)d->pad_low, (long long)d->pad_high);
    const int64_t shape[] = {d->out_channels, d->in_channels, d->kernel, d->kernel};
    if (!tensor_here(w) || !tensor_is_float(w) || w->rank != 4 ||
        memcmp(w->shape, shape, sizeof shape) != 0)
        return attn_fail(err, ATTN_INVALID,
                         "conv: weight %s: expected [%lld, %lld, %lld, %lld] of a float type",
                         tensor_describe(w).text, (long long)shape[0], (long long)shape[1],
                         (long long)shape[2], (long long)shape[3]);
    if (tensor_here(d->bias) &&
        (!tensor_is_float(d->bias) || d->bias->rank != 1 || d->bias->shape[0] != d->out_channels))
        return attn_fail(err, ATTN_INVALID, "conv: bias %s: expected [%lld] of a float type",
                         tensor_describe(d->bias).text, (long long)d->out_channels);
    return ATTN_OK;
}

static float *floats(uint64_t n)
{
    return aligned_alloc(64, (n * sizeof(float) + 63) & ~UINT64_C(63));
}

void cpu_conv_destroy(struct compute *c, struct conv *conv)
{
    (void)c;
    if (!conv)
        return;
    free(conv->panels);
    free(conv->bias);
    free(conv->zeros);
    free(conv);
}

/* Each tap is a matrix of its own. */
static float *pack_taps(const struct cpu *c, const struct conv_desc *d)
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
    if (panels)
        pack_panels(c, &shape, panels);
    return panels;
}

attn_status cpu_conv_create(struct compute *c, const struct conv_desc *d, struct conv **out,
                            attn_error *err)
{
    struct cpu *cpu = (struct cpu *)c;
    attn_status status = desc_check(d, err);
    if (status != ATTN_OK)
        return status;
    struct conv *conv = calloc(1, sizeof *conv);
    if (!conv)
        goto fail;
    *conv = (struct conv){.cpu = cpu,
                          .in_channels = d->in_channels,
                          .out_channels = d->out_channels,
                          .kernel = d->kernel,
                          .stride = d->stride,
                          .pad_low = d->pad_low,
                          .pad_high = d->pad_high};
    conv->winograd =
        d->kernel == 3 && d->stride == 1 && winograd_pays(d->in_channels, d->out_channels);
    conv->panels = conv->winograd ? winograd_pack(cpu, d->weight) : pack_taps(cpu, d);
    conv->bias = floats((uint64_t)gemm_padded(cpu->kernels, d->out_channels, false));
    conv->zeros = floats((uint64_t)d->in_channels);
    if (!conv->panels || !conv->bias || !conv->zeros)
        goto fail;
    memset(conv->zeros, 0, (size_t)d->in_channels * sizeof(float));
    pack_bias(cpu, d->bias, d->out_channels, false, conv->bias);
    *out = conv;
    return ATTN_OK;
fail:
    cpu_conv_destroy(c, conv);
    return attn_fail(err, ATTN_NOMEM, "conv: no memory for weights %s",
                     tensor_describe(d->weight).text);
}

static int64_t out_size(const struct conv *conv, int64_t in)
{
    int64_t room = in + conv->pad_low + conv->pad_high - conv->kernel;
    return room < 0 ? 0 : room / conv->stride + 1;
}

static attn_status check(attn_work *w, const struct conv *conv, const attn_tensor *x,
                         const attn_tensor *x2, const struct epilogue *e, const attn_tensor *y)
{
    const attn_tensor *all[] = {x, y, tensor_here(x2) ? x2 : x,
                                e && tensor_here(e->residual) ? e->residual : y};
    if (w->status != ATTN_OK || check_floats(w, "conv", 4, all) != ATTN_OK)
        return w->status;
    int64_t channels = x->rank == 4 ? x->shape[3] : 0;
    if (tensor_here(x2))
        channels += tensor_same_leading(x, x2) ? x2->shape[3] : 0;
    if (x->rank != 4 || y->rank != 4 || channels != conv->in_channels ||
        y->shape[0] != x->shape[0] || y->shape[1] != out_size(conv, x->shape[1]) ||
        y->shape[2] != out_size(conv, x->shape[2]) || y->shape[3] != conv->out_channels)
        return work_fail(w, ATTN_INVALID,
                         "conv %lldx%lld of %lld to %lld channels, stride %lld: x %s, x2 %s, y %s "
                         "do not fit",
                         (long long)conv->kernel, (long long)conv->kernel,
                         (long long)conv->in_channels, (long long)conv->out_channels,
                         (long long)conv->stride, tensor_describe(x).text, tensor_describe(x2).text,
                         tensor_describe(y).text);
    if (e && tensor_here(e->residual) && !tensor_same_shape(e->residual, y))
        return work_fail(w, ATTN_INVALID, "conv: residual %s: expected the shape of y %s",
                         tensor_describe(e->residual).text, tensor_describe(y).text);
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

static attn_status run(attn_work *w, const struct conv *conv, const attn_tensor *x,
                       const attn_tensor *x2, const attn_tensor *residual, enum activation act,
                       const attn_tensor *y)
{
    float *scratch = NULL;
    if (conv->winograd) {
        const int64_t n[] = {(int64_t)(winograd_scratch(conv->cpu, conv->in_channels) / 4)};
        scratch = work_take(w, NULL, 1, n).data;
    }
    if (work_dry(w) || w->status != ATTN_OK)
        return w->status;
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
                     .zeros = conv->zeros,
                     .panels = conv->panels,
                     .activation = act,
                     .alpha = 1.0f,
                     .bias = conv->bias,
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
    if (conv->winograd)
        winograd_run(&g, scratch);
    else
        gemm_run(&g);
    return w->status;
}

attn_status cpu_conv(attn_work *w, const struct conv *conv, const attn_tensor *x,
                     const attn_tensor *x2, const struct epilogue *e, const attn_tensor *y)
{
    if (check(w, conv, x, x2, e, y) != ATTN_OK)
        return w->status;
    uint64_t mark = work_mark(w);
    attn_tensor in = rows_input(w, x), in2, residual;
    bool two = tensor_here(x2), has_residual = e && tensor_here(e->residual);
    if (two)
        in2 = rows_input(w, x2);
    if (has_residual)
        residual = rows_input(w, e->residual);
    attn_tensor out = rows_output(w, y);
    if (run(w, conv, &in, two ? &in2 : NULL, has_residual ? &residual : NULL,
            e ? e->activation : ACT_NONE, &out) == ATTN_OK)
        rows_finish(w, &out, y);
    work_reset(w, mark);
    return w->status;
}
