#include "safetensors_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attn_host.h"

struct safetensors {
    char *path;
    uint8_t *map;
    size_t map_bytes;
    json_t *header; /* owns every name and text */
    safetensors_tensor *tensors;
    size_t count;
};

const safetensors_dtype_entry safetensors_dtypes[] = {
    {"F64", {2, 64}}, {"F32", {2, 32}},     {"F16", {2, 16}},     {"BF16", {4, 16}},
    {"I64", {0, 64}}, {"I32", {0, 32}},     {"I16", {0, 16}},     {"I8", {0, 8}},
    {"U64", {1, 64}}, {"U32", {1, 32}},     {"U16", {1, 16}},     {"U8", {1, 8}},
    {"BOOL", {6, 8}}, {"F8_E4M3", {10, 8}}, {"F8_E5M2", {12, 8}}, {NULL, {0, 0}},
};

int safetensors_bytes(const safetensors_tensor *tensor, uint64_t *bytes)
{
    uint64_t total = tensor->dtype.bits / 8u;
    for (uint32_t i = 0; i < tensor->rank; i++) {
        if (tensor->shape[i] < 0 ||
            __builtin_mul_overflow(total, (uint64_t)tensor->shape[i], &total)) {
            return -1;
        }
    }
    *bytes = total;
    return 0;
}

const char *safetensors_dtype_name(safetensors_dtype dtype)
{
    const safetensors_dtype_entry *entry = safetensors_dtypes;
    while (entry->name && (entry->dtype.code != dtype.code || entry->dtype.bits != dtype.bits)) {
        entry++;
    }
    return entry->name;
}

static attn_status dtype_read(const safetensors *file, safetensors_tensor *tensor, json_t *value,
                              attn_error *err)
{
    const char *text = json_string_value(value);
    const safetensors_dtype_entry *entry = safetensors_dtypes;
    while (text && entry->name && strcmp(entry->name, text) != 0) {
        entry++;
    }
    if (!text || !entry->name) {
        return attn_fail(err, ATTN_INVALID, "%s: tensor %s: dtype %s is not one of the format's",
                         file->path, tensor->name, text ? text : "missing");
    }
    tensor->dtype = entry->dtype;
    return ATTN_OK;
}

static attn_status shape_read(const safetensors *file, safetensors_tensor *tensor, json_t *value,
                              attn_error *err)
{
    if (!json_is_array(value) || json_array_size(value) > SAFETENSORS_MAX_RANK) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: tensor %s: shape must be a list of at most %d sizes", file->path,
                         tensor->name, SAFETENSORS_MAX_RANK);
    }
    tensor->rank = (uint32_t)json_array_size(value);
    for (uint32_t i = 0; i < tensor->rank; i++) {
        json_t *size = json_array_get(value, i);
        if (!json_is_integer(size) || json_integer_value(size) < 0) {
            return attn_fail(err, ATTN_INVALID,
                             "%s: tensor %s: shape[%u] must be an integer of at least 0",
                             file->path, tensor->name, i);
        }
        tensor->shape[i] = json_integer_value(size);
    }
    if (safetensors_bytes(tensor, &tensor->bytes)) {
        return attn_fail(err, ATTN_INVALID, "%s: tensor %s: its shape has more bytes than 2^64",
                         file->path, tensor->name);
    }
    return ATTN_OK;
}

static attn_status offsets_read(const safetensors *file, safetensors_tensor *tensor, json_t *value,
                                const uint8_t *data, uint64_t data_bytes, attn_error *err)
{
    json_t *first = json_array_get(value, 0);
    json_t *last = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_integer(first) || !json_is_integer(last)) {
        return attn_fail(err, ATTN_INVALID, "%s: tensor %s: data_offsets must be two integers",
                         file->path, tensor->name);
    }
    json_int_t begin = json_integer_value(first);
    json_int_t end = json_integer_value(last);
    if (begin < 0 || end < begin || (uint64_t)end > data_bytes) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: tensor %s: data_offsets [%" JSON_INTEGER_FORMAT
                         ", %" JSON_INTEGER_FORMAT "] do not lie in order within the %" PRIu64
                         " bytes of data; the file may be cut short",
                         file->path, tensor->name, begin, end, data_bytes);
    }
    if ((uint64_t)(end - begin) != tensor->bytes) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: tensor %s: data_offsets hold %" PRIu64
                         " bytes, its dtype and shape need %" PRIu64,
                         file->path, tensor->name, (uint64_t)(end - begin), tensor->bytes);
    }
    tensor->data = data + begin;
    return ATTN_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const safetensors_tensor *)a)->name, ((const safetensors_tensor *)b)->name);
}

static int by_data(const void *a, const void *b)
{
    const safetensors_tensor *x = a;
    const safetensors_tensor *y = b;
    if (x->data != y->data) {
        return (const uint8_t *)x->data < (const uint8_t *)y->data ? -1 : 1;
    }
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* The format forbids holes and overlaps: both hide bytes from whoever checks a file by its header.
 */
static attn_status layout_check(safetensors *file, const uint8_t *data, uint64_t data_bytes,
                                attn_error *err)
{
    const uint8_t *next = data;
    qsort(file->tensors, file->count, sizeof *file->tensors, by_data);
    for (size_t i = 0; i < file->count; i++) {
        const safetensors_tensor *tensor = &file->tensors[i];
        if (tensor->data != next) {
            return attn_fail(
                err, ATTN_INVALID,
                "%s: tensor %s: its data begin at %td, expected %td: tensors must follow"
                " one another",
                file->path, tensor->name, (const uint8_t *)tensor->data - data, next - data);
        }
        next += tensor->bytes;
    }
    if ((uint64_t)(next - data) != data_bytes) {
        return attn_fail(err, ATTN_INVALID, "%s: %" PRIu64 " bytes of data, its tensors hold %td",
                         file->path, data_bytes, next - data);
    }
    qsort(file->tensors, file->count, sizeof *file->tensors, by_name);
    return ATTN_OK;
}

static attn_status metadata_check(const safetensors *file, json_t *metadata, attn_error *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata)) {
        return attn_fail(err, ATTN_INVALID, "%s: __metadata__ must be an object of texts",
                         file->path);
    }
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value)) {
            return attn_fail(err, ATTN_INVALID, "%s: __metadata__ key %s must be a text",
                             file->path, key);
        }
    }
    return ATTN_OK;
}

static attn_status tensors_read(safetensors *file, const uint8_t *data, uint64_t data_bytes,
                                attn_error *err)
{
    const char *name;
    json_t *entry;
    file->tensors = calloc(json_object_size(file->header) + 1, sizeof *file->tensors);
    if (!file->tensors) {
        return attn_fail(err, ATTN_NOMEM, "%s: no memory for its table of tensors", file->path);
    }
    json_object_foreach(file->header, name, entry)
    {
        attn_status status;
        if (strcmp(name, "__metadata__") == 0) {
            status = metadata_check(file, entry, err);
        } else {
            safetensors_tensor *tensor = &file->tensors[file->count++];
            tensor->name = name;
            status = dtype_read(file, tensor, json_object_get(entry, "dtype"), err);
            if (!status) {
                status = shape_read(file, tensor, json_object_get(entry, "shape"), err);
            }
            if (!status) {
                status = offsets_read(file, tensor, json_object_get(entry, "data_offsets"), data,
                                      data_bytes, err);
            }
        }
        if (status) {
            return status;
        }
    }
    return layout_check(file, data, data_bytes, err);
}

static attn_status header_read(safetensors *file, attn_error *err)
{
    uint64_t length = 0;
    if (file->map_bytes < 8) {
        return attn_fail(err, ATTN_INVALID, "%s: %zu bytes, a safetensors file has at least 8",
                         file->path, file->map_bytes);
    }
    for (int i = 7; i >= 0; i--) {
        length = length << 8 | file->map[i];
    }
    if (length > SAFETENSORS_MAX_HEADER || length > file->map_bytes - 8) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: says that its header has %" PRIu64 " bytes, but %zu follow and %u is"
                         " the most: not a safetensors file, or cut short",
                         file->path, length, file->map_bytes - 8, SAFETENSORS_MAX_HEADER);
    }
    json_error_t json;
    file->header =
        json_loadb((const char *)file->map + 8, (size_t)length, JSON_REJECT_DUPLICATES, &json);
    if (!json_is_object(file->header)) {
        return attn_fail(err, ATTN_INVALID, "%s: header: %s", file->path,
                         file->header ? "must be a JSON object" : json.text);
    }
    return tensors_read(file, file->map + 8 + length, file->map_bytes - 8 - length, err);
}

static attn_status file_map(safetensors *file, attn_error *err)
{
    attn_status status = ATTN_OK;
    struct stat info;
    /* O_NONBLOCK: a pipe that nobody writes to would keep open() waiting. */
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &info) != 0) {
        status = attn_fail(err, errno == ENOENT ? ATTN_NOT_FOUND : ATTN_IO, "%s: %s", file->path,
                           strerror(errno));
    } else if (!S_ISREG(info.st_mode)) {
        status = attn_fail(err, ATTN_INVALID, "%s: not a regular file", file->path);
    } else if (info.st_size > 0) {
        void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) {
            status = attn_fail(err, ATTN_NOMEM, "%s: cannot map: %s", file->path, strerror(errno));
        } else {
            file->map = map;
            file->map_bytes = (size_t)info.st_size;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return status;
}

attn_status safetensors_open(const char *path, safetensors **out, attn_error *err)
{
    *out = NULL;
    safetensors *file = calloc(1, sizeof *file);
    if (!file || !(file->path = strdup(path))) {
        free(file);
        return attn_fail(err, ATTN_NOMEM, "%s: no memory to open it", path);
    }
    attn_status status = file_map(file, err);
    if (!status) {
        status = header_read(file, err);
    }
    if (status) {
        safetensors_close(file);
        return status;
    }
    *out = file;
    return ATTN_OK;
}

void safetensors_close(safetensors *file)
{
    if (!file) {
        return;
    }
    free(file->tensors);
    json_decref(file->header);
    if (file->map) {
        munmap(file->map, file->map_bytes);
    }
    free(file->path);
    free(file);
}

const safetensors_tensor *safetensors_find(const safetensors *file, const char *name)
{
    safetensors_tensor key = {.name = name};
    return bsearch(&key, file->tensors, file->count, sizeof key, by_name);
}

size_t safetensors_count(const safetensors *file)
{
    return file->count;
}

const safetensors_tensor *safetensors_at(const safetensors *file, size_t index)
{
    return index < file->count ? &file->tensors[index] : NULL;
}

void safetensors_let_go(const safetensors *file, const void *data, uint64_t bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t map = (uintptr_t)file->map;
    const uintptr_t at = (uintptr_t)data;
    if (at < map || at - map > file->map_bytes || bytes > file->map_bytes - (at - map)) {
        return;
    }
    /* whole pages only: others share the first and the last */
    const uintptr_t begin = (at + page - 1) / page * page;
    const uintptr_t end = (at + bytes) / page * page;
    if (begin < end) {
        (void)madvise((void *)begin, end - begin, MADV_DONTNEED);
    }
}

const char *safetensors_metadata(const safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}

const char *safetensors_path(const safetensors *file)
{
    return file->path;
}
