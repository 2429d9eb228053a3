#include "processor.h"

#include "error.h"
#include "forward.h"
#include "params.h"

#include <stdlib.h>
#include <string.h>

attn_status processor_create(const attn_host *host, const attn_device *device,
                             const attn_param *params, uint32_t n_params,
                             attn_processor **processor, attn_error *err)
{
    static const attn_param_list none = {.size = sizeof none};
    const char *name = processor_kind.name;
    if (!host || !device || !processor || host->size < sizeof *host)
        return attn_fail(err, ATTN_INVALID, "%s: create wants a host, a device and a place", name);
    attn_status status = params_check(&none, params, n_params, name, err);
    if (status != ATTN_OK)
        return status;
    const attn_compute *compute =
        host->query ? (const attn_compute *)host->query(host->ctx, "attn.compute/1") : NULL;
    if (!compute || compute->size < sizeof *compute)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         "%s: the host has no \"attn.compute/1\", through which it works", name);
    attn_processor *p = calloc(1, sizeof *p);
    if (!p)
        return attn_fail(err, ATTN_NOMEM, "%s: no memory for a processor", name);
    p->host = host;
    p->compute = compute;
    p->device = *device;
    *processor = p;
    return ATTN_OK;
}

void processor_destroy(attn_processor *processor)
{
    free(processor);
}

#define LAYER_FLAGS                                                                                \
    (ATTN_LAYER_RESIDUAL | ATTN_LAYER_ONLY_CROSS | ATTN_LAYER_UPCAST_ATTENTION |                   \
     ATTN_LAYER_UPCAST_SOFTMAX)

/* An extension that must be understood and is not. */
static attn_status ext_check(const char *who, const attn_ext *ext, attn_error *err)
{
    for (; ext; ext = ext->next)
        if (ext->flags & ATTN_EXT_REQUIRED)
            return attn_fail(err, ATTN_UNSUPPORTED, "%s: unknown extension \"%s\"", who,
                             ext->id ? ext->id : "");
    return ATTN_OK;
}

/* A flag that must be understood and is not. */
static attn_status flags_check(const char *who, uint32_t flags, uint32_t known, attn_error *err)
{
    if (flags & ~known)
        return attn_fail(err, ATTN_UNSUPPORTED, "%s: unknown flags 0x%x", who,
                         (unsigned)(flags & ~known));
    return ATTN_OK;
}

attn_status processor_bind(attn_processor *processor, const attn_layer *layer,
                           const attn_param *params, uint32_t n_params, attn_work *work,
                           attn_binding **binding, attn_error *err)
{
    const struct processor_kind *kind = &processor_kind;
    if (!processor || !layer || layer->size < sizeof *layer || !work || !binding)
        return attn_fail(err, ATTN_INVALID, "%s: bind wants a layer, a work and a place",
                         kind->name);
    attn_binding *b = calloc(1, sizeof *b + kind->state_bytes);
    if (!b)
        return attn_fail(err, ATTN_NOMEM, "%s: no memory for a binding", kind->name);
    b->processor = processor;
    b->layer = layer;
    b->state = b + 1;
    (void)snprintf(b->who, sizeof b->who, "%s: layer %s", kind->name,
                   layer->name && *layer->name ? layer->name : "(unnamed)");
    attn_status status = flags_check(b->who, layer->flags, LAYER_FLAGS, err);
    if (status == ATTN_OK)
        status = ext_check(b->who, layer->ext, err);
    if (status == ATTN_OK)
        status = params_check(kind->params, params, n_params, b->who, err);
    if (status == ATTN_OK)
        status = layer_check(b, err);
    if (status == ATTN_OK)
        status = kind->bind(b, params, n_params, work, err);
    if (status != ATTN_OK) {
        processor_unbind(b);
        return status;
    }
    *binding = b;
    return ATTN_OK;
}

void processor_unbind(attn_binding *binding)
{
    if (binding && processor_kind.unbind)
        processor_kind.unbind(binding);
    free(binding);
}

static attn_status call_check(const char *who, const attn_layer_call *call)
{
    if (!call || call->size < sizeof *call || !call->work || call->work->size < sizeof *call->work)
        return ATTN_INVALID;
    attn_work *work = call->work;
    if (work->status != ATTN_OK)
        return work->status;
    work->status = flags_check(who, call->flags, ATTN_LAYER_CALL_SAME, work->err);
    if (work->status == ATTN_OK)
        work->status = ext_check(who, call->ext, work->err);
    return work->status;
}

static attn_status forward_run(attn_layer_plan *plan, const attn_layer_call *call, uint64_t *kept)
{
    const attn_binding *b = plan->binding;
    struct forward f = {.compute = b->processor->compute,
                        .binding = b,
                        .layer = b->layer,
                        .plan = plan,
                        .call = call,
                        .work = call->work};
    uint64_t mark = f.work->used;
    forward_begin(&f);
    if (f.work->status == ATTN_OK)
        processor_kind.forward(&f);
    f.work->used = mark;
    *kept = f.kept;
    return f.work->status;
}

attn_status processor_prepare(attn_binding *binding, const attn_layer_call *call,
                              attn_layer_plan **plan)
{
    attn_status status = call_check(binding->who, call);
    if (status != ATTN_OK)
        return status;
    attn_work *work = call->work;
    const attn_compute *compute = binding->processor->compute;
    if (!(work->flags & ATTN_WORK_DRY))
        return work->status =
                   attn_fail(work->err, ATTN_INVALID, "%s: prepare wants a work with ATTN_WORK_DRY",
                             binding->who);
    attn_layer_plan *p = calloc(1, sizeof *p);
    if (!p)
        return work->status =
                   attn_fail(work->err, ATTN_NOMEM, "%s: no memory for a plan", binding->who);
    p->binding = binding;
    status = forward_run(p, call, &p->kept_bytes);
    if (status == ATTN_OK && p->kept_bytes)
        status = work->status = compute->alloc(compute->ctx, p->kept_bytes, &p->kept, work->err);
    if (status != ATTN_OK) {
        processor_release(p);
        return status;
    }
    *plan = p;
    return ATTN_OK;
}

attn_status processor_run(attn_layer_plan *plan, const attn_layer_call *call)
{
    const char *who = plan->binding->who;
    attn_status status = call_check(who, call);
    if (status != ATTN_OK)
        return status;
    attn_work *work = call->work;
    int same = (call->flags & ATTN_LAYER_CALL_SAME) != 0;
    if (work->flags & ATTN_WORK_DRY)
        return work->status =
                   attn_fail(work->err, ATTN_INVALID, "%s: run wants a work that is not dry", who);
    if (same && plan->kept_bytes && !plan->filled)
        return work->status =
                   attn_fail(work->err, ATTN_INVALID,
                             "%s: ATTN_LAYER_CALL_SAME before a run that filled the plan", who);
    uint64_t kept = 0;
    if (!same)
        plan->filled = 0;
    status = forward_run(plan, call, &kept);
    if (status == ATTN_OK)
        plan->filled = 1;
    return status;
}

void processor_release(attn_layer_plan *plan)
{
    if (!plan)
        return;
    const attn_compute *compute = plan->binding->processor->compute;
    if (plan->kept)
        compute->free(compute->ctx, plan->kept);
    free(plan);
}

const void *processor_query(const char *id)
{
    if (id && strcmp(id, "attn.params/1") == 0)
        return processor_kind.params;
    return id && processor_kind.query ? processor_kind.query(id) : NULL;
}
