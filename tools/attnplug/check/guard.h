/* guard.h: buffers that end where an unreadable page begins, and element access to tensors in them.
 */
#ifndef ATTNPLUG_CHECK_GUARD_H
#define ATTNPLUG_CHECK_GUARD_H

#include "attn_abi.h"

#include <stddef.h>

struct guard {
    unsigned char *base; /* of the mapping */
    size_t mapped;
    unsigned char *data; /* what the caller asked for */
    size_t bytes;
};

/* `bytes` of memory with an unreadable page behind it, or before it (`before`), as close as `align`
 * (a power of two) allows.  What lies between is filled with a pattern that guard_intact looks at.
 * 0, or -1 for no memory. */
int guard_open(struct guard *g, size_t bytes, size_t align, int before);
void guard_close(struct guard *g);
int guard_intact(const struct guard *g);
void guard_poison(struct guard *g, unsigned char byte);
/* A sum over what it holds, to see whether that changed. */
uint64_t guard_bits(const struct guard *g);

/* Element (i0, i1, i2, i3) of a tensor of any type, as double; entries past the rank are 0. */
double tensor_get(const attn_tensor *t, const int64_t index[4]);
void tensor_set(const attn_tensor *t, const int64_t index[4], double value);
/* The nearest value that the type has. */
double tensor_round(const attn_tensor *t, double value);
size_t tensor_element(const attn_tensor *t); /* bytes */

#endif
