/* text.h: texts of a fixed capacity, cut where they are full. */
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

#endif
