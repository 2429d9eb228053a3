/* kernels.h: the inner loops of compute on a CPU, as one table.
 *
 * kernels_body.h is their only source; it is compiled once for each instruction set, each in a file
 * of its own with its own flags: kernels_c.c, kernels_avx2.c, kernels_avx512.c.  kernels.c chooses.
 * All are fp32 with unit stride unless they say otherwise.
 */
#ifndef ATTNPLUG_CPU_KERNELS_H
#define ATTNPLUG_CPU_KERNELS_H

#include "compute.h"

#include <stddef.h>

/* Rows of one tile: as many as the registers hold, at most this. */
#define TILE_ROWS_MAX 12

/* Channels of one block, where a library wants pictures as [B, blocks, H, W, CHANNEL_BLOCK]. */
#define CHANNEL_BLOCK 16

/* One tile of a matrix product: `rows` rows of x times one panel of weights.
 *
 * The depth of the product is cut into segments: for a linear one, for a convolution one per tap,
 * each in one or two parts (channels of x, channels of x2).  x[s * TILE_ROWS_MAX + r] points to row
 * r's values of segment s, depth[s % parts] of them.  panel holds, in the order of the segments,
 * `width` columns for each depth. */
struct tile {
    const float *const *x;
    int32_t segments, parts;
    int32_t depth[2];
    int32_t rows;    /* 1 to TILE_ROWS_MAX */
    int32_t vectors; /* of the panel's width: 1 or 2 */
    const float *panel;

    /* y[r][0..columns) = alpha act(sum + bias) + beta c[r]; gated: y = (sum + bias) of the panel's
     * first vector times gelu of its second. */
    int32_t columns; /* of y, at most the panel's width (gated: half of it) */
    int32_t gated;
    enum activation activation;
    float alpha, beta;
    const float *bias;     /* padded to the panel's width; never NULL */
    const float *const *c; /* [rows], or NULL where beta is 0 */
    float *const *y;       /* [rows] */
};

struct kernels {
    const char *name;  /* "c", "avx2", "avx512" */
    int32_t lanes;     /* of a vector; a panel is two wide */
    int32_t tile_rows; /* rows that fill the registers */
    void (*tile)(const struct tile *t);

    /* y[m][0..n) = x[m] . w[n] for few rows (m <= 4): no panel, each weight is read once. */
    void (*dots)(int64_t m, int64_t n, int64_t k, const float *const *x, const float *w,
                 int64_t w_stride, float *const *y);

    /* dst[k * width + i] = src[i * stride + k] for i < n, 0 for n <= i < fill; k < depth. */
    void (*transpose)(const float *src, int64_t stride, int64_t n, int64_t fill, int64_t depth,
                      float *dst, int64_t width);

    void (*activate)(enum activation act, int64_t n, const float *x, float *y);
    void (*f16_to_f32)(int64_t n, const uint16_t *x, float *y);
    void (*bf16_to_f32)(int64_t n, const uint16_t *x, float *y);
    void (*f32_to_f16)(int64_t n, const float *x, uint16_t *y);
    void (*f32_to_bf16)(int64_t n, const float *x, uint16_t *y);
    /* y = alpha a + beta b */
    void (*combine)(int64_t n, float alpha, const float *a, float beta, const float *b, float *y);
    /* sum[c] += x[c], square[c] += x[c]^2 over rows, in double. */
    void (*moments)(int64_t rows, int64_t n, const float *x, int64_t stride, double *sum,
                    double *square);
    /* y[c] = act(x[c] * scale[c] + shift[c]) */
    void (*affine)(enum activation act, int64_t n, const float *x, const float *scale,
                   const float *shift, float *y);
    /* y = (x - mean) / sqrt(variance + eps) * weight + bias over one row; weight, bias may be NULL
     */
    void (*layer_norm)(int64_t n, float eps, const float *x, const float *weight, const float *bias,
                       float *y);

    /* One block of n <= CHANNEL_BLOCK channels of a row of pixels.  In: x [pixels, stride] to y
     * [pixels, CHANNEL_BLOCK], act(x[c] * scale[c] + shift[c]), or x where scale is NULL; 0 beyond
     * n.  Out: x [pixels, CHANNEL_BLOCK] to y [pixels, stride], act(x) + add (NULL: none; may be
     * y). */
    void (*block_in)(enum activation act, int64_t pixels, int64_t n, const float *x, int64_t stride,
                     const float *scale, const float *shift, float *y);
    void (*block_out)(enum activation act, int64_t pixels, int64_t n, const float *x,
                      const float *add, int64_t add_stride, float *y, int64_t stride);
};

extern const struct kernels kernels_c;
#ifdef __x86_64__
extern const struct kernels kernels_avx2, kernels_avx512; /* x86-64 */
#endif

/* The best that this processor has; ATTNPLUG_CPU=c|avx2|avx512 takes another (amx, which is the op
 * memory_efficient's alone, avx512), and an error names the ones that there are. */
attn_status kernels_choose(const struct kernels **kernels, attn_error *err);

#endif
