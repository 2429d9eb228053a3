/* file_bytes.h: a whole file in memory. */
#ifndef ATTNPLUG_MODEL_FILE_BYTES_H
#define ATTNPLUG_MODEL_FILE_BYTES_H

#include "error.h"

#include <stddef.h>
#include <stdint.h>

/* The bytes of a regular file of at most `most`, and a NUL after them that *n does not count; the
 * caller's to free.  ATTN_NOT_FOUND, ATTN_IO, ATTN_NOMEM; ATTN_INVALID where it is no such file:
 * texts end with ", expected <expected>". */
attn_status file_bytes_read(const char *path, uint64_t most, const char *expected, uint8_t **bytes,
                            size_t *n, attn_error *err);

#endif
