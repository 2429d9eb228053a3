/* plan.c: from a call to a prepared plan of one op: asks, prepares, falls back. */
#include "names.h"
#include "router.h"
#include "staging.h"
#include "text.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void router_say_once(attn_router *router, int32_t level, const char *format, ...)
{
    char text[512];
    uint64_t hash = 1469598103934665603u; /* FNV-1a */
    bool known = false;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (const char *c = text; *c; c++) {
        hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    }
    pthread_mutex_lock(&router->lock);
    uint32_t capacity = sizeof router->said / sizeof *router->said;
    for (uint32_t i = 0; i < router->n_said && i < capacity && !known; i++) {
        known = router->said[i] == hash;
    }
    if (!known) {
        router->said[router->n_said++ % capacity] = hash;
    }
    pthread_mutex_unlock(&router->lock);
    if (!known) {
        registry_log(router->registry, level, "%s", text);
    }
}

/* Whether the plugin's head rules the call out already; its text is as good as the plugin's. */
static attn_status check_head(const op_entry *entry, const attn_op_call *call, attn_error *err)
{
    const attn_head *head = attn_host_op_head(entry->op);
    return head->dtypes & call_dtype_bit(call)
               ? ATTN_OK
               : attn_fail(err, ATTN_UNSUPPORTED, "does not take %s", call_dtype_name(call));
}

static attn_status ask(const op_entry *entry, const attn_op_call *call, attn_error *err)
{
    attn_status status = check_head(entry, call, err);
    return status == ATTN_OK ? attn_host_op_supports(entry->op, call, err) : status;
}

attn_status plan_ask(attn_router *router, const char *id, const attn_op_call *call, attn_error *err)
{
    op_entry *entry = NULL;
    nesting n;
    attn_status status = nesting_enter(&n, id, err);
    if (status != ATTN_OK) {
        return status;
    }
    status = ops_get(router, id, NULL, 0, &entry, err);
    if (status == ATTN_OK) {
        status = ask(entry, call, err);
        ops_put(entry);
    }
    nesting_leave(&n);
    return status;
}

/* For an op that takes the call's tensors as they are, or copies of them. */
static attn_status prepare_inner(attn_plan *plan, uint32_t flags, const attn_op_call *call,
                                 uint64_t *scratch, attn_error *err)
{
    op_entry *entry = plan->entry;
    attn_op_call staged;
    bool stages = staging_needed(plan->router, entry, flags, call);
    if (stages) {
        staging_call(entry, flags, call, &staged);
        call = &staged;
    }
    attn_status status = ask(entry, call, err);
    if (status == ATTN_OK) {
        status = attn_host_op_prepare(entry->op, call, &plan->inner, scratch, err);
    }
    if (status != ATTN_OK || !stages) {
        return status;
    }
    status = staging_create(entry, call, *scratch, &plan->staging, err);
    if (status != ATTN_OK) {
        attn_host_op_release(plan->inner);
    }
    *scratch = 0; /* the op's is among the copies */
    return status;
}

static attn_status prepare_entry(attn_router *router, op_entry *entry, uint32_t flags,
                                 const attn_op_call *call, attn_plan **out, uint64_t *scratch,
                                 attn_error *err)
{
    attn_plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        return attn_fail(err, ATTN_NOMEM, "no memory for a plan of %s", entry->id);
    }
    plan->router = router;
    plan->entry = entry;
    attn_status status = prepare_inner(plan, flags, call, scratch, err);
    if (status != ATTN_OK) {
        free(plan);
        return status;
    }
    atomic_fetch_add(&router->plans, 1);
    *out = plan;
    return ATTN_OK;
}

attn_status plan_try(attn_router *router, const char *id, const attn_param *params,
                     uint32_t n_params, uint32_t flags, const attn_op_call *call, attn_plan **plan,
                     uint64_t *scratch, attn_error *err)
{
    op_entry *entry = NULL;
    nesting n;
    attn_status status = nesting_enter(&n, id, err);
    if (status != ATTN_OK) {
        return status;
    }
    status = ops_get(router, id, params, n_params, &entry, err);
    if (status == ATTN_OK) {
        status = prepare_entry(router, entry, flags, call, plan, scratch, err);
        if (status != ATTN_OK) {
            ops_put(entry);
        }
    }
    nesting_leave(&n);
    return status;
}

static void append_reason(char *text, size_t capacity, const char *id, const char *reason)
{
    text_append(text, capacity, text[0] ? " [" : "[");
    text_append(text, capacity, id);
    text_append(text, capacity, ": ");
    text_append(text, capacity, reason);
    text_append(text, capacity, "]");
}

/* No candidate at all: the first op of the built-in order is missing, and its file has a name. */
static attn_status fail_no_candidates(attn_router *router, attn_error *err)
{
    const char *const *order = names_built_in_order(router->device.runtime);
    ATTN_ERROR_ON(why, 1024);
    op_entry *entry = NULL;
    if (!order[0]) {
        return attn_fail(err, ATTN_NOT_FOUND, "no op for device type %d (%s) was found",
                         router->device.type, router->device.runtime);
    }
    attn_status status = ops_get(router, order[0], NULL, 0, &entry, &why);
    if (status == ATTN_OK) {
        ops_put(entry);
        return attn_fail(err, ATTN_BUSY, "the plugins changed during the call: try again");
    }
    return attn_fail(err, ATTN_NOT_FOUND, "no op for %s: %s", router->device.runtime, why.text);
}

/* The first that takes the call; UNSUPPORTED with every reason where none does. */
static attn_status prepare_first(attn_router *router, const candidate *candidates, uint32_t n,
                                 bool approximate, const attn_op_call *call, attn_plan **plan,
                                 uint64_t *scratch, attn_error *err)
{
    char reasons[1024] = "";
    for (uint32_t i = 0; i < n; i++) {
        ATTN_ERROR_ON(why, 512);
        if (candidates[i].approximate && !approximate) {
            append_reason(reasons, sizeof reasons, candidates[i].id, "approximate, not allowed");
            continue;
        }
        attn_status status =
            plan_try(router, candidates[i].id, NULL, 0, 0, call, plan, scratch, &why);
        if (status == ATTN_OK) {
            return ATTN_OK;
        }
        if (status == ATTN_INVALID) {
            return attn_fail(err, status, "%s: %s", candidates[i].id, why.text);
        }
        if (status != ATTN_UNSUPPORTED) {
            router_say_once(router, 1, "%s was passed over: %s", candidates[i].id, why.text);
        }
        append_reason(reasons, sizeof reasons, candidates[i].id, why.text);
    }
    return attn_fail(err, ATTN_UNSUPPORTED, "no op takes this call: %s", reasons);
}

static attn_status prepare_auto(attn_router *router, bool approximate, const attn_op_call *call,
                                attn_plan **plan, uint64_t *scratch, attn_error *err)
{
    candidate *candidates = NULL;
    uint32_t n = 0;
    attn_status status = choice_candidates(router, call, &candidates, &n, err);
    if (status == ATTN_OK) {
        status = n ? prepare_first(router, candidates, n, approximate, call, plan, scratch, err)
                   : fail_no_candidates(router, err);
    }
    free(candidates);
    return status;
}

attn_status attn_router_prepare(attn_router *router, const char *op, const attn_param *params,
                                uint32_t n_params, uint32_t flags, const attn_op_call *call,
                                attn_plan **plan, uint64_t *scratch, attn_error *err)
{
    request r;
    attn_status status = call_check(call, &router->device, err);
    if (status == ATTN_OK) {
        status = choice_request(router, op, flags, call, &r, err);
    }
    if (status != ATTN_OK) {
        return status;
    }
    bool approximate = (flags & ATTN_ROUTE_APPROXIMATE) && !r.exact;
    if (!r.id[0]) {
        return prepare_auto(router, approximate, call, plan, scratch, err);
    }
    ATTN_ERROR_ON(why, 1024);
    status = plan_try(router, r.id, params, n_params, flags, call, plan, scratch, &why);
    if (status == ATTN_OK) {
        return ATTN_OK;
    }
    bool is_variable = strcmp(r.source, "the caller") != 0;
    /* DiffSynth's variable also falls through where its op is not installed. */
    bool may_fall = status == ATTN_UNSUPPORTED || (is_variable && status == ATTN_NOT_FOUND);
    if (r.falls_back && may_fall) {
        router_say_once(router, 1, "%s (asked for by %s) was not taken: %s", r.said, r.source,
                        why.text);
        return prepare_auto(router, approximate, call, plan, scratch, err);
    }
    return attn_fail(err, status, "%s%s%s: %s", is_variable ? r.source : "", is_variable ? "=" : "",
                     r.said, why.text);
}

const char *attn_plan_op(const attn_plan *plan)
{
    return plan->entry->id;
}

attn_status attn_plan_run(attn_plan *plan, const attn_op_call *call, attn_error *err)
{
    return plan->staging ? staging_run(plan->staging, plan->inner, call, err)
                         : attn_host_op_run(plan->inner, call, err);
}

void attn_plan_release(attn_plan *plan)
{
    if (!plan) {
        return;
    }
    attn_router *router = plan->router;
    attn_host_op_release(plan->inner);
    staging_free(plan->staging);
    ops_put(plan->entry);
    free(plan);
    atomic_fetch_sub(&router->plans, 1);
}
