/* search.h: the folders that plugins are looked for in, and the files that lie there. */
#ifndef ATTNPLUG_LOADER_SEARCH_H
#define ATTNPLUG_LOADER_SEARCH_H

#include "attn_host.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    char **items;
    size_t n;
} text_list;

void text_list_free(text_list *list);
/* Takes a copy; false: no memory. */
bool text_list_add(text_list *list, const char *text);

typedef struct {
    char *path;   /* absolute, as found; real where the caller named it */
    bool is_file; /* a single file that the caller named */
} search_place;

typedef struct {
    search_place *places;
    size_t n;
    text_list skipped; /* one line for each entry of ATTNPLUG_PATH that nothing comes of */
} search_order;

/* Given paths; ATTNPLUG_PATH; the user's folder; the installed one beside the library.  A process
 * with raised privileges (AT_SECURE) asks neither the environment nor the user. */
attn_status search_order_make(const attn_registry_options *options, search_order *order,
                              attn_error *err);
void search_order_free(search_order *order);

/* Names of the plugin files of a folder, sorted by bytes: "<name>.so", not hidden, not recursive.
 * A folder that is not there is empty. */
attn_status search_folder(const char *folder, text_list *names, attn_error *err);

#endif
