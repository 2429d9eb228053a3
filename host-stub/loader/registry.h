/* registry.h: the registry's inside, for the loader's own files. */
#ifndef ATTNPLUG_LOADER_REGISTRY_H
#define ATTNPLUG_LOADER_REGISTRY_H

#include "elf_head.h"
#include "image.h"
#include "opened.h"
#include "search.h"
#include "trust.h"

#include "attn_host.h"
#include "error.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

typedef struct note {
    struct note *next;
    char text[];
} note;

/* One state of one file.  Records live until the registry closes, so that infos and open objects
 * may point into them; a file that changes gets a new record. */
typedef struct plugin_file {
    struct plugin_file *next; /* of all records */
    attn_registry *registry;
    char *path;
    bool has_key; /* it could be opened */
    file_key key;
    bool has_op, has_processor;
    attn_head op, processor;

    /* Under the registry's lock from here on. */
    uint32_t verdict;
    const char *reason; /* kept in the registry's notes */
    uint32_t objects;   /* open ops and processors */
    bool withdrawn;     /* unregistered: nothing opens it any more */

    const image *_Atomic image; /* NULL until something of it was opened */
    _Atomic uint32_t retired;   /* verdict is RETIRED */
} plugin_file;

typedef struct {
    plugin_file **items;
    uint32_t n, capacity;
} file_list;

struct attn_registry {
    uint32_t flags;
    void (*log)(void *ctx, int32_t level, const char *text);
    void *log_ctx;
    search_order order;

    pthread_mutex_t lock;      /* never held while plugin code runs */
    pthread_cond_t released;   /* some file's `objects` fell to 0 */
    pthread_mutex_t scan_lock; /* one scan at a time */
    file_list files;           /* in search order */
    plugin_file *records;
    note *notes;
    attn_pool *pool; /* made when first wanted */
    _Atomic uint64_t generation;
};

/* registry.c ---------------------------------------------------------------------------------- */

/* A text that lives as long as the registry; "" where there is no memory. Takes the lock. */
__attribute__((format(printf, 2, 3))) const char *registry_note(attn_registry *registry,
                                                                const char *format, ...);
/* Takes the file out of use for the reason; first one wins. */
void plugin_retire(plugin_file *file, uint32_t verdict, const char *reason);
/* "PATH was retired: REASON", as ATTN_INTERNAL. */
attn_status plugin_fail_retired(plugin_file *file, attn_error *err);

/* scan.c -------------------------------------------------------------------------------------- */

/* Looks at every place of the search order and makes the new list; records that still hold are
 * taken over from the old one. */
attn_status registry_scan(attn_registry *registry, attn_error *err);

/* use.c --------------------------------------------------------------------------------------- */

typedef enum { KIND_OP, KIND_PROCESSOR } plugin_kind;

/* The file that serves an id, with its code in this process and one more object counted. */
attn_status plugin_acquire(attn_registry *registry, plugin_kind kind, const char *id,
                           plugin_file **file, attn_error *err);
void plugin_release(plugin_file *file);
/* Whether the current list would still serve the id from this file. */
bool plugin_is_current(const plugin_file *file, plugin_kind kind);

#endif
