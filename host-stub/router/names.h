/* names.h: what the router knows of names beyond attn_router.h. */
#ifndef ATTNPLUG_ROUTER_NAMES_H
#define ATTNPLUG_ROUTER_NAMES_H

#include "attn_router.h"

#include <stdbool.h>
#include <stddef.h>

/* Ids that `auto` asks on a device, fastest first as far as is known without measuring; ends with
 * NULL.  Plugins of others stand before the last, which is the plain reference. */
const char *const *names_built_in_order(const char *runtime);

/* An op that works through other ops is never the fastest. */
bool names_only_when_named(const char *id);

/* "auto, math, ...": every name of an op, for texts. */
void names_list_ops(char *text, size_t capacity);

#endif
