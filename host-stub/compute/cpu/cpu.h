/* cpu.h: what the files of compute on a CPU share. */
#ifndef ATTNPLUG_CPU_CPU_H
#define ATTNPLUG_CPU_CPU_H

#include "checks.h"
#include "kernels.h"
#include "pass.h"

#include <pthread.h>

/* Rows whose elements lie side by side: a tensor seen along its last dimension. */
struct rows {
    char *data;
    int64_t count, length;       /* rows; elements of one */
    bool even;                   /* row i lies at data + i * stride[2] */
    int64_t shape[3], stride[3]; /* leading dimensions, strides in bytes */
};

/* Memory that upload and alloc took, by address. */
struct block {
    void *data;
    uint64_t bytes;
    struct block *next;
};

struct cpu {
    struct compute base;
    const struct kernels *kernels;
    attn_pool *pool;      /* NULL with OpenMP */
    pthread_mutex_t lock; /* of what follows */
    struct block *blocks;
    struct packs *packs;   /* kept panels, in a build without oneDNN */
    struct onednn *onednn; /* else NULL */
};

static inline struct cpu *cpu_of(const attn_work *w)
{
    return (struct cpu *)work_compute(w);
}

/* -- threads.c --------------------------------------------------------------------------------- */

attn_status threads_open(struct cpu *c, uint32_t n_threads, attn_error *err);
void threads_close(struct cpu *c);
static inline void parallel(const struct cpu *c, int64_t n, int64_t grain,
                            void (*body)(void *arg, int64_t begin, int64_t end, uint32_t thread),
                            void *arg)
{
    c->base.host.parallel_for(c->base.host.ctx, n, grain, body, arg);
}

/* -- memory.c ---------------------------------------------------------------------------------- */

attn_status cpu_alloc(void *ctx, uint64_t bytes, void **data, attn_error *err);
void cpu_free(void *ctx, void *data);
attn_status cpu_upload(struct compute *c, const attn_tensor *host, const attn_tensor *dtype,
                       attn_tensor *out, attn_error *err);
void cpu_unload(struct compute *c, attn_tensor *t);
attn_status cpu_write(attn_work *w, const attn_tensor *host, const attn_tensor *dst);
attn_status cpu_read(attn_work *w, const attn_tensor *src, const attn_tensor *host);
attn_status cpu_synchronize(attn_work *w);

/* -- linear_onednn.c, or pack.c in a build without oneDNN -------------------------------------- */

/* After threads_open. */
attn_status cpu_weights_open(struct cpu *c, attn_error *err);
void cpu_weights_close(struct cpu *c);
/* Memory is about to be freed or to change: nothing new is made of copies of weights in it. */
void cpu_weights_forget(struct cpu *c, const void *data, uint64_t bytes);

/* -- rows.c ------------------------------------------------------------------------------------ */

struct rows rows_of(const attn_tensor *t);
static inline void *rows_at(const struct rows *r, int64_t row)
{
    if (r->even)
        return r->data + row * r->stride[2];
    int64_t i2 = row % r->shape[2], rest = row / r->shape[2];
    int64_t i1 = rest % r->shape[1], i0 = rest / r->shape[1];
    return r->data + i0 * r->stride[0] + i1 * r->stride[1] + i2 * r->stride[2];
}

/* fp32 with unit stride along the last dimension: t itself, or a copy in scratch. */
attn_tensor rows_input(attn_work *w, const attn_tensor *t);
/* Where to write what becomes t: t itself, or scratch, which rows_finish copies to t. */
attn_tensor rows_output(attn_work *w, const attn_tensor *t);
attn_status rows_finish(attn_work *w, const attn_tensor *written, const attn_tensor *t);
/* n elements of any float type to fp32 and back; stride in elements. */
void rows_load(const struct kernels *k, const attn_tensor *type, const void *src, int64_t stride,
               int64_t n, float *dst);

/* Which of `in` a position of `out` takes, as torch's nearest interpolation has it. */
static inline int64_t nearest_index(int64_t at, int64_t in, int64_t out)
{
    int64_t i = (int64_t)((float)at * ((float)in / (float)out));
    return i < in ? i : in - 1;
}

/* -- copy.c ------------------------------------------------------------------------------------ */

attn_status cpu_copy(attn_work *w, const attn_tensor *src, const attn_tensor *dst);
attn_status cpu_fill(attn_work *w, float value, const attn_tensor *dst);
attn_status cpu_combine(attn_work *w, float alpha, const attn_tensor *a, float beta,
                        const attn_tensor *b, const attn_tensor *out);
attn_status cpu_activate(attn_work *w, enum activation act, const attn_tensor *x,
                         const attn_tensor *y);
/* Without a work: host memory to host memory, same shapes, any strides and float types. */
void copy_convert(const struct cpu *c, const attn_tensor *src, const attn_tensor *dst);

/* -- conv.c, linear.c, norm.c, sources.c, sag.c ------------------------------------------------ */

attn_status cpu_conv_create(struct compute *c, const struct conv_desc *desc, struct conv **conv,
                            attn_error *err);
void cpu_conv_destroy(struct compute *c, struct conv *conv);
attn_status cpu_conv(attn_work *w, const struct conv *conv, const attn_tensor *x,
                     const attn_tensor *x2, const struct epilogue *e, const attn_tensor *y);

attn_status cpu_linear(attn_work *w, float alpha, const attn_tensor *x, const attn_linear *linear,
                       float beta, const attn_tensor *c, const attn_tensor *y);
attn_status cpu_linear_epilogue(attn_work *w, const attn_tensor *x, const attn_linear *linear,
                                const struct epilogue *e, const attn_tensor *y);
attn_status cpu_geglu(attn_work *w, const attn_tensor *x, const attn_linear *linear,
                      const attn_tensor *y);

attn_status cpu_norm(attn_work *w, const attn_norm *norm, enum activation act, const attn_tensor *x,
                     const attn_tensor *x2, const attn_tensor *add, const attn_tensor *scale,
                     const attn_tensor *shift, const attn_tensor *y);
/* A group norm as act(x * factor + term), both fp32 [B, C] in scratch, which the caller gives back
 * after use. */
struct folded_norm {
    enum activation act;
    const float *factor, *term;
};
attn_status cpu_norm_fold(attn_work *w, const struct norm_call *n, struct folded_norm *out);
attn_status cpu_norm_conv(attn_work *w, const struct norm_call *n, const struct conv *conv,
                          const struct epilogue *e, const attn_tensor *y);
attn_status cpu_upsample_conv(attn_work *w, const attn_tensor *x, const struct conv *conv,
                              const attn_tensor *y);
attn_status cpu_plugin_norm(attn_work *w, const attn_norm *norm, const attn_tensor *x,
                            const attn_tensor *zq, const attn_tensor *y);

attn_status cpu_upsample(attn_work *w, const attn_tensor *x, const attn_tensor *y);
attn_status cpu_embed(attn_work *w, const attn_tensor *ids, const attn_tensor *table,
                      const attn_tensor *positions, const attn_tensor *y);
attn_status cpu_timestep(attn_work *w, const attn_tensor *t, int32_t flip_sin_to_cos,
                         float freq_shift, const attn_tensor *y);
attn_status cpu_sag_degrade(attn_work *w, const attn_tensor *key_mass, int64_t mh, int64_t mw,
                            const attn_tensor *mask_in, const attn_tensor *x0,
                            const attn_tensor *out);

#endif
