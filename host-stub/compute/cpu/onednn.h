/* onednn.h: convolutions and matrix products by oneDNN.  onednn.c alone knows its interface, which
 * changed between 2.x (Debian 12 has 2.6) and 3.x.
 *
 * Everything is fp32.  A plan is a primitive for one set of shapes; it is built once and holds no
 * data.  One run of a plan at a time.
 */
#ifndef ATTNPLUG_CPU_ONEDNN_H
#define ATTNPLUG_CPU_ONEDNN_H

#include "compute.h"

#include <stdbool.h>

struct onednn;         /* its engine; [any] */
struct onednn_plan;    /* a primitive */
struct onednn_weights; /* a convolution's weights in the layout that some plan wants */

attn_status onednn_open(uint32_t n_threads, struct onednn **out, attn_error *err);
void onednn_close(struct onednn *o);

/* y = act(x * weights + bias), or with accumulate y += x * weights + bias (no activation then).
 * x [batch, height, width, in], y [batch, out_height, out_width, out], both contiguous.
 *
 * winograd: by Winograd's algorithm (3 x 3, stride 1), which reads and writes channels in blocks of
 * ONEDNN_BLOCK: x [batch, blocks, height, width, ONEDNN_BLOCK], y likewise, 0 in channels beyond
 * in; neither activation nor accumulate.  halo: x has the rows above and below that are otherwise
 * padding. */
#define ONEDNN_BLOCK 16
struct onednn_conv {
    int64_t batch, height, width, in;
    int64_t out_height, out_width, out;
    int64_t kernel, stride, pad_low, pad_high;
    enum activation activation;
    bool accumulate, winograd, halo;
};

/* y = act(x weight' + bias), or with accumulate y += x weight' + bias (no activation then).
 * x [rows, depth], weight [columns, depth], y [rows, columns]; strides of rows, in floats. */
struct onednn_linear {
    int64_t rows, depth, columns;
    int64_t x_stride, weight_stride, y_stride;
    bool bias;
    enum activation activation;
    bool accumulate;
};

/* ATTN_UNSUPPORTED, without a text, where this oneDNN or this processor has no Winograd for it. */
attn_status onednn_conv_plan(struct onednn *o, const struct onednn_conv *conv,
                             struct onednn_plan **out, attn_error *err);
attn_status onednn_linear_plan(struct onednn *o, const struct onednn_linear *linear,
                               struct onednn_plan **out, attn_error *err);
void onednn_plan_free(struct onednn_plan *plan);
/* Bytes of scratch that a run takes. */
uint64_t onednn_plan_scratch(const struct onednn_plan *plan);

/* weight [out, in, kernel, kernel], contiguous, in the plan's layout.  scratch: that many bytes to
 * work in; where they do not do, or there are none (NULL, 0), memory is taken. */
attn_status onednn_weights_pack(const struct onednn_plan *plan, const struct onednn_conv *conv,
                                const float *weight, void *scratch, uint64_t bytes,
                                struct onednn_weights **out, attn_error *err);
/* The same weights in another plan's layout. */
attn_status onednn_weights_repack(const struct onednn_plan *plan, const struct onednn_weights *from,
                                  struct onednn_weights **out, attn_error *err);
bool onednn_weights_fit(const struct onednn_plan *plan, const struct onednn_weights *weights);
uint64_t onednn_weights_bytes(const struct onednn_weights *weights);
void onednn_weights_free(struct onednn_weights *weights);

struct onednn_buffers {
    const float *x;
    const struct onednn_weights *packed; /* of a convolution */
    const float *weight;                 /* of a linear */
    const float *bias;
    float *y;
    void *scratch;
};
attn_status onednn_run(struct onednn_plan *plan, const struct onednn_buffers *b, attn_error *err);

#endif
