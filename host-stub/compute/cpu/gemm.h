/* gemm.h: rows of x times packed weights, the one matrix product under linears and convolutions. */
#ifndef ATTNPLUG_CPU_GEMM_H
#define ATTNPLUG_CPU_GEMM_H

#include "cpu.h"

/* A convolution's geometry; a linear's is NULL. */
struct window {
    int64_t in_height, in_width, out_height, out_width;
    int64_t kernel, stride, pad;
    int64_t row_stride[2], pixel_stride[2], batch_stride[2]; /* of x and x2, in floats */
};

struct gemm {
    const struct cpu *cpu;
    int64_t rows;    /* tokens or pixels of y */
    int64_t columns; /* of y */
    int32_t taps, parts;
    int64_t depth[2]; /* of each part, per tap */

    const float *x[2];     /* with a window: first pixels */
    struct rows x_rows[2]; /* without */
    const struct window *window;
    const float *zeros; /* max(depth) of them, for pixels outside */

    /* Panels lie one after another: `width` = two vectors, the last one vector if that suffices. */
    const float *panels;

    int32_t gated;
    enum activation activation;
    float alpha, beta;
    const float *bias; /* padded like the panels */
    struct rows c, y;  /* c.data NULL: none */
};

/* Columns of all panels together: `columns` rounded up to whole vectors; gated, both halves. */
int64_t gemm_padded(const struct kernels *k, int64_t columns, bool gated);
void gemm_run(const struct gemm *g);

#endif
