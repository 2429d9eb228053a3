/* Pictures as PNG files, with how they were made in a text chunk. */
#ifndef ATTNPLUG_PIPELINE_PICTURE_H
#define ATTNPLUG_PIPELINE_PICTURE_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

/* Writes `pixels` [height, width, 3], 8 bits RGB, to `path`: whole or not at all. `parameters` may
 * be NULL; else UTF-8 text for a chunk with the keyword "parameters", where other programs look for
 * a prompt: tEXt while it is ASCII, iTXt else. ATTN_INVALID and, where the system does not take the
 * bytes, ATTN_IO name the path and the reason. */
attn_status picture_write_png(const char *path, const uint8_t *pixels, size_t height, size_t width,
                              const char *parameters, attn_error *err);

#endif
