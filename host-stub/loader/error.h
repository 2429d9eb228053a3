/* error.h: how a function of the host says why it failed.  Room: loader, the lowest. */
#ifndef ATTNPLUG_LOADER_ERROR_H
#define ATTNPLUG_LOADER_ERROR_H

#include "attn_abi.h"

#include <stdarg.h>
#include <stdio.h>

/* Writes the text, cut to the caller's capacity, and returns status, so that one line both says and
 * returns it.  err may be NULL. */
__attribute__((format(printf, 3, 4))) static inline attn_status
attn_fail(attn_error *err, attn_status status, const char *format, ...)
{
    if (err && err->text && err->capacity) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(err->text, err->capacity, format, args);
        va_end(args);
    }
    return status;
}

/* A text buffer and the attn_error on it, for callers that own one:
 * ATTN_ERROR_ON(err, 512); f(..., &err); puts(err.text); */
#define ATTN_ERROR_ON(name, bytes)                                                                 \
    char name##_text[bytes] = "";                                                                  \
    attn_error name = {sizeof(attn_error), (bytes), name##_text, 0}

#endif
