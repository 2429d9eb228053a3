/* cann_load.c: finding CANN's libraries as CANN's own tools do.
 *
 * Folders: lib64 below ASCEND_HOME_PATH, ASCEND_TOOLKIT_HOME, and beside ASCEND_OPP_PATH, which
 * set_env.sh sets; then the loader's own path.  The runtime is libacl_rt.so or, in older releases,
 * libascendcl.so; operators are split into several libraries or all in libopapi.so.  Libraries stay
 * loaded for good, since their threads and executors outlive any op.
 */
#include "cann.h"
#include "error.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FOLDERS = 4, MAX_LIBRARIES = 3 };

/* Where to look; "" is the loader's path. */
struct folders {
    char path[MAX_FOLDERS][PATH_MAX];
    int count;
};

struct libraries {
    void *handle[MAX_LIBRARIES];
    const char *name[MAX_LIBRARIES];
    int count;
};

static const char *const runtime_names[] = {"libacl_rt.so", "libascendcl.so", NULL};
static const char *const descriptor_names[] = {"libnnopbase.so", NULL};
static const char *const operator_names[] = {"libopapi_transformer.so", "libopapi_math.so",
                                             "libopapi.so", NULL};

static void folders_add(struct folders *f, const char *variable, const char *below)
{
    const char *value = secure_getenv(variable);
    if (!value || value[0] != '/' || f->count >= MAX_FOLDERS - 1)
        return;
    int length = snprintf(f->path[f->count], sizeof f->path[0], "%s/%s/", value, below);
    if (length > 0 && (size_t)length < sizeof f->path[0])
        f->count++;
}

static void folders_find(struct folders *f)
{
    memset(f, 0, sizeof *f);
    folders_add(f, "ASCEND_HOME_PATH", "lib64");
    folders_add(f, "ASCEND_TOOLKIT_HOME", "lib64");
    folders_add(f, "ASCEND_OPP_PATH", "../lib64");
    f->path[f->count++][0] = '\0';
}

static void *library_open(const struct folders *f, const char *name, char *why, size_t capacity)
{
    char path[PATH_MAX + 64];
    for (int i = 0; i < f->count; i++) {
        (void)snprintf(path, sizeof path, "%s%s", f->path[i], name);
        void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (handle)
            return handle;
        const char *text = dlerror();
        (void)snprintf(why, capacity, "%s", text ? text : name);
    }
    return NULL;
}

/* All of the list that there are; the text of a failure is the last one's. */
static attn_status libraries_open(const struct folders *f, const char *const *names, int all,
                                  struct libraries *l, attn_error *err)
{
    char why[512] = "";
    l->count = 0;
    for (int i = 0; names[i]; i++) {
        void *handle = library_open(f, names[i], why, sizeof why);
        if (!handle)
            continue;
        l->handle[l->count] = handle;
        l->name[l->count++] = names[i];
        if (!all)
            break;
    }
    if (l->count)
        return ATTN_OK;
    const char *first = f->path[0][0] ? f->path[0] : "the loader's path";
    return attn_fail(err, ATTN_UNSUPPORTED,
                     NAME ": CANN's %s%s%s was not found in %s (ASCEND_HOME_PATH %s): %s", names[0],
                     names[1] ? " or " : "", names[1] ? names[1] : "", first,
                     f->path[0][0] ? "is set" : "is not set", why);
}

static void *symbol_find(const struct libraries *l, const char *name)
{
    for (int i = 0; i < l->count; i++) {
        void *symbol = dlsym(l->handle[i], name);
        if (symbol)
            return symbol;
    }
    return NULL;
}

/* A field of the table and the symbol that it holds. */
struct entry {
    const char *name;
    size_t offset;
};
#define ENTRY(name)       {#name, offsetof(struct cann, name)},
#define TWO_ENTRIES(name) ENTRY(name) ENTRY(name##GetWorkspaceSize)
#define COUNT(table)      (sizeof(table) / sizeof *(table))

static void entry_set(struct cann *c, const struct entry *e, void *symbol)
{
    memcpy((char *)c + e->offset, &symbol, sizeof symbol);
}

static attn_status entries_fill(struct cann *c, const struct entry *entries, size_t n,
                                const struct libraries *l, int required, attn_error *err)
{
    for (size_t i = 0; i < n; i++) {
        void *symbol = symbol_find(l, entries[i].name);
        if (!symbol && required)
            return attn_fail(err, ATTN_UNSUPPORTED, NAME ": CANN's %s has no %s", l->name[0],
                             entries[i].name);
        entry_set(c, &entries[i], symbol);
    }
    return ATTN_OK;
}

/* Half an operator is none. */
static void operators_fill(struct cann *c, const struct libraries *l)
{
    static const struct entry entries[] = {CANN_OPERATORS(TWO_ENTRIES)};
    for (size_t i = 0; i < COUNT(entries); i += 2) {
        void *launch = symbol_find(l, entries[i].name);
        void *size = symbol_find(l, entries[i + 1].name);
        entry_set(c, &entries[i], launch && size ? launch : NULL);
        entry_set(c, &entries[i + 1], launch && size ? size : NULL);
    }
}

static attn_status table_fill(struct cann *c, attn_error *err)
{
    static const struct entry runtime[] = {CANN_RUNTIME(ENTRY)};
    static const struct entry optional[] = {CANN_RUNTIME_OPTIONAL(ENTRY)};
    static const struct entry descriptors[] = {CANN_DESCRIPTORS(ENTRY)};
    struct folders folders;
    struct libraries l;
    folders_find(&folders);
    attn_status status = libraries_open(&folders, runtime_names, 0, &l, err);
    if (status == ATTN_OK)
        status = entries_fill(c, runtime, COUNT(runtime), &l, 1, err);
    if (status == ATTN_OK)
        status = entries_fill(c, optional, COUNT(optional), &l, 0, err);
    if (status == ATTN_OK)
        status = libraries_open(&folders, descriptor_names, 0, &l, err);
    if (status == ATTN_OK)
        status = entries_fill(c, descriptors, COUNT(descriptors), &l, 1, err);
    if (status == ATTN_OK)
        status = libraries_open(&folders, operator_names, 1, &l, err);
    if (status != ATTN_OK)
        return status;
    operators_fill(c, &l);
    if (!c->aclnnFlashAttentionScore && !c->aclnnFlashAttentionScoreV2 &&
        !c->aclnnFlashAttentionScoreV3 && !c->aclnnFlashAttentionScoreV4)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         NAME ": CANN's %s has no aclnnFlashAttentionScore, V2, V3 or V4",
                         l.name[0]);
    return ATTN_OK;
}

attn_status cann_load(const struct cann **cann, attn_error *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct cann table;
    static int loaded;
    attn_status status = ATTN_OK;
    pthread_mutex_lock(&lock);
    if (!loaded)
        status = table_fill(&table, err);
    loaded = loaded || status == ATTN_OK;
    pthread_mutex_unlock(&lock);
    *cann = &table;
    return status;
}
