/* probe_try.h: one life of a plugin on a CPU, with a tiny call. */
#ifndef ATTNPLUG_LOADER_PROBE_TRY_H
#define ATTNPLUG_LOADER_PROBE_TRY_H

#include "image.h"

/* False: it returned what the contract does not allow, or numbers that are wrong. A plugin that
 * refuses (no such device, needs a host that this is not) is good. */
bool probe_try(const image *im, const elf_heads *heads, attn_error *err);

#endif
