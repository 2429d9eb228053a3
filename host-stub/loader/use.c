/* use.c: from an id to a file whose code is in this process. */
#include "registry.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_FOLLOWS = 8 }; /* how often a file may change between looking and opening */

static const attn_head *head_of(const plugin_file *file, plugin_kind kind)
{
    if (kind == KIND_OP) {
        return file->has_op ? &file->op : NULL;
    }
    return file->has_processor ? &file->processor : NULL;
}

/* Under the lock. */
static plugin_file *find_id(const attn_registry *registry, plugin_kind kind, const char *id)
{
    for (uint32_t i = 0; i < registry->files.n; i++) {
        plugin_file *file = registry->files.items[i];
        const attn_head *head = head_of(file, kind);
        bool serves = file->verdict == ATTN_VERDICT_OK || file->verdict == ATTN_VERDICT_RETIRED;
        if (head && serves && !file->withdrawn && strcmp(head->id, id) == 0) {
            return file;
        }
    }
    return NULL;
}

bool plugin_is_current(const plugin_file *file, plugin_kind kind)
{
    attn_registry *registry = file->registry;
    pthread_mutex_lock(&registry->lock);
    bool current = file->verdict == ATTN_VERDICT_OK &&
                   find_id(registry, kind, head_of(file, kind)->id) == file;
    pthread_mutex_unlock(&registry->lock);
    return current;
}

/* A file of the name that the id's plugin would have, which was refused. Under the lock. */
static const plugin_file *find_refused(const attn_registry *registry, const char *file_name)
{
    for (uint32_t i = 0; i < registry->files.n; i++) {
        const plugin_file *file = registry->files.items[i];
        const char *slash = strrchr(file->path, '/');
        if (slash && strcmp(slash + 1, file_name) == 0 && file->verdict != ATTN_VERDICT_OK &&
            file->verdict != ATTN_VERDICT_DUPLICATE) {
            return file;
        }
    }
    return NULL;
}

void registry_places(attn_registry *registry, char *text, size_t capacity)
{
    text[0] = 0;
    for (size_t i = 0; i < registry->order.n; i++) {
        text_append(text, capacity, i ? ", " : "");
        text_append(text, capacity, registry->order.places[i].path);
    }
    text_append(text, capacity, registry->order.n ? "" : "(no folder was searched)");
}

static attn_status fail_missing(attn_registry *registry, plugin_kind kind, const char *id,
                                attn_error *err)
{
    static const char own[] = "org.attnplug.";
    char file_name[96], places[1024];
    bool is_own = strncmp(id, own, sizeof own - 1) == 0;
    (void)snprintf(file_name, sizeof file_name, "%s.so", is_own ? id + sizeof own - 1 : id);
    registry_places(registry, places, sizeof places);
    pthread_mutex_lock(&registry->lock);
    const plugin_file *refused = find_refused(registry, file_name);
    const char *reason = refused ? refused->reason : "";
    const char *verdict = refused ? attn_verdict_name(refused->verdict) : "";
    pthread_mutex_unlock(&registry->lock);
    if (refused) {
        return attn_fail(err, ATTN_NOT_FOUND, "%s (%s) was refused: %s: %s", refused->path, id,
                         verdict, reason);
    }
    if (is_own) {
        return attn_fail(err, ATTN_NOT_FOUND, "%s (%s) is in none of: %s", file_name, id, places);
    }
    return attn_fail(err, ATTN_NOT_FOUND, "no %s has the id %s; looked in: %s",
                     kind == KIND_OP ? "op" : "processor", id, places);
}

/* Reads the copy, of which the record has the key, as what dlopen will follow; a file that may not
 * be opened is taken out of use. */
static attn_status judge_copy(plugin_file *file, const image_copy *copy, elf_heads *heads,
                              attn_error *err)
{
    elf_source source = {.fd = copy->fd, .size = copy->size};
    elf_read_all(&source, heads);
    if (heads->verdict != ATTN_VERDICT_OK) {
        plugin_retire(file, heads->verdict, heads->reason);
        return attn_fail(err, ATTN_INVALID, "%s: %s", file->path, heads->reason);
    }
    return ATTN_OK;
}

/* BUSY: the file is not the one that was listed any more. */
static attn_status load(plugin_file *file, attn_error *err)
{
    attn_registry *registry = file->registry;
    image_source source = {.path = file->path,
                           .in_place = (registry->flags & ATTN_REGISTRY_IN_PLACE) != 0,
                           .log = registry->log,
                           .log_ctx = registry->log_ctx};
    image_copy copy;
    elf_heads heads;
    const image *im = NULL;
    uint32_t verdict = ATTN_VERDICT_OK;
    source.fd = open(file->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (source.fd < 0) {
        return errno == ENOENT ? ATTN_BUSY
                               : attn_fail(err, ATTN_IO, "%s: %s", file->path, strerror(errno));
    }
    attn_status status = image_copy_make(&source, &copy, err);
    if (status == ATTN_OK && !file_key_equal(&copy.key, &file->key)) {
        status = ATTN_BUSY;
    }
    if (status == ATTN_OK) {
        status = judge_copy(file, &copy, &heads, err);
    }
    if (status == ATTN_OK) {
        ATTN_ERROR_ON(why, PATH_MAX + 1024);
        status = image_open(&source, &copy, &heads, &im, &verdict, &why);
        if (status != ATTN_OK) {
            attn_fail(err, status, "%s", why.text);
        }
        if (verdict != ATTN_VERDICT_OK) {
            plugin_retire(file, verdict, text_behind_path(why.text, file->path));
        }
    }
    if (copy.fd >= 0) {
        close(copy.fd);
    }
    close(source.fd);
    if (status == ATTN_OK) {
        atomic_store(&file->image, im);
    }
    return status;
}

/* Counts an object on the file that serves the id now. */
static attn_status find_and_count(attn_registry *registry, plugin_kind kind, const char *id,
                                  plugin_file **out, attn_error *err)
{
    pthread_mutex_lock(&registry->lock);
    plugin_file *file = find_id(registry, kind, id);
    if (file) {
        file->objects++;
    }
    pthread_mutex_unlock(&registry->lock);
    if (!file) {
        return fail_missing(registry, kind, id, err);
    }
    *out = file;
    return ATTN_OK;
}

attn_status plugin_acquire(attn_registry *registry, plugin_kind kind, const char *id,
                           plugin_file **out, attn_error *err)
{
    for (int i = 0; i < MAX_FOLLOWS; i++) {
        plugin_file *file = NULL;
        attn_status status = find_and_count(registry, kind, id, &file, err);
        if (status != ATTN_OK) {
            return status;
        }
        if (atomic_load(&file->retired)) {
            status = plugin_fail_retired(file, err);
        } else if (!atomic_load(&file->image)) {
            status = load(file, err);
        }
        if (status == ATTN_OK) {
            *out = file;
            return ATTN_OK;
        }
        plugin_release(file);
        if (status != ATTN_BUSY) {
            return status;
        }
        status = registry_scan(registry, err);
        if (status != ATTN_OK) {
            return status;
        }
    }
    return attn_fail(err, ATTN_BUSY, "%s: its file changes all the time", id);
}

void plugin_release(plugin_file *file)
{
    attn_registry *registry = file->registry;
    pthread_mutex_lock(&registry->lock);
    if (--file->objects == 0) {
        pthread_cond_broadcast(&registry->released);
    }
    pthread_mutex_unlock(&registry->lock);
}

static plugin_file *find_either(const attn_registry *registry, const char *id)
{
    plugin_file *file = find_id(registry, KIND_OP, id);
    return file ? file : find_id(registry, KIND_PROCESSOR, id);
}

attn_status attn_registry_unregister(attn_registry *registry, const char *id, uint32_t flags,
                                     attn_error *err)
{
    const char *reason = registry_note(registry, "unregistered by the host");
    attn_status status = ATTN_OK;
    pthread_mutex_lock(&registry->lock);
    plugin_file *file = id ? find_either(registry, id) : NULL;
    if (!file) {
        status = attn_fail(err, ATTN_NOT_FOUND, "no plugin has the id %s", id ? id : "(none)");
    } else if (file->objects && !(flags & ATTN_UNREGISTER_WAIT)) {
        status =
            attn_fail(err, ATTN_BUSY, "%s: %u objects of it are open", file->path, file->objects);
    } else {
        file->withdrawn = true;
        file->reason = reason;
        atomic_fetch_add(&registry->generation, 1);
        while (file->objects) {
            pthread_cond_wait(&registry->released, &registry->lock);
        }
    }
    pthread_mutex_unlock(&registry->lock);
    return status;
}
