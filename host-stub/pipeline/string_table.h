/* Texts numbered in the order that they came, each once. */
#ifndef ATTNPLUG_PIPELINE_STRING_TABLE_H
#define ATTNPLUG_PIPELINE_STRING_TABLE_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *text; /* NUL-terminated copy of the table's */
    size_t bytes;     /* without the NUL */
} string_entry;

typedef struct {
    string_entry *entries;
    uint32_t count, capacity;
    uint32_t *slots; /* entry number + 1; 0 is free */
    uint32_t slot_count;
} string_table;

enum { STRING_ABSENT = -1 };

/* The number of `text`, or STRING_ABSENT. */
int64_t string_find(const string_table *table, const char *text, size_t bytes);

/* The number of `text`, added if it is new; STRING_ABSENT when memory ran out. A zeroed table is an
 * empty one. */
int64_t string_add(string_table *table, const char *text, size_t bytes);

void string_table_free(string_table *table);

#endif
