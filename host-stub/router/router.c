/* router.c: opening and closing a router. */
#include "router.h"

#include <stdlib.h>
#include <string.h>

static void read_variable(const char *name, char *value, size_t capacity)
{
    const char *text = getenv(name);
    (void)snprintf(value, capacity, "%s", text ? text : "");
}

static attn_status check_host(const attn_host *host, attn_error *err)
{
    return host->size >= sizeof *host && host->max_threads >= 1
               ? ATTN_OK
               : attn_fail(err, ATTN_INVALID,
                           "attn_host: size %u and %u threads, expected at least %zu and 1",
                           host->size, host->max_threads, sizeof *host);
}

attn_status attn_router_open(attn_registry *registry, const attn_device *device,
                             const attn_host *host, attn_router **out, attn_error *err)
{
    attn_status status = ATTN_OK;
    if (!registry || !device) {
        return attn_fail(err, ATTN_INVALID, "attn_router_open: no %s",
                         registry ? "device" : "registry");
    }
    if (!memchr(device->runtime, 0, sizeof device->runtime)) {
        return attn_fail(err, ATTN_INVALID, "device: its runtime's name has no end");
    }
    status = host ? check_host(host, err) : registry_host(registry, &host, err);
    if (status != ATTN_OK) {
        return status;
    }
    attn_router *router = calloc(1, sizeof *router);
    if (!router) {
        return attn_fail(err, ATTN_NOMEM, "no memory for a router");
    }
    router->registry = registry;
    router->device = *device;
    router->base = host;
    read_variable("ATTNPLUG_OP", router->op_wanted, sizeof router->op_wanted);
    read_variable("DIFFSYNTH_ATTENTION_IMPLEMENTATION", router->diffsynth_wanted,
                  sizeof router->diffsynth_wanted);
    pthread_mutex_init(&router->lock, NULL);
    interface_init(router);
    order_read(&router->order, registry);
    status = attend_cache_create(router, err);
    if (status != ATTN_OK) {
        (void)attn_router_close(router);
        return status;
    }
    *out = router;
    return ATTN_OK;
}

attn_status attn_router_close(attn_router *router)
{
    if (!router) {
        return ATTN_OK;
    }
    if (router->cache) {
        attend_cache_trim(router);
    }
    if (atomic_load(&router->plans)) {
        return ATTN_BUSY;
    }
    attend_cache_destroy(router);
    ops_close(router);
    order_free(&router->order);
    pthread_mutex_destroy(&router->lock);
    free(router);
    return ATTN_OK;
}

void attn_router_trim(attn_router *router)
{
    attend_cache_trim(router);
    ops_trim(router);
}

const attn_host *attn_router_host(attn_router *router)
{
    return &router->host;
}

attn_registry *attn_router_registry(attn_router *router)
{
    return router->registry;
}

attn_status attn_router_op(attn_router *router, const char *op, const attn_param *params,
                           uint32_t n_params, attn_host_op **opened, attn_error *err)
{
    char id[64];
    op_entry *entry = NULL;
    attn_status status = attn_op_id_in(router->registry, op, router->device.runtime, id, err);
    if (status == ATTN_OK) {
        status = ops_get(router, id, params, n_params, &entry, err);
    }
    if (status != ATTN_OK) {
        return status;
    }
    *opened = entry->op;
    if (atomic_exchange(&entry->lent, 1)) {
        ops_put(entry); /* the first loan keeps it open for all */
    }
    return ATTN_OK;
}
