/* tune.c: keeps timings as the order in which auto asks, beside what was measured before. */
#include "bench.h"

#include "error.h"

#include <stdlib.h>
#include <string.h>

static bool same_place(const attn_order_row *a, const attn_order_row *b)
{
    return strcmp(a->op, b->op) == 0 && strcmp(a->runtime, b->runtime) == 0 &&
           strcmp(a->dtype, b->dtype) == 0 && memcmp(a->shape, b->shape, sizeof a->shape) == 0;
}

/* The row replaces an older one of the same op, device, type and shape. */
static void put(attn_order_row *rows, uint32_t *n, const attn_order_row *row)
{
    uint32_t at = 0;
    while (at < *n && !same_place(&rows[at], row)) {
        at++;
    }
    rows[at] = *row;
    *n += at == *n;
}

static attn_order_row order_row(const struct bench *b, const char *dtype, const struct bench_row *r)
{
    attn_order_row row = {.size = sizeof row,
                          .shape = {r->shape.b, r->shape.h, r->shape.nq, r->shape.nk, r->shape.d},
                          .us = r->median_ms * 1e3};
    (void)snprintf(row.runtime, sizeof row.runtime, "%s", b->place->device.runtime);
    (void)snprintf(row.dtype, sizeof row.dtype, "%s", dtype);
    (void)snprintf(row.op, sizeof row.op, "%s", r->op);
    (void)snprintf(row.version, sizeof row.version, "%s", r->version);
    return row;
}

attn_status bench_tune(const struct bench *b, const char *dtype, const struct bench_row *measured,
                       int n_measured, attn_error *err)
{
    uint32_t n = 0, kept = 0;
    attn_status status = attn_order_load(NULL, NULL, 0, &n, err);
    attn_order_row *rows =
        status == ATTN_OK ? calloc((size_t)n + (size_t)n_measured + 1, sizeof *rows) : NULL;
    if (status == ATTN_OK && !rows) {
        status = attn_fail(err, ATTN_NOMEM, "no memory for the order of %u timings", n);
    }
    if (status == ATTN_OK) {
        status = attn_order_load(NULL, rows, n, &kept, err);
    }
    kept = kept < n ? kept : n;
    for (int i = 0; i < n_measured && status == ATTN_OK; i++) {
        if (!measured[i].refused[0]) {
            attn_order_row row = order_row(b, dtype, &measured[i]);
            put(rows, &kept, &row);
        }
    }
    if (status == ATTN_OK) {
        status = attn_order_save(NULL, rows, kept, err);
    }
    free(rows);
    return status;
}
