/* opened_op.c: ops behind the checked boundary. */
#include "boundary.h"

#include <stdlib.h>

struct attn_host_op {
    plugin_file *file;
    const attn_op_api *api;
    attn_op *instance;
    _Atomic uint32_t plans; /* not yet released */
    _Atomic uint32_t dead;  /* returned ATTN_DEVICE */
};

struct attn_host_op_plan {
    attn_host_op *op;
    attn_op_plan *plan;
    attn_status (*run)(attn_op_plan *plan, const attn_op_call *call, attn_error *err);
    _Atomic uint32_t running; /* one run at a time */
};

static attn_status op_create(attn_host_op *op, const attn_host *host, const attn_device *device,
                             const attn_param *params, uint32_t n_params, attn_error *err)
{
    plugin_file *file = op->file;
    attn_status status = boundary_create(file, &file->op, device, params, n_params, &host, err);
    if (status != ATTN_OK) {
        return status;
    }
    attn_error inner = boundary_error(err);
    status = op->api->create(host, device, params, n_params, &op->instance, &inner);
    status = boundary_result(file, "create", status, &inner, err, NULL);
    if (status == ATTN_OK && !op->instance) {
        return boundary_retire(file, "create", err, "returned ok and no op");
    }
    return status;
}

attn_status attn_host_op_open(attn_registry *registry, const char *id, const attn_device *device,
                              const attn_host *host, const attn_param *params, uint32_t n_params,
                              attn_host_op **out, attn_error *err)
{
    if (!registry || !id || !device || !out) {
        return attn_fail(err, ATTN_INVALID, "attn_host_op_open: an argument is NULL");
    }
    attn_host_op *op = calloc(1, sizeof *op);
    if (!op) {
        return attn_fail(err, ATTN_NOMEM, "no memory to open %s", id);
    }
    attn_status status = plugin_acquire(registry, KIND_OP, id, &op->file, err);
    if (status != ATTN_OK) {
        free(op);
        return status;
    }
    op->api = image_op(atomic_load(&op->file->image));
    status = op_create(op, host, device, params, n_params, err);
    if (status != ATTN_OK) {
        plugin_release(op->file);
        free(op);
        return status;
    }
    *out = op;
    return ATTN_OK;
}

attn_status attn_host_op_close(attn_host_op *op)
{
    if (!op) {
        return ATTN_OK;
    }
    if (atomic_load(&op->plans)) {
        return ATTN_BUSY;
    }
    op->api->destroy(op->instance);
    plugin_release(op->file);
    free(op);
    return ATTN_OK;
}

const attn_head *attn_host_op_head(const attn_host_op *op)
{
    return &op->file->op;
}

const char *attn_host_op_path(const attn_host_op *op)
{
    return op->file->path;
}

const void *attn_host_op_query(attn_host_op *op, const char *id)
{
    return op->api->query && id ? op->api->query(id) : NULL;
}

bool opened_op_is_current(const attn_host_op *op)
{
    return plugin_is_current(op->file, KIND_OP);
}

attn_op *attn_host_op_instance(attn_host_op *op)
{
    return op->instance;
}

static attn_status check_call(const attn_op_call *call, attn_error *err)
{
    if (!call || call->size < sizeof *call) {
        return attn_fail(err, ATTN_INVALID, "attn_op_call: size is %u, expected at least %zu",
                         call ? call->size : 0, sizeof *call);
    }
    return ATTN_OK;
}

attn_status attn_host_op_supports(attn_host_op *op, const attn_op_call *call, attn_error *err)
{
    attn_status status = boundary_enter(op->file, &op->dead, err);
    if (status == ATTN_OK) {
        status = check_call(call, err);
    }
    if (status != ATTN_OK) {
        return status;
    }
    attn_error inner = boundary_error(err);
    status = op->api->supports(op->instance, call, &inner);
    return boundary_result(op->file, "supports", status, &inner, err, &op->dead);
}

/* The plugin's plan, or why it is none. */
static attn_status inner_prepare(attn_host_op *op, const attn_op_call *call, attn_op_plan **plan,
                                 uint64_t *scratch, attn_error *err)
{
    attn_error inner = boundary_error(err);
    attn_status status = op->api->prepare(op->instance, call, plan, scratch, &inner);
    status = boundary_result(op->file, "prepare", status, &inner, err, &op->dead);
    if (status != ATTN_OK) {
        return status;
    }
    if (!*plan) {
        return boundary_retire(op->file, "prepare", err, "returned ok and no plan");
    }
    if (*scratch > BOUNDARY_MAX_SCRATCH) {
        op->api->release(*plan);
        return boundary_retire(op->file, "prepare", err, "asks for %llu bytes of scratch",
                               (unsigned long long)*scratch);
    }
    return ATTN_OK;
}

attn_status attn_host_op_prepare(attn_host_op *op, const attn_op_call *call,
                                 attn_host_op_plan **out, uint64_t *scratch, attn_error *err)
{
    attn_status status = boundary_enter(op->file, &op->dead, err);
    if (status == ATTN_OK) {
        status = check_call(call, err);
    }
    if (status != ATTN_OK) {
        return status;
    }
    attn_host_op_plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        return attn_fail(err, ATTN_NOMEM, "no memory for a plan of %s", op->file->op.id);
    }
    uint64_t bytes = 0;
    atomic_fetch_add(&op->plans, 1);
    status = inner_prepare(op, call, &plan->plan, &bytes, err);
    if (status != ATTN_OK) {
        atomic_fetch_sub(&op->plans, 1);
        free(plan);
        return status;
    }
    plan->op = op;
    plan->run = op->api->run;
    *scratch = bytes;
    *out = plan;
    return ATTN_OK;
}

attn_status attn_host_op_run(attn_host_op_plan *plan, const attn_op_call *call, attn_error *err)
{
    attn_host_op *op = plan->op;
    attn_status status = boundary_enter(op->file, &op->dead, err);
    if (status == ATTN_OK) {
        status = check_call(call, err);
    }
    if (status != ATTN_OK) {
        return status;
    }
    if (atomic_exchange_explicit(&plan->running, 1, memory_order_acquire)) {
        return attn_fail(err, ATTN_BUSY, "%s: this plan is running on another thread",
                         op->file->op.id);
    }
    attn_error inner = boundary_error(err);
    status = plan->run(plan->plan, call, &inner);
    atomic_store_explicit(&plan->running, 0, memory_order_release);
    return boundary_result(op->file, "run", status, &inner, err, &op->dead);
}

void attn_host_op_release(attn_host_op_plan *plan)
{
    if (!plan) {
        return;
    }
    attn_host_op *op = plan->op;
    op->api->release(plan->plan);
    atomic_fetch_sub(&op->plans, 1);
    free(plan);
}
