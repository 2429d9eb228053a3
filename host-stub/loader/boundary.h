/* boundary.h: what comes back from a plugin, checked before anybody believes it.
 *
 * A result that the contract does not allow becomes ATTN_INTERNAL and retires the plugin: nothing
 * of it is opened or called from then on, and its file says why.
 */
#ifndef ATTNPLUG_LOADER_BOUNDARY_H
#define ATTNPLUG_LOADER_BOUNDARY_H

#include "boundary_limits.h"
#include "registry.h"

/* The error that a plugin gets to write to: a copy, so that it cannot change the caller's. */
static inline attn_error boundary_error(attn_error *err)
{
    attn_error inner = {.size = sizeof inner};
    if (err && err->text && err->capacity) {
        err->text[0] = 0;
        inner.text = err->text;
        inner.capacity = err->capacity;
    }
    return inner;
}

/* What `function` of the plugin returned: a known code, with a terminated text where it failed.
 * ATTN_DEVICE marks the object dead. */
attn_status boundary_failed(plugin_file *file, const char *function, attn_status status,
                            const attn_error *inner, attn_error *err, _Atomic uint32_t *dead);

static inline attn_status boundary_result(plugin_file *file, const char *function,
                                          attn_status status, const attn_error *inner,
                                          attn_error *err, _Atomic uint32_t *dead)
{
    return status == ATTN_OK ? ATTN_OK : boundary_failed(file, function, status, inner, err, dead);
}

/* Retires the plugin for what `function` did; returns ATTN_INTERNAL with the text. */
__attribute__((format(printf, 4, 5))) attn_status
boundary_retire(plugin_file *file, const char *function, attn_error *err, const char *format, ...);

/* Whether objects of this plugin may still be called. */
attn_status boundary_refuse(plugin_file *file, const _Atomic uint32_t *dead, attn_error *err);

static inline attn_status boundary_enter(plugin_file *file, const _Atomic uint32_t *dead,
                                         attn_error *err)
{
    bool usable = !atomic_load_explicit(&file->retired, memory_order_relaxed) &&
                  !atomic_load_explicit(dead, memory_order_relaxed);
    return usable ? ATTN_OK : boundary_refuse(file, dead, err);
}

/* What both kinds check before create: arguments, and the device against the head. Fills in *host
 * where it is NULL. */
attn_status boundary_create(plugin_file *file, const attn_head *head, const attn_device *device,
                            const attn_param *params, uint32_t n_params, const attn_host **host,
                            attn_error *err);

#endif
