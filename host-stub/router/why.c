/* why.c: each op in the order in which auto asks, and what it says of a call. */
#include "router.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    attn_why *rows;
    uint32_t capacity, n;
    bool taken; /* by an earlier row */
} why_table;

/* Rows of an older, shorter struct get what fits. */
static void add_row(why_table *t, attn_why *row)
{
    if (t->n < t->capacity) {
        uint32_t size = t->rows[0].size < sizeof *row ? t->rows[0].size : sizeof *row;
        row->size = size;
        memcpy((char *)t->rows + (size_t)t->n * size, row, size);
    }
    t->n++;
}

static void ask(attn_router *router, const attn_op_call *call, bool allowed, why_table *t,
                attn_why *row)
{
    attn_error err = {sizeof err, sizeof row->reason, row->reason, 0};
    attn_status status =
        allowed ? plan_ask(router, row->op, call, &err)
                : attn_fail(&err, ATTN_UNSUPPORTED, "approximate, and only exact ops are allowed");
    if (status == ATTN_OK && !t->taken) {
        row->taken = 1;
        t->taken = true;
    }
    add_row(t, row);
}

attn_status attn_router_why(attn_router *router, const attn_op_call *call, uint32_t flags,
                            attn_why *rows, uint32_t capacity, uint32_t *n_rows, attn_error *err)
{
    request r;
    candidate *candidates = NULL;
    uint32_t n = 0;
    why_table t = {.rows = rows, .capacity = capacity};
    attn_status status = call_check(call, &router->device, err);
    if (status == ATTN_OK && capacity && rows[0].size < 8) {
        status = attn_fail(err, ATTN_INVALID, "attn_why: size is %u, expected %zu", rows[0].size,
                           sizeof *rows);
    }
    if (status == ATTN_OK) {
        status = choice_request(router, NULL, flags, call, &r, err);
    }
    if (status == ATTN_OK) {
        status = choice_candidates(router, call, &candidates, &n, err);
    }
    if (status != ATTN_OK) {
        return status;
    }
    if (r.id[0]) {
        attn_why row = {.size = sizeof row};
        (void)snprintf(row.op, sizeof row.op, "%s", r.id);
        (void)snprintf(row.source, sizeof row.source, "%s", r.source);
        ask(router, call, true, &t, &row);
        t.taken = t.taken || !r.falls_back; /* a name that must be kept: auto is not asked */
    }
    bool approximate = (flags & ATTN_ROUTE_APPROXIMATE) && !r.exact;
    for (uint32_t i = 0; i < n; i++) {
        attn_why row = {.size = sizeof row, .measured_us = candidates[i].measured_us};
        memcpy(row.op, candidates[i].id, sizeof row.op);
        memcpy(row.source, candidates[i].source, sizeof row.source);
        ask(router, call, approximate || !candidates[i].approximate, &t, &row);
    }
    free(candidates);
    *n_rows = t.n;
    return ATTN_OK;
}
