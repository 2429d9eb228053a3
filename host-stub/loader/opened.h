/* opened.h: what the router asks of the loader beyond attn_host.h. */
#ifndef ATTNPLUG_LOADER_OPENED_H
#define ATTNPLUG_LOADER_OPENED_H

#include "attn_host.h"

#include <stdbool.h>
#include <stddef.h>

/* Whether the registry would open the same code for the op's id today. */
bool opened_op_is_current(const attn_host_op *op);

/* Grows whenever what the registry serves may have changed. */
uint64_t registry_generation(attn_registry *registry);

/* The registry's own pool. */
attn_status registry_host(attn_registry *registry, const attn_host **host, attn_error *err);

/* The folders and files that were searched, in order: "A, B". */
void registry_places(attn_registry *registry, char *text, size_t capacity);

__attribute__((format(printf, 3, 4))) void registry_log(attn_registry *registry, int32_t level,
                                                        const char *format, ...);

#endif
