/* choice.c: which op is wanted, and in which order auto asks. */
#include "names.h"
#include "router.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A name that may be of an op, or of a processor whose op is meant. */
static attn_status take_name(attn_router *router, const char *text, request *r, attn_name *name,
                             attn_error *err)
{
    (void)snprintf(r->said, sizeof r->said, "%.95s", text);
    *name = (attn_name){.size = sizeof *name};
    if (strchr(text, '.')) {
        return attn_op_id(text, router->device.runtime, r->id, err);
    }
    attn_status status = attn_name_find_in(router->registry, text, ATTN_NAME_OPS, name, err);
    if (status != ATTN_OK) {
        return status;
    }
    r->exact = (name->flags & ATTN_NAME_EXACT) != 0;
    if (strcmp(name->op, "auto") == 0) {
        r->id[0] = 0;
        return ATTN_OK;
    }
    return attn_op_id(name->op, router->device.runtime, r->id, err);
}

/* A variable's value names an op; an unknown one is an error that lists what there is. */
static attn_status take_variable(attn_router *router, const char *variable, const char *value,
                                 request *r, attn_error *err)
{
    attn_name name;
    if (take_name(router, value, r, &name, NULL) == ATTN_OK) {
        return ATTN_OK;
    }
    char list[512];
    names_list_ops(list, sizeof list);
    return attn_fail(err, ATTN_NOT_FOUND, "%s=%.80s names no op; there are: %s", variable, value,
                     list);
}

static void lower(char *to, size_t capacity, const char *from)
{
    (void)snprintf(to, capacity, "%s", from);
    for (char *c = to; *c; c++) {
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
    }
}

static attn_status from_environment(attn_router *router, request *r, attn_error *err)
{
    if (router->op_wanted[0]) {
        r->source = "ATTNPLUG_OP";
        return take_variable(router, r->source, router->op_wanted, r, err);
    }
    if (router->diffsynth_wanted[0]) {
        char value[sizeof router->diffsynth_wanted];
        r->source = "DIFFSYNTH_ATTENTION_IMPLEMENTATION";
        r->falls_back = true; /* as in DiffSynth */
        lower(value, sizeof value, router->diffsynth_wanted);
        return take_variable(router, r->source, value, r, err);
    }
    r->source = "auto";
    return ATTN_OK;
}

attn_status choice_request(attn_router *router, const char *op, uint32_t flags,
                           const attn_op_call *call, request *r, attn_error *err)
{
    *r = (request){.source = "the caller"};
    if (!op || strcmp(op, "auto") == 0) {
        return from_environment(router, r, err);
    }
    attn_name name;
    attn_status status = take_name(router, op, r, &name, err);
    if (status != ATTN_OK) {
        return status;
    }
    r->falls_back = (flags & ATTN_ROUTE_FALL_BACK) != 0;
    bool is_half = flags & (ATTN_ROUTE_AS_F16 | ATTN_ROUTE_AS_BF16);
    if (name.flags & ATTN_NAME_F32_AUTO && call_dtype_bit(call) == ATTN_DTYPE_F32 && !is_half) {
        router_say_once(router, 1, "%s: fp32 takes auto in place of %s", op, r->id);
        r->id[0] = 0;
    }
    return ATTN_OK;
}

static int place_built_in(const char *const *order, const char *id)
{
    int n = 0;
    while (order[n]) {
        if (strcmp(order[n], id) == 0) {
            return order[n + 1] ? n : 1001; /* the last is the plain reference */
        }
        n++;
    }
    return 1000;
}

/* Exact before approximate; measured before not; then the built-in order; then as found. */
static int compare(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->approximate != y->approximate) {
        return x->approximate ? 1 : -1;
    }
    bool x_measured = x->measured_us > 0, y_measured = y->measured_us > 0;
    if (x_measured != y_measured) {
        return x_measured ? -1 : 1;
    }
    if (x_measured && x->measured_us != y->measured_us) {
        return x->measured_us < y->measured_us ? -1 : 1;
    }
    if (x->place != y->place) {
        return x->place < y->place ? -1 : 1;
    }
    return x->found < y->found ? -1 : 1;
}

static void rank(const attn_router *router, const attn_op_call *call, const attn_head *head,
                 uint32_t found, candidate *c)
{
    const char *const *order = names_built_in_order(router->device.runtime);
    int64_t shape[5] = {call->q.shape[0], call->q.shape[1], call->q.shape[2], call->k.shape[2],
                        call->q.shape[3]};
    const attn_order_row *row = NULL;
    *c = (candidate){.place = place_built_in(order, head->id), .found = found};
    (void)snprintf(c->id, sizeof c->id, "%s", head->id);
    c->approximate = (head->flags & ATTN_HEAD_APPROXIMATE) != 0;
    double us = order_lookup(&router->order, router->device.runtime, call_dtype_name(call), shape,
                             head->id, &row);
    if (row && strcmp(row->version, head->version) == 0) {
        c->measured_us = us;
        (void)snprintf(c->source, sizeof c->source, "measured at %lld,%lld,%lld,%lld,%lld",
                       (long long)row->shape[0], (long long)row->shape[1], (long long)row->shape[2],
                       (long long)row->shape[3], (long long)row->shape[4]);
    } else {
        (void)snprintf(c->source, sizeof c->source, "%s",
                       c->place == 1000 ? "found in a folder" : "built-in order");
    }
}

attn_status choice_candidates(attn_router *router, const attn_op_call *call, candidate **out,
                              uint32_t *n, attn_error *err)
{
    const uint32_t files = attn_registry_count(router->registry);
    candidate *all = malloc((files ? files : 1) * sizeof *all);
    attn_file_info info = {.size = sizeof info};
    *n = 0;
    if (!all) {
        return attn_fail(err, ATTN_NOMEM, "no memory to choose among %u plugins", files);
    }
    for (uint32_t i = 0; i < files && attn_registry_file(router->registry, i, &info) == ATTN_OK;
         i++) {
        bool usable = info.verdict == ATTN_VERDICT_OK && info.op;
        bool for_device = usable && info.op->devices >> router->device.type & 1;
        if (for_device && !names_only_when_named(info.op->id)) {
            rank(router, call, info.op, i, &all[(*n)++]);
        }
    }
    qsort(all, *n, sizeof *all, compare);
    *out = all;
    return ATTN_OK;
}
