/* text.h: texts of a fixed capacity, cut where they are full; texts about files. */
#ifndef ATTNPLUG_LOADER_TEXT_H
#define ATTNPLUG_LOADER_TEXT_H

#include <stddef.h>
#include <string.h>

static inline void text_append(char *text, size_t capacity, const char *more)
{
    size_t used = strlen(text), n = strlen(more);
    size_t space = capacity - used - 1;
    n = n < space ? n : space;
    memcpy(text + used, more, n);
    text[used + n] = 0;
}

/* What "PATH: TEXT" says of the path; all of it where it begins otherwise, as it does where it was
 * cut before the path's end. */
static inline const char *text_behind_path(const char *text, const char *path)
{
    size_t n = strlen(path);
    return strncmp(text, path, n) == 0 && strncmp(text + n, ": ", 2) == 0 ? text + n + 2 : text;
}

#endif
