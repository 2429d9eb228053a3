/* sag.c: what self-attention guidance does to a predicted picture (Hong et al. 2023; diffusers
 * v0.26.3, pipelines/stable_diffusion_sag/pipeline_stable_diffusion_sag.py, sag_masking and
 * gaussian_blur_2d): where the mid block looks most, it is blurred. */
#include "cpu.h"

#include <math.h>

struct degrade {
    attn_tensor key_mass, mask_in; /* mask_in may be absent */
    int64_t mh, mw;
    struct rows x0, out;
    int64_t height, width, channels;
    float *blurred; /* [B, height, width, channels], along the lines */
    float kernel[2 * BLUR_RADIUS + 1];
};

static int64_t reflect(int64_t at, int64_t size)
{
    at = at < 0 ? -at : at;
    return at < size ? at : 2 * (size - 1) - at;
}

static bool masked(const struct degrade *d, int64_t batch, int64_t y, int64_t x)
{
    int64_t cell = nearest_index(y, d->mh, d->height) * d->mw + nearest_index(x, d->mw, d->width);
    const attn_tensor *m = tensor_here(&d->mask_in) ? &d->mask_in : &d->key_mass;
    int64_t at = batch * m->stride[0] + cell * m->stride[1];
    if (tensor_here(&d->mask_in))
        return ((const uint8_t *)m->data)[at] != 0;
    return ((const float *)m->data)[at] > 1.0f;
}

static void blur_lines(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct degrade *d = arg;
    (void)thread;
    for (int64_t line = begin; line < end; ++line) {
        for (int64_t x = 0; x < d->width; ++x) {
            float *to = d->blurred + (line * d->width + x) * d->channels;
            memset(to, 0, (size_t)d->channels * sizeof *to);
            for (int64_t i = -BLUR_RADIUS; i <= BLUR_RADIUS; ++i) {
                const float *from = rows_at(&d->x0, line * d->width + reflect(x + i, d->width));
                for (int64_t c = 0; c < d->channels; ++c)
                    to[c] += d->kernel[i + BLUR_RADIUS] * from[c];
            }
        }
    }
}

static void blend_lines(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct degrade *d = arg;
    (void)thread;
    for (int64_t line = begin; line < end; ++line) {
        int64_t batch = line / d->height, y = line % d->height;
        for (int64_t x = 0; x < d->width; ++x) {
            float *to = rows_at(&d->out, line * d->width + x);
            if (!masked(d, batch, y, x)) {
                memmove(to, rows_at(&d->x0, line * d->width + x), (size_t)d->channels * sizeof *to);
                continue;
            }
            memset(to, 0, (size_t)d->channels * sizeof *to);
            for (int64_t i = -BLUR_RADIUS; i <= BLUR_RADIUS; ++i) {
                int64_t from = (batch * d->height + reflect(y + i, d->height)) * d->width + x;
                for (int64_t c = 0; c < d->channels; ++c)
                    to[c] += d->kernel[i + BLUR_RADIUS] * d->blurred[from * d->channels + c];
            }
        }
    }
}

static void gaussian(float *kernel)
{
    double sum = 0.0, value[2 * BLUR_RADIUS + 1];
    for (int i = 0; i <= 2 * BLUR_RADIUS; ++i) {
        value[i] = exp(-0.5 * (i - BLUR_RADIUS) * (i - BLUR_RADIUS));
        sum += value[i];
    }
    for (int i = 0; i <= 2 * BLUR_RADIUS; ++i)
        kernel[i] = (float)(value[i] / sum);
}

attn_status cpu_sag_degrade(attn_work *w, const attn_tensor *key_mass, int64_t mh, int64_t mw,
                            const attn_tensor *mask_in, const attn_tensor *x0,
                            const attn_tensor *out)
{
    if (check_degrade(w, key_mass, mh, mw, mask_in, x0, out) != ATTN_OK)
        return w->status;
    if (!tensor_last_contiguous(x0) || !tensor_last_contiguous(out))
        return work_fail(w, ATTN_INVALID,
                         "sag_degrade: x0 %s, out %s: expected contiguous channels",
                         tensor_describe(x0).text, tensor_describe(out).text);
    struct degrade d = {.mh = mh,
                        .mw = mw,
                        .x0 = rows_of(x0),
                        .out = rows_of(out),
                        .height = x0->shape[1],
                        .width = x0->shape[2],
                        .channels = x0->shape[3]};
    if (tensor_here(mask_in))
        d.mask_in = *mask_in;
    else
        d.key_mass = *key_mass;
    gaussian(d.kernel);
    uint64_t mark = work_mark(w);
    d.blurred = work_take(w, NULL, 4, x0->shape).data;
    if (!work_dry(w) && w->status == ATTN_OK) {
        parallel(cpu_of(w), x0->shape[0] * d.height, 8, blur_lines, &d);
        parallel(cpu_of(w), x0->shape[0] * d.height, 8, blend_lines, &d);
    }
    work_reset(w, mark);
    return w->status;
}
