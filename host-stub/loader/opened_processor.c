/* opened_processor.c: processors behind the checked boundary. */
#include "boundary.h"

#include <stdlib.h>

struct attn_host_processor {
    plugin_file *file;
    const attn_processor_api *api;
    attn_processor *instance;
    _Atomic uint32_t bindings; /* not yet unbound */
    _Atomic uint32_t dead;
};

struct attn_host_binding {
    attn_host_processor *processor;
    attn_binding *binding;
    _Atomic uint32_t plans; /* not yet released */
};

struct attn_host_layer_plan {
    attn_host_binding *binding;
    attn_layer_plan *plan;
    _Atomic uint32_t running;
};

static attn_status processor_create(attn_host_processor *processor, const attn_host *host,
                                    const attn_device *device, const attn_param *params,
                                    uint32_t n_params, attn_error *err)
{
    plugin_file *file = processor->file;
    attn_status status =
        boundary_create(file, &file->processor, device, params, n_params, &host, err);
    if (status != ATTN_OK) {
        return status;
    }
    attn_error inner = boundary_error(err);
    status = processor->api->create(host, device, params, n_params, &processor->instance, &inner);
    status = boundary_result(file, "create", status, &inner, err, NULL);
    if (status == ATTN_OK && !processor->instance) {
        return boundary_retire(file, "create", err, "returned ok and no processor");
    }
    return status;
}

attn_status attn_host_processor_open(attn_registry *registry, const char *id,
                                     const attn_device *device, const attn_host *host,
                                     const attn_param *params, uint32_t n_params,
                                     attn_host_processor **out, attn_error *err)
{
    if (!registry || !id || !device || !out) {
        return attn_fail(err, ATTN_INVALID, "attn_host_processor_open: an argument is NULL");
    }
    attn_host_processor *processor = calloc(1, sizeof *processor);
    if (!processor) {
        return attn_fail(err, ATTN_NOMEM, "no memory to open %s", id);
    }
    attn_status status = plugin_acquire(registry, KIND_PROCESSOR, id, &processor->file, err);
    if (status != ATTN_OK) {
        free(processor);
        return status;
    }
    processor->api = image_processor(atomic_load(&processor->file->image));
    status = processor_create(processor, host, device, params, n_params, err);
    if (status != ATTN_OK) {
        plugin_release(processor->file);
        free(processor);
        return status;
    }
    *out = processor;
    return ATTN_OK;
}

attn_status attn_host_processor_close(attn_host_processor *processor)
{
    if (!processor) {
        return ATTN_OK;
    }
    if (atomic_load(&processor->bindings)) {
        return ATTN_BUSY;
    }
    processor->api->destroy(processor->instance);
    plugin_release(processor->file);
    free(processor);
    return ATTN_OK;
}

const attn_head *attn_host_processor_head(const attn_host_processor *processor)
{
    return &processor->file->processor;
}

const char *attn_host_processor_path(const attn_host_processor *processor)
{
    return processor->file->path;
}

const void *attn_host_processor_query(attn_host_processor *processor, const char *id)
{
    return processor->api->query && id ? processor->api->query(id) : NULL;
}

static attn_status check_bind(const attn_layer *layer, const attn_param *params, uint32_t n_params,
                              const attn_work *work, attn_error *err)
{
    if (!layer || layer->size < sizeof *layer) {
        return attn_fail(err, ATTN_INVALID, "attn_layer: size is %u, expected at least %zu",
                         layer ? layer->size : 0, sizeof *layer);
    }
    if (!work || work->size < sizeof *work) {
        return attn_fail(err, ATTN_INVALID, "attn_work: size is %u, expected at least %zu",
                         work ? work->size : 0, sizeof *work);
    }
    return n_params && !params
               ? attn_fail(err, ATTN_INVALID, "%u parameters, but params is NULL", n_params)
               : ATTN_OK;
}

attn_status attn_host_processor_bind(attn_host_processor *processor, const attn_layer *layer,
                                     const attn_param *params, uint32_t n_params, attn_work *work,
                                     attn_host_binding **out, attn_error *err)
{
    attn_status status = boundary_enter(processor->file, &processor->dead, err);
    if (status == ATTN_OK) {
        status = check_bind(layer, params, n_params, work, err);
    }
    if (status != ATTN_OK) {
        return status;
    }
    attn_host_binding *binding = calloc(1, sizeof *binding);
    if (!binding) {
        return attn_fail(err, ATTN_NOMEM, "no memory to bind %s", processor->file->processor.id);
    }
    binding->processor = processor;
    attn_error inner = boundary_error(err);
    status = processor->api->bind(processor->instance, layer, params, n_params, work,
                                  &binding->binding, &inner);
    status = boundary_result(processor->file, "bind", status, &inner, err, &processor->dead);
    if (status == ATTN_OK && !binding->binding) {
        status = boundary_retire(processor->file, "bind", err, "returned ok and no binding");
    }
    if (status != ATTN_OK) {
        free(binding);
        return status;
    }
    atomic_fetch_add(&processor->bindings, 1);
    *out = binding;
    return ATTN_OK;
}

attn_status attn_host_processor_unbind(attn_host_binding *binding)
{
    if (!binding) {
        return ATTN_OK;
    }
    if (atomic_load(&binding->plans)) {
        return ATTN_BUSY;
    }
    attn_host_processor *processor = binding->processor;
    processor->api->unbind(binding->binding);
    atomic_fetch_sub(&processor->bindings, 1);
    free(binding);
    return ATTN_OK;
}

/* The error of a layer call is its work's. */
static attn_status check_layer_call(const attn_host_processor *processor,
                                    const attn_layer_call *call)
{
    if (!call || call->size < sizeof *call || !call->work) {
        return ATTN_INVALID; /* nowhere to say why */
    }
    const attn_work *work = call->work;
    if (work->size < sizeof *work) {
        bool has_err = work->size >= offsetof(attn_work, scales);
        return attn_fail(has_err ? work->err : NULL, ATTN_INVALID,
                         "attn_work: size is %u, expected at least %zu", work->size, sizeof *work);
    }
    return boundary_enter(processor->file, &processor->dead, call->work->err);
}

/* Calls one of prepare and run with an error of our own in the work. */
static attn_status layer_result(attn_host_processor *processor, const char *function,
                                const attn_layer_call *call, attn_error *err, attn_error *inner,
                                attn_status status)
{
    call->work->err = err;
    status = boundary_result(processor->file, function, status, inner, err, &processor->dead);
    if (status == ATTN_OK && call->work->peak > BOUNDARY_MAX_SCRATCH) {
        return boundary_retire(processor->file, function, err, "takes %llu bytes of the arena",
                               (unsigned long long)call->work->peak);
    }
    return status;
}

attn_status attn_host_processor_prepare(attn_host_binding *binding, const attn_layer_call *call,
                                        attn_host_layer_plan **out)
{
    attn_host_processor *processor = binding->processor;
    attn_status status = check_layer_call(processor, call);
    if (status != ATTN_OK) {
        return status;
    }
    attn_error *err = call->work->err;
    attn_host_layer_plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        return attn_fail(err, ATTN_NOMEM, "no memory for a plan of %s",
                         processor->file->processor.id);
    }
    attn_error inner = boundary_error(err);
    call->work->err = &inner;
    status = processor->api->prepare(binding->binding, call, &plan->plan);
    bool is_theirs = status == ATTN_OK; /* a plan that came with a failure is not touched */
    status = layer_result(processor, "prepare", call, err, &inner, status);
    if (status == ATTN_OK && !plan->plan) {
        status = boundary_retire(processor->file, "prepare", err, "returned ok and no plan");
    }
    if (status != ATTN_OK) {
        if (is_theirs && plan->plan) {
            processor->api->release(plan->plan);
        }
        free(plan);
        return status;
    }
    plan->binding = binding;
    atomic_fetch_add(&binding->plans, 1);
    *out = plan;
    return ATTN_OK;
}

attn_status attn_host_processor_run(attn_host_layer_plan *plan, const attn_layer_call *call)
{
    attn_host_processor *processor = plan->binding->processor;
    attn_status status = check_layer_call(processor, call);
    if (status != ATTN_OK) {
        return status;
    }
    attn_error *err = call->work->err;
    if (atomic_exchange_explicit(&plan->running, 1, memory_order_acquire)) {
        return attn_fail(err, ATTN_BUSY, "%s: this plan is running on another thread",
                         processor->file->processor.id);
    }
    attn_error inner = boundary_error(err);
    call->work->err = &inner;
    status = processor->api->run(plan->plan, call);
    status = layer_result(processor, "run", call, err, &inner, status);
    atomic_store_explicit(&plan->running, 0, memory_order_release);
    return status;
}

void attn_host_processor_release(attn_host_layer_plan *plan)
{
    if (!plan) {
        return;
    }
    attn_host_binding *binding = plan->binding;
    binding->processor->api->release(plan->plan);
    atomic_fetch_sub(&binding->plans, 1);
    free(plan);
}
