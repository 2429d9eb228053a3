/* ops.c: the ops that a router has opened, by id and parameters. */
#include "router.h"
#include "staging.h"

#include <stdlib.h>
#include <string.h>

static bool text_equal(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool params_equal(const attn_param *a, uint32_t n_a, const attn_param *b, uint32_t n_b)
{
    if (n_a != n_b) {
        return false;
    }
    for (uint32_t i = 0; i < n_a; i++) {
        if (!text_equal(a[i].name, b[i].name) || a[i].kind != b[i].kind || a[i].i != b[i].i ||
            a[i].f != b[i].f || !text_equal(a[i].text, b[i].text) || a[i].tensor != b[i].tensor) {
            return false;
        }
    }
    return true;
}

static void params_free(attn_param *params, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        free((char *)(uintptr_t)params[i].name);
        free((char *)(uintptr_t)params[i].text);
    }
    free(params);
}

static attn_param *params_copy(const attn_param *params, uint32_t n)
{
    attn_param *copy = calloc(n ? n : 1, sizeof *copy);
    for (uint32_t i = 0; copy && i < n; i++) {
        copy[i] = params[i];
        copy[i].name = params[i].name ? strdup(params[i].name) : NULL;
        copy[i].text = params[i].text ? strdup(params[i].text) : NULL;
        if ((params[i].name && !copy[i].name) || (params[i].text && !copy[i].text)) {
            params_free(copy, i + 1);
            return NULL;
        }
    }
    return copy;
}

/* One more user, unless it is closed. */
static bool entry_take(op_entry *entry)
{
    uint32_t refs = atomic_load(&entry->refs);
    while (refs) {
        if (atomic_compare_exchange_weak(&entry->refs, &refs, refs + 1)) {
            return true;
        }
    }
    return false;
}

void ops_put(op_entry *entry)
{
    if (atomic_fetch_sub(&entry->refs, 1) == 1) {
        (void)attn_host_op_close(entry->op);
        entry->op = NULL;
    }
}

/* Whether the registry still serves this code; a stale entry loses the user that "current" was. */
static bool entry_is_current(const attn_router *router, op_entry *entry)
{
    uint64_t now = registry_generation(router->registry);
    if (atomic_load(&entry->stale)) {
        return false;
    }
    if (atomic_load_explicit(&entry->generation, memory_order_relaxed) == now) {
        return true;
    }
    if (opened_op_is_current(entry->op)) {
        atomic_store_explicit(&entry->generation, now, memory_order_relaxed);
        return true;
    }
    if (!atomic_exchange(&entry->stale, 1)) {
        ops_put(entry);
    }
    return false;
}

/* settle: also judge entries that were opened before the registry last changed, which may close
 * one; not under a lock. */
static op_entry *ops_find(attn_router *router, const char *id, const attn_param *params,
                          uint32_t n_params, bool settle)
{
    uint64_t now = registry_generation(router->registry);
    for (op_entry *e = atomic_load_explicit(&router->entries, memory_order_acquire); e;
         e = e->next) {
        if (strcmp(e->id, id) != 0 || !params_equal(e->params, e->n_params, params, n_params) ||
            (!settle && (atomic_load(&e->stale) || atomic_load(&e->generation) != now)) ||
            !entry_take(e)) {
            continue;
        }
        if (!settle || entry_is_current(router, e)) {
            return e;
        }
        ops_put(e);
    }
    return NULL;
}

static attn_status entry_open(attn_router *router, const char *id, const attn_param *params,
                              uint32_t n_params, op_entry **out, attn_error *err)
{
    op_entry *entry = calloc(1, sizeof *entry);
    if (!entry) {
        return attn_fail(err, ATTN_NOMEM, "no memory to open %s", id);
    }
    (void)snprintf(entry->id, sizeof entry->id, "%s", id);
    entry->n_params = n_params;
    entry->params = params_copy(params, n_params);
    atomic_store(&entry->generation, registry_generation(router->registry));
    atomic_store(&entry->refs, 2); /* current, and the caller's */
    entry->device = staging_device(router, id);
    attn_status status = entry->params
                             ? attn_host_op_open(router->registry, id, &entry->device,
                                                 &router->host, params, n_params, &entry->op, err)
                             : attn_fail(err, ATTN_NOMEM, "no memory to open %s", id);
    if (status != ATTN_OK) {
        params_free(entry->params, entry->params ? n_params : 0);
        free(entry);
        return status;
    }
    *out = entry;
    return ATTN_OK;
}

attn_status ops_get(attn_router *router, const char *id, const attn_param *params,
                    uint32_t n_params, op_entry **out, attn_error *err)
{
    *out = ops_find(router, id, params, n_params, true);
    if (*out) {
        return ATTN_OK;
    }
    /* Opened without a lock, since that runs plugin code; of two threads the later one yields. */
    op_entry *entry = NULL;
    attn_status status = entry_open(router, id, params, n_params, &entry, err);
    if (status != ATTN_OK) {
        return status;
    }
    pthread_mutex_lock(&router->lock);
    op_entry *other = ops_find(router, id, params, n_params, false);
    if (!other) {
        entry->next = atomic_load(&router->entries);
        atomic_store_explicit(&router->entries, entry, memory_order_release);
    }
    pthread_mutex_unlock(&router->lock);
    *out = other ? other : entry;
    if (other) {
        (void)attn_host_op_close(entry->op);
        params_free(entry->params, entry->n_params);
        free(entry);
    }
    return ATTN_OK;
}

void ops_trim(attn_router *router)
{
    for (op_entry *e = atomic_load(&router->entries); e; e = e->next) {
        if (entry_take(e)) {
            (void)entry_is_current(router, e);
            ops_put(e);
        }
    }
}

void ops_close(attn_router *router)
{
    for (op_entry *e = atomic_load(&router->entries); e;) {
        op_entry *next = e->next;
        if (atomic_load(&e->refs)) {
            (void)attn_host_op_close(e->op);
        }
        params_free(e->params, e->n_params);
        free(e);
        e = next;
    }
    atomic_store(&router->entries, NULL);
}
