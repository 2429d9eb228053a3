#include "string_table.h"

#include <stdlib.h>
#include <string.h>

/* FNV-1a, 64 bits. */
static uint64_t text_hash(const char *text, size_t bytes)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < bytes; i++) {
        hash = (hash ^ (uint8_t)text[i]) * UINT64_C(1099511628211);
    }
    return hash;
}

/* The slot that holds `text`, or the free one where it belongs. The table is never full. */
static uint32_t slot_find(const string_table *table, const char *text, size_t bytes)
{
    uint32_t mask = table->slot_count - 1;
    uint32_t slot = (uint32_t)text_hash(text, bytes) & mask;
    while (table->slots[slot]) {
        const string_entry *entry = &table->entries[table->slots[slot] - 1];
        if (entry->bytes == bytes && memcmp(entry->text, text, bytes) == 0) {
            break;
        }
        slot = (slot + 1) & mask;
    }
    return slot;
}

static int table_grow(string_table *table)
{
    uint32_t capacity = table->capacity ? table->capacity * 2 : 256;
    string_entry *entries = realloc(table->entries, capacity * sizeof *entries);
    if (!entries) {
        return -1;
    }
    table->entries = entries;
    uint32_t *slots = calloc((size_t)capacity * 2, sizeof *slots);
    if (!slots) {
        return -1;
    }
    free(table->slots);
    table->slots = slots;
    table->slot_count = capacity * 2;
    table->capacity = capacity;
    for (uint32_t i = 0; i < table->count; i++) {
        slots[slot_find(table, entries[i].text, entries[i].bytes)] = i + 1;
    }
    return 0;
}

int64_t string_find(const string_table *table, const char *text, size_t bytes)
{
    return table->slot_count ? (int64_t)table->slots[slot_find(table, text, bytes)] - 1
                             : STRING_ABSENT;
}

int64_t string_add(string_table *table, const char *text, size_t bytes)
{
    int64_t found = string_find(table, text, bytes);
    if (found != STRING_ABSENT) {
        return found;
    }
    if (table->count == table->capacity && table_grow(table)) {
        return STRING_ABSENT;
    }
    char *copy = malloc(bytes + 1);
    if (!copy) {
        return STRING_ABSENT;
    }
    memcpy(copy, text, bytes);
    copy[bytes] = 0;
    uint32_t slot = slot_find(table, text, bytes);
    table->entries[table->count] = (string_entry){copy, bytes};
    table->slots[slot] = ++table->count;
    return (int64_t)table->count - 1;
}

void string_table_free(string_table *table)
{
    for (uint32_t i = 0; i < table->count; i++) {
        free((char *)table->entries[i].text);
    }
    free(table->entries);
    free(table->slots);
    *table = (string_table){0};
}
