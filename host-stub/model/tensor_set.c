#include "tensor_set.h"

#include "attn_host.h"
#include "checkpoint.h"
#include "json_file.h"
#include "pickle.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct entry {
    safetensors_tensor tensor;
    const safetensors *file;
    char *name; /* where the file has it under another one, else NULL */
};

struct tensor_set {
    char *path; /* the file or the index that was named */
    safetensors **files;
    size_t n_files;
    struct entry *entries;
    size_t count, capacity;
};

static attn_status no_memory(const char *path, attn_error *err)
{
    return attn_fail(err, ATTN_NOMEM, "%s: out of memory", path);
}

/* -- filling --------------------------------------------------------------------------------- */

/* name NULL: the tensor's own, which lives as long as the file. */
static attn_status entry_add(struct tensor_set *set, const safetensors *file,
                             const safetensors_tensor *tensor, const char *name, attn_error *err)
{
    struct entry *e;
    if (set->count == set->capacity) {
        size_t capacity = set->capacity ? 2 * set->capacity : 256;
        struct entry *entries = realloc(set->entries, capacity * sizeof(*entries));
        if (!entries) {
            return no_memory(set->path, err);
        }
        set->entries = entries;
        set->capacity = capacity;
    }
    e = &set->entries[set->count];
    *e = (struct entry){.tensor = *tensor, .file = file};
    if (name) {
        e->name = strdup(name);
        if (!e->name) {
            return no_memory(set->path, err);
        }
        e->tensor.name = e->name;
    }
    set->count++;
    return ATTN_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->tensor.name, ((const struct entry *)b)->tensor.name);
}

static attn_status entries_sort(struct tensor_set *set, attn_error *err)
{
    if (set->count) {
        qsort(set->entries, set->count, sizeof(*set->entries), by_name);
    }
    for (size_t i = 1; i < set->count; i++) {
        if (by_name(&set->entries[i - 1], &set->entries[i]) == 0) {
            return attn_fail(err, ATTN_INVALID, "%s: tensor %s is there twice", set->path,
                             set->entries[i].tensor.name);
        }
    }
    return ATTN_OK;
}

/* Opens a file that the set then owns. */
static attn_status file_add(struct tensor_set *set, const char *path, safetensors **out,
                            attn_error *err)
{
    attn_status status;
    safetensors **files = realloc(set->files, (set->n_files + 1) * sizeof(*files));
    if (!files) {
        return no_memory(path, err);
    }
    set->files = files;
    status = safetensors_open(path, out, err);
    if (status == ATTN_OK) {
        files[set->n_files++] = *out;
    }
    return status;
}

static attn_status one_file(struct tensor_set *set, attn_error *err)
{
    safetensors *file;
    attn_status status = file_add(set, set->path, &file, err);
    for (size_t i = 0; status == ATTN_OK && i < safetensors_count(file); i++) {
        status = entry_add(set, file, safetensors_at(file, i), NULL, err);
    }
    return status;
}

/* -- shards ---------------------------------------------------------------------------------- */

/* A shard lies beside its index; anything else would let an index read the user's other files. */
static attn_status shard_name_check(const struct tensor_set *set, const char *tensor,
                                    const char *name, attn_error *err)
{
    if (!name || !*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: weight_map: %s is in %s%s%s, expected the name of a file in the same"
                         " folder",
                         set->path, tensor, name ? "\"" : "", name ? name : "no text",
                         name ? "\"" : "");
    }
    return ATTN_OK;
}

static attn_status shard_open(struct tensor_set *set, const char *name, safetensors **out,
                              attn_error *err)
{
    const char *slash = strrchr(set->path, '/');
    const int folder = slash ? (int)(slash - set->path) : 0;
    attn_status status;
    char *path;
    if (asprintf(&path, "%.*s%s%s", folder, set->path, slash ? "/" : "", name) < 0) {
        return no_memory(set->path, err);
    }
    for (size_t i = 0; i < set->n_files; i++) {
        if (strcmp(safetensors_path(set->files[i]), path) == 0) {
            *out = set->files[i];
            free(path);
            return ATTN_OK;
        }
    }
    status =
        access(path, F_OK) == 0
            ? file_add(set, path, out, err)
            : attn_fail(err, ATTN_NOT_FOUND, "%s: no such file, which %s lists", path, set->path);
    free(path);
    return status;
}

static attn_status index_read(struct tensor_set *set, const json_t *map, attn_error *err)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, name, value)
    {
        const char *shard = json_string_value(value);
        safetensors *file = NULL;
        const safetensors_tensor *tensor;
        attn_status status = shard_name_check(set, name, shard, err);
        if (status == ATTN_OK) {
            status = shard_open(set, shard, &file, err);
        }
        if (status != ATTN_OK) {
            return status;
        }
        tensor = safetensors_find(file, name);
        if (!tensor) {
            return attn_fail(err, ATTN_INVALID, "%s: no tensor %s, which %s says is there",
                             safetensors_path(file), name, set->path);
        }
        /* the map's texts go with the index; the file's stay */
        status = entry_add(set, file, tensor, NULL, err);
        if (status != ATTN_OK) {
            return status;
        }
    }
    return ATTN_OK;
}

static attn_status shards(struct tensor_set *set, attn_error *err)
{
    json_t *root = NULL;
    const json_t *map;
    attn_status status = json_file_read(set->path, &root, err);
    if (status != ATTN_OK) {
        return status;
    }
    map = json_object_get(root, "weight_map");
    status = json_is_object(map) && json_object_size(map)
                 ? index_read(set, map, err)
                 : attn_fail(err, ATTN_INVALID,
                             "%s: weight_map is missing or empty, expected tensors with the file"
                             " of each",
                             set->path);
    json_decref(root);
    return status;
}

/* -- which file ------------------------------------------------------------------------------ */

/* What follows the base in a file's name: `before`, the variant, `after`; without a variant
 * `before` alone. diffusers and transformers have spelt a variant's index in three ways. */
struct spelling {
    const char *before, *after;
    int is_index;
};
static const struct spelling of_variant[] = {
    {".", ".safetensors", 0},
    {".safetensors.index.", ".json", 1},
    {".", ".safetensors.index.json", 1},
    {".safetensors.", ".index.json", 1},
};
static const struct spelling plain[] = {{".safetensors", "", 0},
                                        {".safetensors.index.json", "", 1}};

/* The first of the files that is there into set->path; ATTN_NOT_FOUND where none is. */
static attn_status pick(struct tensor_set *set, const char *folder, const char *base,
                        const char *variant, int *is_index, attn_error *err)
{
    const struct spelling *list = variant ? of_variant : plain;
    const size_t n =
        variant ? sizeof(of_variant) / sizeof(*of_variant) : sizeof(plain) / sizeof(*plain);
    for (size_t i = 0; i < n; i++) {
        char *path;
        if (asprintf(&path, "%s/%s%s%s%s", folder, base, list[i].before, variant ? variant : "",
                     list[i].after) < 0) {
            return no_memory(folder, err);
        }
        if (access(path, F_OK) == 0) {
            set->path = path;
            *is_index = list[i].is_index;
            return ATTN_OK;
        }
        free(path);
    }
    return ATTN_NOT_FOUND;
}

/* Nothing readable is there: perhaps a pickle is. */
static attn_status nothing_found(const char *folder, const char *base, attn_error *err)
{
    static const char *const pickles[] = {"diffusion_pytorch_model.bin", "pytorch_model.bin",
                                          "diffusion_pytorch_model.fp16.bin",
                                          "pytorch_model.fp16.bin"};
    for (size_t i = 0; i < sizeof(pickles) / sizeof(*pickles); i++) {
        attn_status status;
        char *path;
        if (asprintf(&path, "%s/%s", folder, pickles[i]) < 0) {
            return no_memory(folder, err);
        }
        status = access(path, F_OK) == 0 ? pickle_refuse(path, err) : ATTN_OK;
        free(path);
        if (status != ATTN_OK) {
            return status;
        }
    }
    return attn_fail(err, ATTN_NOT_FOUND, "%s/%s.safetensors: no such file", folder, base);
}

static attn_status folder_read(struct tensor_set *set, const struct model_source *source,
                               const char *base, attn_error *err)
{
    /* diffusers wants fp16 named; where it is all there is, there is nothing to choose */
    const char *const order[] = {source->variant, NULL, source->variant ? NULL : "fp16"};
    attn_status status = ATTN_NOT_FOUND;
    int is_index = 0;
    for (size_t i = 0; status == ATTN_NOT_FOUND && i < 3; i++) {
        if (i == 1 || order[i]) {
            status = pick(set, source->folder, base, order[i], &is_index, err);
        }
    }
    if (status == ATTN_NOT_FOUND) {
        return nothing_found(source->folder, base, err);
    }
    if (status != ATTN_OK) {
        return status;
    }
    return is_index ? shards(set, err) : one_file(set, err);
}

int32_t variant_is_there(const char *folder, const char *variant)
{
    int32_t found = 0;
    struct dirent *item;
    DIR *items = opendir(folder);
    while (items && !found && (item = readdir(items))) {
        const char *dot = strchr(item->d_name, '.');
        found = dot && strncmp(dot + 1, variant, strlen(variant)) == 0;
    }
    if (items) {
        (void)closedir(items);
    }
    return found;
}

/* -- a checkpoint's -------------------------------------------------------------------------- */

struct taking {
    struct tensor_set *set;
    const safetensors *file;
    attn_error *err;
};

static attn_status take(void *ctx, const char *name, const safetensors_tensor *tensor)
{
    struct taking *t = ctx;
    return entry_add(t->set, t->file, tensor, name, t->err);
}

static attn_status checkpoint_read(struct tensor_set *set, const struct model_source *source,
                                   attn_error *err)
{
    struct taking t = {set, checkpoint_file(source->checkpoint), err};
    set->path = strdup(safetensors_path(t.file));
    return set->path ? checkpoint_each(source->checkpoint, source->part, take, &t, err)
                     : no_memory(safetensors_path(t.file), err);
}

static attn_status file_read(struct tensor_set *set, const struct model_source *source,
                             attn_error *err)
{
    set->path = strdup(source->file);
    return set->path ? one_file(set, err) : no_memory(source->file, err);
}

/* -- the set --------------------------------------------------------------------------------- */

attn_status tensor_set_open(const struct model_source *source, const char *base,
                            struct tensor_set **out, attn_error *err)
{
    attn_status status;
    struct tensor_set *set = calloc(1, sizeof(*set));
    if (!set) {
        return no_memory(base, err);
    }
    status = source->file         ? file_read(set, source, err)
             : source->checkpoint ? checkpoint_read(set, source, err)
                                  : folder_read(set, source, base, err);
    if (status == ATTN_OK) {
        status = entries_sort(set, err);
    }
    if (status != ATTN_OK) {
        tensor_set_close(set);
        return status;
    }
    *out = set;
    return ATTN_OK;
}

void tensor_set_close(struct tensor_set *set)
{
    if (!set) {
        return;
    }
    for (size_t i = 0; i < set->count; i++) {
        free(set->entries[i].name);
    }
    free(set->entries);
    for (size_t i = 0; i < set->n_files; i++) {
        safetensors_close(set->files[i]);
    }
    free(set->files);
    free(set->path);
    free(set);
}

size_t tensor_set_count(const struct tensor_set *set)
{
    return set->count;
}

const safetensors_tensor *tensor_set_at(const struct tensor_set *set, size_t index)
{
    return &set->entries[index].tensor;
}

int32_t tensor_set_find(const struct tensor_set *set, const char *name, size_t *index)
{
    const struct entry key = {.tensor.name = name};
    const struct entry *found =
        set->count ? bsearch(&key, set->entries, set->count, sizeof(key), by_name) : NULL;
    if (found) {
        *index = (size_t)(found - set->entries);
    }
    return found != NULL;
}

const char *tensor_set_file(const struct tensor_set *set, size_t index)
{
    return safetensors_path(set->entries[index].file);
}

const char *tensor_set_path(const struct tensor_set *set)
{
    return set->path;
}

void tensor_set_let_go(const struct tensor_set *set, const void *data, uint64_t bytes)
{
    for (size_t i = 0; i < set->n_files; i++) {
        safetensors_let_go(set->files[i], data, bytes);
    }
    if (!set->n_files && set->count) {
        safetensors_let_go(set->entries[0].file, data, bytes); /* the checkpoint's one file */
    }
}

void tensor_set_rest(const struct tensor_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        const safetensors_tensor *tensor = &set->entries[i].tensor;
        safetensors_let_go(set->entries[i].file, tensor->data, tensor->bytes);
    }
}
