/* json_file.h: a JSON object from a file. */
#ifndef ATTNPLUG_MODEL_JSON_FILE_H
#define ATTNPLUG_MODEL_JSON_FILE_H

#include "error.h"

#include <jansson.h>

/* ATTN_NOT_FOUND where there is no such file, ATTN_IO where it cannot be read, ATTN_INVALID, with
 * the line, where it holds anything but one JSON object without duplicate keys.  The caller's to
 * json_decref. */
attn_status json_file_read(const char *path, json_t **out, attn_error *err);

#endif
