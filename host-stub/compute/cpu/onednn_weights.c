/* onednn_weights.c: a convolution's weights in the layouts that plans want. */
#include "onednn_private.h"

#include <stdlib.h>

static layout_ref plan_layout(const struct onednn_plan *plan)
{
    return dnnl_primitive_desc_query_md(plan->desc, dnnl_query_weights_md, 0);
}

/* What weights are laid out from, and memory to do it in. */
struct source {
    layout_ref layout;
    dnnl_memory_t memory;
    void *scratch;
    uint64_t bytes;
};

static dnnl_status_t reorder_run(const struct onednn *o, dnnl_primitive_desc_t desc,
                                 dnnl_primitive_t primitive, const struct source *from,
                                 dnnl_memory_t to)
{
    layout_ref layout = dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
    const size_t bytes = dnnl_memory_desc_get_size(layout);
    void *data = bytes > from->bytes ? DNNL_MEMORY_ALLOCATE : from->scratch;
    dnnl_memory_t scratch = NULL;
    dnnl_status_t status = dnnl_success;
    if (bytes)
        status = dnnl_memory_create(&scratch, layout, o->engine, data);
    const dnnl_exec_arg_t args[] = {
        {DNNL_ARG_FROM, from->memory}, {DNNL_ARG_TO, to}, {DNNL_ARG_SCRATCHPAD, scratch}};
    if (status == dnnl_success)
        status = dnnl_primitive_execute(primitive, o->stream, scratch ? 3 : 2, args);
    if (status == dnnl_success)
        status = dnnl_stream_wait(o->stream);
    if (scratch)
        (void)dnnl_memory_destroy(scratch);
    return status;
}

static dnnl_status_t reorder(const struct onednn *o, const struct source *from,
                             layout_ref to_layout, dnnl_memory_t to)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(&attr);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (status == dnnl_success)
        status = dnnl_reorder_primitive_desc_create(&desc, from->layout, o->engine, to_layout,
                                                    o->engine, attr);
    if (status == dnnl_success)
        status = dnnl_primitive_create(&primitive, desc);
    if (status == dnnl_success)
        status = reorder_run(o, desc, primitive, from, to);
    if (primitive)
        (void)dnnl_primitive_destroy(primitive);
    if (desc)
        (void)dnnl_primitive_desc_destroy(desc);
    if (attr)
        (void)dnnl_primitive_attr_destroy(attr);
    return status;
}

static attn_status weights_make(const struct onednn_plan *plan, const struct source *from,
                                struct onednn_weights **out, attn_error *err)
{
    struct onednn_weights *w = calloc(1, sizeof *w);
    if (!w)
        return attn_fail(err, ATTN_NOMEM, "no memory for a convolution's weights");
    int before = onednn_threads_enter(plan->o);
    layout_ref layout = plan_layout(plan);
    dnnl_status_t status =
        dnnl_memory_create(&w->memory, layout, plan->o->engine, DNNL_MEMORY_ALLOCATE);
    if (status == dnnl_success)
        status = reorder(plan->o, from, layout, w->memory);
    onednn_threads_leave(before);
    if (status != dnnl_success) {
        onednn_weights_free(w);
        return onednn_refuse(err, "laying out a convolution's weights", status);
    }
    *out = w;
    return ATTN_OK;
}

attn_status onednn_weights_pack(const struct onednn_plan *plan, const struct onednn_conv *c,
                                const float *weight, void *scratch, uint64_t bytes,
                                struct onednn_weights **out, attn_error *err)
{
    const dnnl_dims_t shape = {c->out, c->in, c->kernel, c->kernel};
    struct layout plain = {0};
    struct source from = {.scratch = scratch, .bytes = scratch ? bytes : 0};
    attn_status result;
    dnnl_status_t status = layout_tag(&plain, 4, shape, dnnl_oihw);
    if (status == dnnl_success)
        status = dnnl_memory_create(&from.memory, layout_see(&plain), plan->o->engine,
                                    (void *)(uintptr_t)weight);
    from.layout = layout_see(&plain);
    if (status == dnnl_success)
        result = weights_make(plan, &from, out, err);
    else
        result = onednn_refuse(err, "reading a convolution's weights", status);
    if (from.memory)
        (void)dnnl_memory_destroy(from.memory);
    layout_free(&plain);
    return result;
}

static layout_ref weights_layout(const struct onednn_weights *w)
{
    layout_ref layout = NULL;
    (void)dnnl_memory_get_memory_desc(w->memory, &layout);
    return layout;
}

attn_status onednn_weights_repack(const struct onednn_plan *plan, const struct onednn_weights *from,
                                  struct onednn_weights **out, attn_error *err)
{
    const struct source source = {.layout = weights_layout(from), .memory = from->memory};
    return weights_make(plan, &source, out, err);
}

bool onednn_weights_fit(const struct onednn_plan *plan, const struct onednn_weights *w)
{
    return dnnl_memory_desc_equal(plan_layout(plan), weights_layout(w)) != 0;
}

uint64_t onednn_weights_bytes(const struct onednn_weights *w)
{
    return dnnl_memory_desc_get_size(weights_layout(w));
}

void onednn_weights_free(struct onednn_weights *w)
{
    if (w && w->memory)
        (void)dnnl_memory_destroy(w->memory);
    free(w);
}
