#include "sag.h"

#include <math.h>

size_t sag_mask(const float *key_mass, uint8_t *mask, size_t n)
{
    size_t near = 0;
    for (size_t i = 0; i < n; i++) {
        mask[i] = key_mass[i] > 1.0f;
        near += fabsf(key_mass[i] - 1.0f) <= SAG_NEAR_THRESHOLD;
    }
    return near;
}

static void kernel_fill(float kernel[SAG_BLUR_WIDTH])
{
    float sum = 0;
    for (int i = 0; i < SAG_BLUR_WIDTH; i++) {
        float x = (float)(i - SAG_BLUR_RADIUS);
        kernel[i] = expf(-0.5f * x * x);
        sum += kernel[i];
    }
    for (int i = 0; i < SAG_BLUR_WIDTH; i++) {
        kernel[i] /= sum;
    }
}

/* -1 is 1, -2 is 2; side is side - 2, and so on: the edge itself is not repeated. */
static size_t reflect(ptrdiff_t index, size_t side)
{
    if (index < 0) {
        return (size_t)-index;
    }
    return (size_t)index < side ? (size_t)index : 2 * (side - 1) - (size_t)index;
}

/* One direction of the blur over a plane: `count` lines of `side` cells, cells `step` and lines
 * `stride` apart. */
static void lines_blur(const float *in, float *out, const float *kernel, size_t count,
                       size_t stride, size_t side, size_t step)
{
    for (size_t i = 0; i < side; i++) {
        size_t from[SAG_BLUR_WIDTH];
        for (int k = 0; k < SAG_BLUR_WIDTH; k++) {
            from[k] = reflect((ptrdiff_t)i + k - SAG_BLUR_RADIUS, side) * step;
        }
        for (size_t line = 0; line < count; line++) {
            float sum = 0;
            for (int k = 0; k < SAG_BLUR_WIDTH; k++) {
                sum += kernel[k] * in[line * stride + from[k]];
            }
            out[line * stride + i * step] = sum;
        }
    }
}

void sag_blur(const float *in, float *out, float *row, size_t planes, size_t height, size_t width)
{
    float kernel[SAG_BLUR_WIDTH];
    size_t cells = height * width;
    kernel_fill(kernel);
    for (size_t plane = 0; plane < planes; plane++) {
        lines_blur(in + plane * cells, row, kernel, height, width, width, 1);
        lines_blur(row, out + plane * cells, kernel, width, 1, height, width);
    }
}

size_t sag_nearest(size_t index, size_t in_side, size_t out_side)
{
    float scale = (float)in_side / (float)out_side;
    size_t from = (size_t)floorf((float)index * scale);
    return from < in_side ? from : in_side - 1;
}

void sag_blend(const float *x0, const float *blurred, const uint8_t *mask, float *out,
               size_t channels, size_t height, size_t width, size_t mask_height, size_t mask_width)
{
    for (size_t y = 0; y < height; y++) {
        const uint8_t *line = mask + sag_nearest(y, mask_height, height) * mask_width;
        for (size_t x = 0; x < width; x++) {
            const float *from = line[sag_nearest(x, mask_width, width)] ? blurred : x0;
            for (size_t c = 0; c < channels; c++) {
                size_t at = (c * height + y) * width + x;
                out[at] = from[at];
            }
        }
    }
}

void guidance_combine(const float *uncond, const float *cond, float guidance_scale, float *out,
                      size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = uncond[i] + guidance_scale * (cond[i] - uncond[i]);
    }
}

void sag_combine(const float *reference, const float *degraded, float sag_scale, float *out,
                 size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] += sag_scale * (reference[i] - degraded[i]);
    }
}
