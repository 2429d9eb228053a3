/* error.h: how a plugin says why it failed. */
#ifndef ATTN_COMMON_ERROR_H
#define ATTN_COMMON_ERROR_H

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

#endif
