/* registry.c: opening, refreshing and closing a registry, and what it tells of its files. */
#include "registry.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

const char *registry_note(attn_registry *registry, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t n = strlen(text) + 1;
    note *added = malloc(sizeof *added + n);
    if (!added) {
        return "";
    }
    memcpy(added->text, text, n);
    pthread_mutex_lock(&registry->lock);
    added->next = registry->notes;
    registry->notes = added;
    pthread_mutex_unlock(&registry->lock);
    return added->text;
}

void registry_log(attn_registry *registry, int32_t level, const char *format, ...)
{
    char text[1024];
    if (!registry->log) {
        return;
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    registry->log(registry->log_ctx, level, text);
}

void plugin_retire(plugin_file *file, uint32_t verdict, const char *reason)
{
    attn_registry *registry = file->registry;
    const char *kept = registry_note(registry, "%s", reason);
    bool first = false;
    pthread_mutex_lock(&registry->lock);
    if (file->verdict == ATTN_VERDICT_OK) {
        file->verdict = verdict;
        file->reason = kept;
        atomic_store(&file->retired, verdict == ATTN_VERDICT_RETIRED);
        first = true;
    }
    pthread_mutex_unlock(&registry->lock);
    if (first) {
        atomic_fetch_add(&registry->generation, 1);
        registry_log(registry, 0, "%s: %s: %s", file->path, attn_verdict_name(verdict), reason);
    }
}

attn_status plugin_fail_retired(plugin_file *file, attn_error *err)
{
    pthread_mutex_lock(&file->registry->lock);
    const char *reason = file->reason;
    pthread_mutex_unlock(&file->registry->lock);
    return attn_fail(err, ATTN_INTERNAL, "%s was retired: %s", file->path, reason);
}

attn_status registry_host(attn_registry *registry, const attn_host **host, attn_error *err)
{
    attn_status status = ATTN_OK;
    pthread_mutex_lock(&registry->lock);
    if (!registry->pool) {
        status = attn_pool_open(0, &registry->pool, err);
    }
    *host = status == ATTN_OK ? attn_pool_host(registry->pool) : NULL;
    pthread_mutex_unlock(&registry->lock);
    return status;
}

/* The caller's options, as far as its struct goes. */
static attn_status read_options(const attn_registry_options *given, attn_registry_options *options,
                                attn_error *err)
{
    *options = (attn_registry_options){.size = sizeof *options};
    if (!given) {
        return ATTN_OK;
    }
    if (given->size < 8) {
        return attn_fail(err, ATTN_INVALID, "attn_registry_options: size is %u, expected %zu",
                         given->size, sizeof *options);
    }
    memcpy(options, given, given->size < sizeof *options ? given->size : sizeof *options);
    if (options->n_paths && !options->paths) {
        return attn_fail(err, ATTN_INVALID, "attn_registry_options: %u paths, but paths is NULL",
                         options->n_paths);
    }
    return ATTN_OK;
}

static attn_registry *registry_new(const attn_registry_options *options)
{
    attn_registry *registry = calloc(1, sizeof *registry);
    if (!registry) {
        return NULL;
    }
    const char *probe = getenv("ATTNPLUG_PROBE");
    registry->flags = options->flags;
    if (probe && strcmp(probe, "1") == 0) {
        registry->flags |= ATTN_REGISTRY_PROBE;
    }
    registry->log = options->log;
    registry->log_ctx = options->log_ctx;
    pthread_mutex_init(&registry->lock, NULL);
    pthread_mutex_init(&registry->scan_lock, NULL);
    pthread_cond_init(&registry->released, NULL);
    return registry;
}

attn_status attn_registry_open(const attn_registry_options *given, attn_registry **out,
                               attn_error *err)
{
    attn_registry_options options;
    attn_status status = read_options(given, &options, err);
    if (status != ATTN_OK) {
        return status;
    }
    attn_registry *registry = registry_new(&options);
    if (!registry) {
        return attn_fail(err, ATTN_NOMEM, "no memory for a registry");
    }
    status = search_order_make(&options, &registry->order, err);
    if (status == ATTN_OK) {
        for (size_t i = 0; i < registry->order.skipped.n; i++) {
            registry_log(registry, 1, "%s", registry->order.skipped.items[i]);
        }
        status = registry_scan(registry, err);
    }
    if (status != ATTN_OK) {
        attn_registry_close(registry);
        return status;
    }
    *out = registry;
    return ATTN_OK;
}

void attn_registry_close(attn_registry *registry)
{
    if (!registry) {
        return;
    }
    attn_pool_close(registry->pool);
    for (plugin_file *file = registry->records; file;) {
        plugin_file *next = file->next;
        free(file->path);
        free(file);
        file = next;
    }
    for (note *n = registry->notes; n;) {
        note *next = n->next;
        free(n);
        n = next;
    }
    free(registry->files.items);
    search_order_free(&registry->order);
    pthread_cond_destroy(&registry->released);
    pthread_mutex_destroy(&registry->scan_lock);
    pthread_mutex_destroy(&registry->lock);
    free(registry);
}

attn_status attn_registry_refresh(attn_registry *registry, attn_error *err)
{
    return registry_scan(registry, err);
}

uint64_t registry_generation(attn_registry *registry)
{
    return atomic_load_explicit(&registry->generation, memory_order_acquire);
}

uint32_t attn_registry_count(attn_registry *registry)
{
    pthread_mutex_lock(&registry->lock);
    uint32_t n = registry->files.n;
    pthread_mutex_unlock(&registry->lock);
    return n;
}

attn_status attn_registry_file(attn_registry *registry, uint32_t index, attn_file_info *out)
{
    attn_file_info info = {.size = sizeof info};
    attn_status status = ATTN_NOT_FOUND;
    if (out->size < 8) {
        return ATTN_INVALID;
    }
    pthread_mutex_lock(&registry->lock);
    if (index < registry->files.n) {
        const plugin_file *file = registry->files.items[index];
        info.verdict = file->verdict;
        info.path = file->path;
        info.reason = file->reason;
        info.op = file->has_op ? &file->op : NULL;
        info.processor = file->has_processor ? &file->processor : NULL;
        status = ATTN_OK;
    }
    pthread_mutex_unlock(&registry->lock);
    if (status == ATTN_OK) {
        info.size = out->size < sizeof info ? out->size : sizeof info;
        memcpy(out, &info, info.size);
    }
    return status;
}
