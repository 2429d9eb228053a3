/* onednn.c: see onednn.h.  oneDNN runs on libgomp, as parallel_for does: one pool of threads. */
#include "onednn_private.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl_debug.h>
#include <stdlib.h>
#include <string.h>

static const int arg_id[ARGS] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST,
                                 DNNL_ARG_SCRATCHPAD};

/* -- the engine -------------------------------------------------------------------------------- */

attn_status onednn_refuse(attn_error *err, const char *what, dnnl_status_t status)
{
    return attn_fail(err, status == dnnl_out_of_memory ? ATTN_NOMEM : ATTN_INTERNAL,
                     "oneDNN: %s: %s", what, dnnl_status2str(status));
}

attn_status onednn_open(uint32_t n_threads, struct onednn **out, attn_error *err)
{
    struct onednn *o = calloc(1, sizeof *o);
    if (!o)
        return attn_fail(err, ATTN_NOMEM, "no memory for oneDNN's engine");
    o->threads = (int)n_threads;
    dnnl_status_t status = dnnl_engine_create(&o->engine, dnnl_cpu, 0);
    if (status == dnnl_success)
        status = dnnl_stream_create(&o->stream, o->engine, dnnl_stream_default_flags);
    if (status != dnnl_success) {
        onednn_close(o);
        return onednn_refuse(err, "creating an engine for the CPU", status);
    }
    *out = o;
    return ATTN_OK;
}

void onednn_close(struct onednn *o)
{
    if (!o)
        return;
    if (o->stream)
        (void)dnnl_stream_destroy(o->stream);
    if (o->engine)
        (void)dnnl_engine_destroy(o->engine);
    free(o);
}

int onednn_threads_enter(const struct onednn *o)
{
    int before = omp_get_max_threads();
    omp_set_num_threads(o->threads);
    return before;
}

void onednn_threads_leave(int before)
{
    omp_set_num_threads(before);
}

/* -- plans ------------------------------------------------------------------------------------- */

static dnnl_status_t attr_activate(dnnl_post_ops_t ops, enum activation act)
{
    switch (act) {
    case ACT_SILU:
        return add_eltwise(ops, dnnl_eltwise_swish, 1.0f);
    case ACT_QUICK_GELU:
        return add_eltwise(ops, dnnl_eltwise_swish, 1.702f);
    case ACT_GELU:
        return add_eltwise(ops, dnnl_eltwise_gelu_erf, 0.0f);
    default:
        return dnnl_success;
    }
}

static dnnl_status_t attr_make(enum activation act, bool accumulate, dnnl_primitive_attr_t *out)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(&attr);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (status == dnnl_success)
        status = dnnl_post_ops_create(&ops);
    if (status == dnnl_success)
        status = accumulate ? add_sum(ops) : attr_activate(ops, act);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_post_ops(attr, ops);
    if (ops)
        (void)dnnl_post_ops_destroy(ops);
    if (status != dnnl_success && attr)
        (void)dnnl_primitive_attr_destroy(attr);
    else
        *out = attr;
    return status;
}

static layout_ref plan_layout(const struct onednn_plan *plan, dnnl_query_t what)
{
    return dnnl_primitive_desc_query_md(plan->desc, what, 0);
}

/* The primitive of plan->desc and the memory objects that a run points at its data; `convolves`:
 * the weights bring their own. */
static dnnl_status_t plan_finish(struct onednn_plan *plan, bool convolves, bool bias)
{
    static const dnnl_query_t query[ARGS] = {dnnl_query_src_md, dnnl_query_weights_md,
                                             dnnl_query_weights_md, dnnl_query_dst_md,
                                             dnnl_query_scratchpad_md};
    dnnl_status_t status = dnnl_primitive_create(&plan->primitive, plan->desc);
    plan->scratch = dnnl_memory_desc_get_size(plan_layout(plan, dnnl_query_scratchpad_md));
    for (int i = 0; i < ARGS && status == dnnl_success; ++i) {
        if ((i == WEIGHTS && convolves) || (i == BIAS && !bias) || (i == SCRATCH && !plan->scratch))
            continue;
        layout_ref layout = dnnl_primitive_desc_query_md(plan->desc, query[i], i == BIAS);
        status = dnnl_memory_create(&plan->memory[i], layout, plan->o->engine, DNNL_MEMORY_NONE);
    }
    return status;
}

void onednn_plan_free(struct onednn_plan *plan)
{
    if (!plan)
        return;
    for (int i = 0; i < ARGS; ++i) {
        if (plan->memory[i])
            (void)dnnl_memory_destroy(plan->memory[i]);
    }
    if (plan->primitive)
        (void)dnnl_primitive_destroy(plan->primitive);
    if (plan->desc)
        (void)dnnl_primitive_desc_destroy(plan->desc);
    free(plan);
}

uint64_t onednn_plan_scratch(const struct onednn_plan *plan)
{
    return plan->scratch;
}

static dnnl_status_t conv_describe(struct onednn_plan *plan, const struct onednn_conv *c,
                                   dnnl_primitive_attr_t attr)
{
    const dnnl_dims_t x = {c->batch, c->in, c->height, c->width};
    const dnnl_dims_t w = {c->out, c->in, c->kernel, c->kernel}, b = {c->out};
    const dnnl_dims_t y = {c->batch, c->out, c->out_height, c->out_width};
    const int64_t above = c->halo ? 0 : c->pad_low, below = c->halo ? 0 : c->pad_high;
    const dnnl_dims_t geometry[3] = {
        {c->stride, c->stride}, {above, c->pad_low}, {below, c->pad_high}};
    const dnnl_format_tag_t tag = c->winograd ? dnnl_nChw16c : dnnl_nhwc;
    struct layout l[ARGS] = {0};
    dnnl_status_t status = layout_tag(&l[X], 4, x, tag);
    if (status == dnnl_success)
        status = layout_tag(&l[WEIGHTS], 4, w, dnnl_format_tag_any);
    if (status == dnnl_success)
        status = layout_tag(&l[BIAS], 1, b, dnnl_a);
    if (status == dnnl_success)
        status = layout_tag(&l[Y], 4, y, tag);
    if (status == dnnl_success)
        status = (c->winograd ? describe_winograd : describe_conv)(&plan->desc, plan->o->engine, l,
                                                                   geometry, attr);
    for (int i = 0; i < ARGS; ++i)
        layout_free(&l[i]);
    return status;
}

attn_status onednn_conv_plan(struct onednn *o, const struct onednn_conv *c,
                             struct onednn_plan **out, attn_error *err)
{
    struct onednn_plan *plan = calloc(1, sizeof *plan);
    if (!plan)
        return attn_fail(err, ATTN_NOMEM, "no memory for a convolution's plan");
    plan->o = o;
    int before = onednn_threads_enter(o);
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t status = attr_make(c->activation, c->accumulate, &attr);
    if (status == dnnl_success)
        status = conv_describe(plan, c, attr);
    if (status == dnnl_success)
        status = plan_finish(plan, true, true);
    if (attr)
        (void)dnnl_primitive_attr_destroy(attr);
    onednn_threads_leave(before);
    if (status != dnnl_success) {
        onednn_plan_free(plan);
        if (c->winograd && status == dnnl_unimplemented)
            return ATTN_UNSUPPORTED;
        return onednn_refuse(err, "planning a convolution", status);
    }
    *out = plan;
    return ATTN_OK;
}

static dnnl_status_t linear_describe(struct onednn_plan *plan, const struct onednn_linear *p,
                                     dnnl_primitive_attr_t attr)
{
    const dnnl_dims_t x = {p->rows, p->depth}, x_strides = {p->x_stride, 1};
    const dnnl_dims_t w = {p->depth, p->columns}, w_strides = {1, p->weight_stride};
    const dnnl_dims_t y = {p->rows, p->columns}, y_strides = {p->y_stride, 1};
    const dnnl_dims_t b = {1, p->columns};
    struct layout l[ARGS] = {0};
    dnnl_status_t status = layout_strides(&l[X], 2, x, x_strides);
    if (status == dnnl_success)
        status = layout_strides(&l[WEIGHTS], 2, w, w_strides);
    if (status == dnnl_success)
        status = layout_tag(&l[BIAS], 2, b, dnnl_ab);
    if (status == dnnl_success)
        status = layout_strides(&l[Y], 2, y, y_strides);
    if (status == dnnl_success)
        status = describe_linear(&plan->desc, plan->o->engine, l, p->bias, attr);
    for (int i = 0; i < ARGS; ++i)
        layout_free(&l[i]);
    return status;
}

attn_status onednn_linear_plan(struct onednn *o, const struct onednn_linear *p,
                               struct onednn_plan **out, attn_error *err)
{
    struct onednn_plan *plan = calloc(1, sizeof *plan);
    if (!plan)
        return attn_fail(err, ATTN_NOMEM, "no memory for a linear's plan");
    plan->o = o;
    int before = onednn_threads_enter(o);
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t status = attr_make(p->activation, p->accumulate, &attr);
    if (status == dnnl_success)
        status = linear_describe(plan, p, attr);
    if (status == dnnl_success)
        status = plan_finish(plan, false, p->bias);
    if (attr)
        (void)dnnl_primitive_attr_destroy(attr);
    onednn_threads_leave(before);
    if (status != dnnl_success) {
        onednn_plan_free(plan);
        return onednn_refuse(err, "planning a linear", status);
    }
    *out = plan;
    return ATTN_OK;
}

/* -- run --------------------------------------------------------------------------------------- */

attn_status onednn_run(struct onednn_plan *plan, const struct onednn_buffers *b, attn_error *err)
{
    const void *data[ARGS] = {b->x, b->weight, b->bias, b->y, b->scratch};
    dnnl_exec_arg_t args[ARGS];
    int n = 0;
    dnnl_status_t status = dnnl_success;
    int before = onednn_threads_enter(plan->o);
    for (int i = 0; i < ARGS && status == dnnl_success; ++i) {
        dnnl_memory_t memory = i == WEIGHTS && b->packed ? b->packed->memory : plan->memory[i];
        if (!memory)
            continue;
        if (memory == plan->memory[i])
            status = dnnl_memory_set_data_handle(memory, (void *)(uintptr_t)data[i]);
        args[n++] = (dnnl_exec_arg_t){arg_id[i], memory};
    }
    if (status == dnnl_success)
        status = dnnl_primitive_execute(plan->primitive, plan->o->stream, n, args);
    if (status == dnnl_success)
        status = dnnl_stream_wait(plan->o->stream);
    onednn_threads_leave(before);
    return status == dnnl_success ? ATTN_OK : onednn_refuse(err, "running a primitive", status);
}
