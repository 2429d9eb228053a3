/* onednn_private.h: what onednn.c and onednn_weights.c share, and all that differs between oneDNN's
 * 2.x and 3.x. */
#ifndef ATTNPLUG_CPU_ONEDNN_PRIVATE_H
#define ATTNPLUG_CPU_ONEDNN_PRIVATE_H

#include "onednn.h"

#include <oneapi/dnnl/dnnl.h>

struct onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int threads;
};

/* The tensors of a primitive. */
enum { X, WEIGHTS, BIAS, Y, SCRATCH, ARGS };

struct onednn_plan {
    struct onednn *o;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t primitive;
    dnnl_memory_t memory[ARGS]; /* NULL: not among the arguments, or the weights' own */
    uint64_t scratch;
};

struct onednn_weights {
    dnnl_memory_t memory;
};

attn_status onednn_refuse(attn_error *err, const char *what, dnnl_status_t status);
/* oneDNN takes as many threads as OpenMP would give the calling thread: the compute's number for
 * as long as its calls last.  Returns what to give back to threads_leave. */
int onednn_threads_enter(const struct onednn *o);
void onednn_threads_leave(int before);

/* -- where 2.x and 3.x differ ------------------------------------------------------------------ */

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t layout_ref;
struct layout {
    dnnl_memory_desc_t d;
};

static inline layout_ref layout_see(const struct layout *l)
{
    return l->d;
}

static inline void layout_free(struct layout *l)
{
    if (l->d)
        (void)dnnl_memory_desc_destroy(l->d);
}

static inline dnnl_status_t layout_tag(struct layout *l, int n, const dnnl_dims_t dims,
                                       dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_create_with_tag(&l->d, n, dims, dnnl_f32, tag);
}

static inline dnnl_status_t layout_strides(struct layout *l, int n, const dnnl_dims_t dims,
                                           const dnnl_dims_t strides)
{
    return dnnl_memory_desc_create_with_strides(&l->d, n, dims, dnnl_f32, strides);
}

static inline dnnl_status_t add_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef);
}

static inline dnnl_status_t add_eltwise(dnnl_post_ops_t ops, dnnl_alg_kind_t kind, float alpha)
{
    return dnnl_post_ops_append_eltwise(ops, kind, alpha, 0.0f);
}

static inline dnnl_status_t describe_conv(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                                          const struct layout *l, const dnnl_dims_t *geometry,
                                          dnnl_primitive_attr_t attr)
{
    const dnnl_dims_t undilated = {0, 0};
    return dnnl_convolution_forward_primitive_desc_create(
        out, engine, dnnl_forward_inference, dnnl_convolution_direct, l[X].d, l[WEIGHTS].d,
        l[BIAS].d, l[Y].d, geometry[0], undilated, geometry[1], geometry[2], attr);
}

/* 3.x has no Winograd for x86-64. */
static inline dnnl_status_t describe_winograd(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                                              const struct layout *l, const dnnl_dims_t *geometry,
                                              dnnl_primitive_attr_t attr)
{
    (void)out, (void)engine, (void)l, (void)geometry, (void)attr;
    return dnnl_unimplemented;
}

static inline dnnl_status_t describe_linear(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                                            const struct layout *l, bool bias,
                                            dnnl_primitive_attr_t attr)
{
    return dnnl_matmul_primitive_desc_create(out, engine, l[X].d, l[WEIGHTS].d,
                                             bias ? l[BIAS].d : NULL, l[Y].d, attr);
}
#else
typedef const dnnl_memory_desc_t *layout_ref;
struct layout {
    dnnl_memory_desc_t d;
};

static inline layout_ref layout_see(const struct layout *l)
{
    return &l->d;
}

static inline void layout_free(struct layout *l)
{
    (void)l;
}

static inline dnnl_status_t layout_tag(struct layout *l, int n, const dnnl_dims_t dims,
                                       dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_init_by_tag(&l->d, n, dims, dnnl_f32, tag);
}

static inline dnnl_status_t layout_strides(struct layout *l, int n, const dnnl_dims_t dims,
                                           const dnnl_dims_t strides)
{
    return dnnl_memory_desc_init_by_strides(&l->d, n, dims, dnnl_f32, strides);
}

static inline dnnl_status_t add_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1.0f);
}

static inline dnnl_status_t add_eltwise(dnnl_post_ops_t ops, dnnl_alg_kind_t kind, float alpha)
{
    return dnnl_post_ops_append_eltwise(ops, 1.0f, kind, alpha, 0.0f);
}

static inline dnnl_status_t describe_conv(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                                          const struct layout *l, const dnnl_dims_t *geometry,
                                          dnnl_primitive_attr_t attr)
{
    dnnl_convolution_desc_t d;
    dnnl_status_t status = dnnl_convolution_forward_desc_init(
        &d, dnnl_forward_inference, dnnl_convolution_direct, &l[X].d, &l[WEIGHTS].d, &l[BIAS].d,
        &l[Y].d, geometry[0], geometry[1], geometry[2]);
    return status == dnnl_success ? dnnl_primitive_desc_create(out, &d, attr, engine, NULL)
                                  : status;
}

/* Of those that there are the one with the largest tiles: F(4 x 4, 3 x 3), whose weights are the
 * largest too. */
static inline dnnl_status_t describe_winograd(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                                              const struct layout *l, const dnnl_dims_t *geometry,
                                              dnnl_primitive_attr_t attr)
{
    dnnl_convolution_desc_t d;
    dnnl_primitive_desc_iterator_t all = NULL;
    size_t largest = 0;
    dnnl_status_t status = dnnl_convolution_forward_desc_init(
        &d, dnnl_forward_inference, dnnl_convolution_winograd, &l[X].d, &l[WEIGHTS].d, &l[BIAS].d,
        &l[Y].d, geometry[0], geometry[1], geometry[2]);
    if (status == dnnl_success)
        status = dnnl_primitive_desc_iterator_create(&all, &d, attr, engine, NULL);
    if (status != dnnl_success)
        return status;
    do {
        dnnl_primitive_desc_t one = dnnl_primitive_desc_iterator_fetch(all);
        size_t bytes = one ? dnnl_memory_desc_get_size(
                                 dnnl_primitive_desc_query_md(one, dnnl_query_weights_md, 0))
                           : 0;
        dnnl_primitive_desc_t other = one;
        if (bytes > largest) {
            other = *out;
            *out = one;
            largest = bytes;
        }
        if (other)
            (void)dnnl_primitive_desc_destroy(other);
    } while (dnnl_primitive_desc_iterator_next(all) == dnnl_success);
    (void)dnnl_primitive_desc_iterator_destroy(all);
    return largest ? dnnl_success : dnnl_unimplemented;
}

static inline dnnl_status_t describe_linear(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                                            const struct layout *l, bool bias,
                                            dnnl_primitive_attr_t attr)
{
    dnnl_matmul_desc_t d;
    dnnl_status_t status =
        dnnl_matmul_desc_init(&d, &l[X].d, &l[WEIGHTS].d, bias ? &l[BIAS].d : NULL, &l[Y].d);
    return status == dnnl_success ? dnnl_primitive_desc_create(out, &d, attr, engine, NULL)
                                  : status;
}
#endif

#endif
