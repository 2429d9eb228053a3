/* scan.c: looks at the files of every folder in order and gives each a verdict. */
#include "image_beside.h"
#include "probe.h"
#include "registry.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    attn_registry *registry;
    trust trust;
    file_list files; /* the list that is being made */
    attn_error *err;
} scan;

static bool list_add(file_list *list, plugin_file *file)
{
    if (list->n == list->capacity) {
        uint32_t capacity = list->capacity ? list->capacity * 2 : 16;
        plugin_file **items = realloc(list->items, capacity * sizeof *items);
        if (!items) {
            return false;
        }
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = file;
    return true;
}

/* What was found of one file, before it is known whether a record says the same already. */
typedef struct {
    const char *path;
    bool has_key;
    file_key key;
    elf_heads heads;
    uint32_t verdict;
    char reason[TRUST_REASON];
} finding;

__attribute__((format(printf, 3, 4))) static void judge(finding *f, uint32_t verdict,
                                                        const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(f->reason, sizeof f->reason, format, args);
    va_end(args);
    f->verdict = verdict;
}

static bool record_is_of(const plugin_file *file, const finding *f)
{
    return file->has_key == f->has_key && strcmp(file->path, f->path) == 0 &&
           (!f->has_key || file_key_equal(&file->key, &f->key));
}

/* The record of the current list for the same state of the same file, if its verdict holds without
 * looking again: what was good, or was retired for what it did. */
static plugin_file *record_good(const scan *s, const finding *f)
{
    const file_list *old = &s->registry->files;
    for (uint32_t i = 0; i < old->n; i++) {
        plugin_file *file = old->items[i];
        if ((file->verdict == ATTN_VERDICT_OK || file->verdict == ATTN_VERDICT_RETIRED) &&
            record_is_of(file, f)) {
            return file;
        }
    }
    return NULL;
}

static plugin_file *record_same(const scan *s, const finding *f)
{
    const file_list *old = &s->registry->files;
    for (uint32_t i = 0; i < old->n; i++) {
        plugin_file *file = old->items[i];
        if (file->verdict == f->verdict && record_is_of(file, f) &&
            strcmp(file->reason, f->reason) == 0) {
            return file;
        }
    }
    return NULL;
}

static plugin_file *record_new(attn_registry *registry, const finding *f)
{
    plugin_file *file = calloc(1, sizeof *file);
    char *path = strdup(f->path);
    if (!file || !path) {
        free(file);
        free(path);
        return NULL;
    }
    file->registry = registry;
    file->path = path;
    file->has_key = f->has_key;
    file->key = f->key;
    file->has_op = f->heads.has_op;
    file->has_processor = f->heads.has_processor;
    file->op = f->heads.op;
    file->processor = f->heads.processor;
    file->verdict = f->verdict;
    atomic_init(&file->retired, f->verdict == ATTN_VERDICT_RETIRED);
    file->reason = f->reason[0] ? registry_note(registry, "%s", f->reason) : "";
    pthread_mutex_lock(&registry->lock);
    file->next = registry->records;
    registry->records = file;
    pthread_mutex_unlock(&registry->lock);
    return file;
}

/* Records are kept for good, so that nothing is said twice. */
static plugin_file *record_of(scan *s, const finding *f)
{
    pthread_mutex_lock(&s->registry->lock);
    plugin_file *file = record_same(s, f);
    pthread_mutex_unlock(&s->registry->lock);
    return file ? file : record_new(s->registry, f);
}

static const char *words_of_open(int error)
{
    return error == ENOENT  ? "no such file, or a link to nowhere"
           : error == ELOOP ? "a link that leads to itself"
                            : strerror(error);
}

/* Opens a regular file; anything else is never opened, since that alone may block or act. */
static int open_regular(finding *f, struct stat *st)
{
    if (stat(f->path, st) != 0) {
        judge(f, ATTN_VERDICT_BAD_FILE, "%s", words_of_open(errno));
        return -1;
    }
    if (!S_ISREG(st->st_mode)) {
        judge(f, ATTN_VERDICT_NOT_REGULAR, "%s, expected a regular file",
              S_ISDIR(st->st_mode)    ? "a folder"
              : S_ISFIFO(st->st_mode) ? "a FIFO"
                                      : "a device or socket");
        return -1;
    }
    int fd = open(f->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        judge(f, ATTN_VERDICT_BAD_FILE, "%s", words_of_open(errno));
    } else if (fstat(fd, st) != 0 || !S_ISREG(st->st_mode)) {
        judge(f, ATTN_VERDICT_NOT_REGULAR, "not a regular file any more");
        close(fd);
        fd = -1;
    }
    return fd;
}

/* The folder in which the file was found (whose links count), and the one in which it lies. */
static bool trust_path(scan *s, const char *path, const struct stat *st, char reason[TRUST_REASON])
{
    char folder[PATH_MAX], real[PATH_MAX];
    struct stat link;
    if (!trust_file(&s->trust, st, reason)) {
        return false;
    }
    if (s->trust.all) {
        return true;
    }
    (void)snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash || lstat(path, &link) != 0) {
        (void)snprintf(reason, TRUST_REASON, "its folder cannot be told");
        return false;
    }
    slash[slash == folder] = 0;
    if (!realpath(folder, real)) {
        (void)snprintf(reason, TRUST_REASON, "where its folder lies cannot be told: %s",
                       strerror(errno));
        return false;
    }
    if (!trust_folder(&s->trust, real, reason)) {
        return false;
    }
    if (!S_ISLNK(link.st_mode)) {
        return true;
    }
    if (!realpath(path, real)) {
        (void)snprintf(reason, TRUST_REASON, "where it lies cannot be told: %s", strerror(errno));
        return false;
    }
    slash = strrchr(real, '/');
    slash[slash == real] = 0;
    return trust_folder(&s->trust, real, reason);
}

/* A folder that may not be there yet: then by who may make it. */
static bool trust_entry(scan *s, char entry[PATH_MAX], char reason[TRUST_REASON])
{
    char real[PATH_MAX];
    while (!realpath(entry, real)) {
        char *slash = strrchr(entry, '/');
        if (!slash) {
            return true; /* of the current folder: check_demands says so */
        }
        slash[slash == entry] = 0;
    }
    return trust_folder(&s->trust, real, reason);
}

/* Folders that the run path leads through must be as trusted as the plugin's own. */
static bool trust_run_path(scan *s, finding *f)
{
    char origin[PATH_MAX], entry[PATH_MAX], reason[TRUST_REASON];
    if (!f->heads.run_path[0] || !realpath(f->path, origin)) {
        return true;
    }
    char *slash = strrchr(origin, '/');
    slash[slash == origin] = 0;
    for (const char *at = f->heads.run_path; at;) {
        const char *here = at;
        if (!run_path_entry(here, origin, entry, sizeof entry, &at)) {
            (void)snprintf(entry, sizeof entry, "%.*s", (int)strcspn(here, ":"), here);
        }
        if (!trust_entry(s, entry, reason)) {
            judge(f, ATTN_VERDICT_UNTRUSTED, "its run path: %.400s", reason);
            return false;
        }
    }
    return true;
}

/* What a file asks of the process that loads it. */
static void check_demands(scan *s, finding *f)
{
    if (s->trust.all || !trust_run_path(s, f)) {
        return;
    }
    if (f->heads.executable_stack) {
        judge(f, ATTN_VERDICT_UNTRUSTED, "asks for an executable stack");
    } else if (f->heads.text_relocations) {
        judge(f, ATTN_VERDICT_UNTRUSTED, "wants its code written to (text relocations)");
    } else if (f->heads.relative_run_path) {
        judge(f, ATTN_VERDICT_UNTRUSTED, "its run path \"%.300s\" depends on the current folder",
              f->heads.run_path);
    }
}

/* Opens the file in a child process, unless that was done before. */
static void probe(const scan *s, finding *f, int fd)
{
    ATTN_ERROR_ON(err, PATH_MAX + 512);
    probe_result result;
    image_copy copy;
    image_source source = {.path = f->path, .fd = fd};
    if (!(s->registry->flags & ATTN_REGISTRY_PROBE)) {
        return;
    }
    if (!probe_recall(&f->key, &result)) {
        if (image_copy_make(&source, &copy, &err) != ATTN_OK) {
            judge(f, ATTN_VERDICT_BAD_FILE, "%s", text_behind_path(err.text, f->path));
            return;
        }
        elf_heads heads;
        elf_read_all(&(elf_source){.fd = copy.fd, .size = copy.size}, &heads);
        if (heads.verdict != ATTN_VERDICT_OK) {
            result = (probe_result){.verdict = heads.verdict};
            memcpy(result.reason, heads.reason, sizeof result.reason);
        } else {
            probe_cached(f->path, &copy, &result);
        }
        close(copy.fd);
    }
    if (result.verdict != ATTN_VERDICT_OK) {
        judge(f, result.verdict, "%s", result.reason);
    }
}

static void read_heads(scan *s, finding *f, int fd, const struct stat *st)
{
    elf_source source = {.fd = fd, .size = (uint64_t)st->st_size};
    elf_read_heads(&source, &f->heads);
    if (f->heads.verdict != ATTN_VERDICT_OK) {
        judge(f, f->heads.verdict, "%s", f->heads.reason);
        return;
    }
    check_demands(s, f);
    if (f->verdict == ATTN_VERDICT_OK) {
        probe(s, f, fd);
    }
}

/* One file: its record, new or kept. */
static attn_status scan_file(scan *s, const char *path)
{
    struct stat st;
    finding f = {.path = path};
    plugin_file *file = NULL;
    int fd = open_regular(&f, &st);
    if (fd >= 0) {
        f.key = file_key_of(&st);
        f.has_key = true;
        if (!trust_path(s, path, &st, f.reason)) {
            f.verdict = ATTN_VERDICT_UNTRUSTED;
        } else {
            pthread_mutex_lock(&s->registry->lock);
            file = record_good(s, &f);
            pthread_mutex_unlock(&s->registry->lock);
            if (!file) {
                read_heads(s, &f, fd, &st);
            }
        }
        close(fd);
    }
    if (!file) {
        file = record_of(s, &f);
    }
    return file && list_add(&s->files, file)
               ? ATTN_OK
               : attn_fail(s->err, ATTN_NOMEM, "no memory for %s", path);
}

static attn_status scan_folder(scan *s, const char *folder)
{
    text_list names;
    char path[PATH_MAX];
    ATTN_ERROR_ON(why, 512);
    attn_status status = search_folder(folder, &names, &why);
    if (status == ATTN_IO) {
        registry_log(s->registry, 1, "%s", why.text);
        status = ATTN_OK;
    } else if (status != ATTN_OK) {
        attn_fail(s->err, status, "%s", why.text);
    }
    for (size_t i = 0; i < names.n && status == ATTN_OK; i++) {
        if (snprintf(path, sizeof path, "%s/%s", folder, names.items[i]) < (int)sizeof path) {
            status = scan_file(s, path);
        }
    }
    text_list_free(&names);
    return status;
}

/* What the later file has that the earlier one serves; NULL: nothing.  Under the lock, since a file
 * that is in use may be retired meanwhile. */
static const char *duplicate_of(const plugin_file *file, const plugin_file *earlier)
{
    if (file->verdict != ATTN_VERDICT_OK) {
        return NULL;
    }
    if (earlier->verdict != ATTN_VERDICT_OK && earlier->verdict != ATTN_VERDICT_RETIRED) {
        return NULL;
    }
    if (file->key.device == earlier->key.device && file->key.inode == earlier->key.inode) {
        return "the same file";
    }
    if (file->has_op && earlier->has_op && strcmp(file->op.id, earlier->op.id) == 0) {
        return file->op.id;
    }
    if (file->has_processor && earlier->has_processor &&
        strcmp(file->processor.id, earlier->processor.id) == 0) {
        return file->processor.id;
    }
    return NULL;
}

/* A kept record may be in use: it is left alone, and another one says that it is a duplicate now.
 */
static plugin_file *record_duplicate(scan *s, const plugin_file *file, const plugin_file *earlier,
                                     const char *what)
{
    finding f = {.path = file->path, .has_key = file->has_key, .key = file->key};
    f.heads.has_op = file->has_op;
    f.heads.has_processor = file->has_processor;
    f.heads.op = file->op;
    f.heads.processor = file->processor;
    judge(&f, ATTN_VERDICT_DUPLICATE, "%s was found first in %s", what, earlier->path);
    return record_of(s, &f);
}

/* The first of the files before number `i` that has what it has. */
static const plugin_file *earlier_of(const scan *s, uint32_t i, const char **what)
{
    const plugin_file *earlier = NULL;
    *what = NULL;
    pthread_mutex_lock(&s->registry->lock);
    for (uint32_t k = 0; k < i && !*what; k++) {
        earlier = s->files.items[k];
        *what = duplicate_of(s->files.items[i], earlier);
    }
    pthread_mutex_unlock(&s->registry->lock);
    return *what ? earlier : NULL;
}

static attn_status mark_duplicates(scan *s)
{
    for (uint32_t i = 1; i < s->files.n; i++) {
        const char *what = NULL;
        const plugin_file *file = s->files.items[i], *earlier = earlier_of(s, i, &what);
        plugin_file *copy = earlier ? record_duplicate(s, file, earlier, what) : NULL;
        if (earlier && !copy) {
            return attn_fail(s->err, ATTN_NOMEM, "no memory for %s", file->path);
        }
        s->files.items[i] = copy ? copy : s->files.items[i];
    }
    return ATTN_OK;
}

static attn_status scan_places(scan *s)
{
    const search_order *order = &s->registry->order;
    attn_status status = ATTN_OK;
    for (size_t i = 0; i < order->n && status == ATTN_OK; i++) {
        status = order->places[i].is_file ? scan_file(s, order->places[i].path)
                                          : scan_folder(s, order->places[i].path);
    }
    return status == ATTN_OK ? mark_duplicates(s) : status;
}

static bool same_list(const file_list *a, const file_list *b)
{
    return a->n == b->n && (!a->n || memcmp(a->items, b->items, a->n * sizeof *a->items) == 0);
}

attn_status registry_scan(attn_registry *registry, attn_error *err)
{
    scan s = {.registry = registry, .err = err};
    trust_init(&s.trust, (registry->flags & ATTN_REGISTRY_TRUST_ALL) != 0);
    pthread_mutex_lock(&registry->scan_lock);
    attn_status status = scan_places(&s);
    if (status == ATTN_OK && !same_list(&registry->files, &s.files)) {
        pthread_mutex_lock(&registry->lock);
        file_list old = registry->files;
        registry->files = s.files;
        s.files = old;
        pthread_mutex_unlock(&registry->lock);
        atomic_fetch_add(&registry->generation, 1);
    }
    free(s.files.items);
    pthread_mutex_unlock(&registry->scan_lock);
    return status;
}
