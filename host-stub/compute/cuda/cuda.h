/* cuda.h: what the files of compute on an NVIDIA GPU share. */
#ifndef ATTNPLUG_CUDA_CUDA_H
#define ATTNPLUG_CUDA_CUDA_H

#include "checks.h"
#include "kernels.h"
#include "libraries.h"
#include "pass.h"

#include <cuda_runtime_api.h>
#include <pthread.h>

/* Device memory that upload and alloc took, by address. */
struct block {
    void *data;
    uint64_t bytes;
    struct block *next;
};

#define STAGE_BYTES     (UINT64_C(8) << 20)  /* of one pinned buffer */
#define WORKSPACE_BYTES (UINT64_C(32) << 20) /* cuBLASLt's, as NVIDIA advises for Hopper */

/* Memory in which small uploads stand one after another: an attention layer's weights are then one
 * matrix, which processors may multiply by at once. */
#define SLAB_BYTES (UINT64_C(32) << 20)
#define SLAB_MOST  (UINT64_C(4) << 20) /* of one upload in it */
struct slab {
    char *data;
    uint64_t used;
    uint32_t live; /* uploads in it */
    struct slab *next;
};

/* A pinned buffer and the point of the stream at which the device has read it. */
struct stage {
    void *host;
    cudaEvent_t free;
};

struct cuda {
    struct compute base;
    attn_device_sum sum; /* for ops that work through others */
    struct cuda_libraries lib;
    struct cudaDeviceProp properties;
    cublasLtHandle_t blas;
    cudnnHandle_t dnn;
    void *workspace;            /* cuBLASLt's: one stream, so one for all */
    pthread_mutex_t dnn_lock;   /* of cuDNN's handle, which has one stream at a time */
    pthread_mutex_t block_lock; /* of blocks; taken with either of the others below held */
    struct block *blocks;
    pthread_mutex_t slab_lock;  /* of slabs */
    struct slab *slabs;         /* the first is being filled */
    pthread_mutex_t stage_lock; /* of what follows */
    struct stage stages[2];
    uint32_t next_stage;
    void *landing; /* STAGE_BYTES at the device: what is converted or turned on its way */
};

static inline struct cuda *cuda_of(const attn_work *w)
{
    return (struct cuda *)work_compute(w);
}

static inline const struct cuda_kernels *kernels(void)
{
    return &attn_cuda_kernels;
}

static inline cudaStream_t stream_of(const attn_work *w)
{
    return (cudaStream_t)w->stream;
}

/* -- cuda.c ------------------------------------------------------------------------------------ */

/* Calls of the runtime and launches: `what` failed with `code`, unless that is success. */
attn_status cuda_check(attn_error *err, const char *what, int code);
attn_status work_check(attn_work *w, const char *what, int code);
/* Makes c's device current for this thread; every entry that calls the runtime begins with it. */
attn_status cuda_current(struct cuda *c, attn_error *err);

/* -- memory.c ---------------------------------------------------------------------------------- */

attn_status cuda_alloc(void *ctx, uint64_t bytes, void **data, attn_error *err);
void cuda_free(void *ctx, void *data);
attn_status cuda_upload(struct compute *c, const attn_tensor *host, const attn_tensor *dtype,
                        attn_tensor *out, attn_error *err);
void cuda_unload(struct compute *c, attn_tensor *t);
attn_status cuda_write(attn_work *w, const attn_tensor *host, const attn_tensor *dst);
attn_status cuda_read(attn_work *w, const attn_tensor *src, const attn_tensor *host);
attn_status cuda_synchronize(attn_work *w);
void cuda_slabs_close(struct cuda *c);
/* The pinned buffers. */
void cuda_stages_close(struct cuda *c);
/* Contiguous host memory to dst at the device, of the same shape, any strides and any float type,
 * on c's stream. */
attn_status cuda_send(struct cuda *c, const attn_tensor *host, const attn_tensor *dst,
                      attn_error *err);

/* -- product.c --------------------------------------------------------------------------------- */

/* One product of matrices: y = alpha x weight' + beta c + bias.  x, c and y are ready (below);
 * weight [columns, depth] and bias [columns] are made so.  c may be y; bias and c may be NULL. */
struct product {
    const attn_tensor *x, *weight, *bias, *c, *y;
    float alpha, beta;
};
attn_status product_run(attn_work *w, const struct product *p);
/* Elements from row to row of t seen as a matrix, or -1. */
int64_t row_stride(const attn_tensor *t);
/* Of the compute's type with evenly spaced rows of unit stride: t itself, or a copy in scratch. */
attn_tensor ready_input(attn_work *w, const attn_tensor *t);
bool is_ready(const struct compute *c, const attn_tensor *t);

/* -- conv_plan.c ------------------------------------------------------------------------------- */

/* A convolution of fixed shapes: y = conv(x) + bias + residual, all channels last; residual and y
 * dense. */
struct conv_shape {
    int64_t batch, height, width, in;
    int64_t out_height, out_width, out;
    int64_t kernel, stride, pad_low, pad_high;
    int64_t x_pixel; /* elements from pixel to pixel of x */
    int32_t bias, residual;
};
struct conv_plan;
attn_status conv_plan_create(struct cuda *c, const struct conv_shape *shape, struct conv_plan **out,
                             attn_error *err);
void conv_plan_destroy(struct conv_plan *plan);
uint64_t conv_plan_scratch(const struct conv_plan *plan);
/* What the plan does besides the convolution; the rest is the caller's to add. */
bool conv_plan_adds(const struct conv_plan *plan);
bool conv_plan_biases(const struct conv_plan *plan);
struct conv_buffers {
    void *x, *weight, *bias, *residual, *y, *scratch; /* aligned to 16 */
};
attn_status conv_plan_run(attn_work *w, const struct conv_plan *plan, const struct conv_buffers *b);

/* -- the table: conv.c, linear.c, norm.c, elements.c, replay.c ----------------------------------
 */

attn_status cuda_conv_create(struct compute *c, const struct conv_desc *desc, struct conv **conv,
                             attn_error *err);
void cuda_conv_destroy(struct compute *c, struct conv *conv);
attn_status cuda_conv(attn_work *w, const struct conv *conv, const attn_tensor *x,
                      const attn_tensor *x2, const struct epilogue *e, const attn_tensor *y);

attn_status cuda_linear(attn_work *w, float alpha, const attn_tensor *x, const attn_linear *linear,
                        float beta, const attn_tensor *c, const attn_tensor *y);
attn_status cuda_linear_epilogue(attn_work *w, const attn_tensor *x, const attn_linear *linear,
                                 const struct epilogue *e, const attn_tensor *y);
attn_status cuda_geglu(attn_work *w, const attn_tensor *x, const attn_linear *linear,
                       const attn_tensor *y);

attn_status cuda_norm(attn_work *w, const attn_norm *norm, enum activation act,
                      const attn_tensor *x, const attn_tensor *x2, const attn_tensor *add,
                      const attn_tensor *scale, const attn_tensor *shift, const attn_tensor *y);
attn_status cuda_plugin_norm(attn_work *w, const attn_norm *norm, const attn_tensor *x,
                             const attn_tensor *zq, const attn_tensor *y);

attn_status cuda_copy(attn_work *w, const attn_tensor *src, const attn_tensor *dst);
attn_status cuda_fill(attn_work *w, float value, const attn_tensor *dst);
attn_status cuda_combine(attn_work *w, float alpha, const attn_tensor *a, float beta,
                         const attn_tensor *b, const attn_tensor *out);
attn_status cuda_activate(attn_work *w, enum activation act, const attn_tensor *x,
                          const attn_tensor *y);
attn_status cuda_upsample(attn_work *w, const attn_tensor *x, const attn_tensor *y);
attn_status cuda_embed(attn_work *w, const attn_tensor *ids, const attn_tensor *table,
                       const attn_tensor *positions, const attn_tensor *y);
attn_status cuda_timestep(attn_work *w, const attn_tensor *t, int32_t flip_sin_to_cos,
                          float freq_shift, const attn_tensor *y);
attn_status cuda_sag_degrade(attn_work *w, const attn_tensor *key_mass, int64_t mh, int64_t mw,
                             const attn_tensor *mask_in, const attn_tensor *x0,
                             const attn_tensor *out);

attn_status cuda_mix(attn_work *w, uint32_t n_y, const attn_tensor *const *y, uint32_t n_x,
                     const attn_tensor *const *x, const attn_tensor *coefficients,
                     const attn_tensor *step);
attn_status cuda_pick(attn_work *w, const attn_tensor *table, const attn_tensor *step,
                      const attn_tensor *y);
attn_status cuda_advance(attn_work *w, const attn_tensor *step);
attn_status cuda_replay(attn_work *w, const char *name, const void *key, size_t bytes,
                        attn_status (*body)(attn_work *w, void *arg), void *arg);

#endif
