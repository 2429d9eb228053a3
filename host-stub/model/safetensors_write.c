#include "safetensors_private.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "atomic_file.h"

/* One tensor on its way out: where it stands in the caller's list, and its size. */
typedef struct {
    const safetensors_tensor *tensor;
    uint64_t bytes;
    size_t index;
} entry;

/* Widest elements first, so that each tensor is aligned for its own type; else the caller's order.
 */
static int by_width(const void *a, const void *b)
{
    const entry *x = a;
    const entry *y = b;
    if (x->tensor->dtype.bits != y->tensor->dtype.bits) {
        return x->tensor->dtype.bits > y->tensor->dtype.bits ? -1 : 1;
    }
    return x->index < y->index ? -1 : 1;
}

static attn_status entries_fill(entry *entries, const char *path, const safetensors_tensor *tensors,
                                size_t n, attn_error *err)
{
    for (size_t i = 0; i < n; i++) {
        entries[i] = (entry){.tensor = &tensors[i], .index = i};
        if (!safetensors_dtype_name(tensors[i].dtype) || tensors[i].rank > SAFETENSORS_MAX_RANK ||
            safetensors_bytes(&tensors[i], &entries[i].bytes)) {
            return attn_fail(err, ATTN_INVALID,
                             "%s: tensor %s: its dtype or shape cannot be written", path,
                             tensors[i].name);
        }
    }
    qsort(entries, n, sizeof *entries, by_width);
    return ATTN_OK;
}

static json_t *entry_json(const entry *item, uint64_t begin)
{
    json_t *shape = json_array();
    for (uint32_t i = 0; i < item->tensor->rank; i++) {
        json_array_append_new(shape, json_integer(item->tensor->shape[i]));
    }
    uint64_t end = begin + item->bytes;
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", safetensors_dtype_name(item->tensor->dtype),
                     "shape", shape, "data_offsets", (json_int_t)begin, (json_int_t)end);
}

/* The header as text, padded with spaces so that the data begin at a multiple of 8; NULL where a
 * name is not UTF-8 or memory ran out. The caller frees it. */
static char *header_text(const entry *entries, size_t n, const safetensors_text *texts,
                         size_t n_texts)
{
    json_t *header = json_object();
    int bad = !header;
    if (n_texts) {
        json_t *metadata = json_object();
        for (size_t i = 0; i < n_texts; i++) {
            bad |= json_object_set_new(metadata, texts[i].key, json_string(texts[i].value));
        }
        bad |= json_object_set_new(header, "__metadata__", metadata);
    }
    uint64_t begin = 0;
    for (size_t i = 0; i < n; i++) {
        bad |= json_object_get(header, entries[i].tensor->name) != NULL;
        bad |= json_object_set_new(header, entries[i].tensor->name, entry_json(&entries[i], begin));
        begin += entries[i].bytes;
    }
    char *text = bad ? NULL : json_dumps(header, JSON_COMPACT);
    json_decref(header);
    if (text) {
        size_t length = strlen(text);
        size_t padded = (length + 7) / 8 * 8;
        char *longer = realloc(text, padded + 1);
        if (!longer) {
            free(text);
            return NULL;
        }
        memset(longer + length, ' ', padded - length);
        longer[padded] = 0;
        text = longer;
    }
    return text;
}

static attn_status file_write(const char *path, const char *header, const entry *entries, size_t n,
                              attn_error *err)
{
    atomic_file file;
    attn_status status = atomic_file_open(&file, path, err);
    if (status) {
        return status;
    }
    uint64_t length = strlen(header);
    uint8_t prefix[8];
    for (int i = 0; i < 8; i++) {
        prefix[i] = (uint8_t)(length >> (8 * i));
    }
    /* A failed write leaves the stream's error set, which the commit reports. */
    int good =
        fwrite(prefix, 1, 8, file.stream) == 8 && fwrite(header, 1, length, file.stream) == length;
    for (size_t i = 0; good && i < n; i++) {
        good = !entries[i].bytes || fwrite(entries[i].tensor->data, 1, entries[i].bytes,
                                           file.stream) == entries[i].bytes;
    }
    return atomic_file_commit(&file, err);
}

attn_status safetensors_write(const char *path, const safetensors_tensor *tensors, size_t n_tensors,
                              const safetensors_text *texts, size_t n_texts, attn_error *err)
{
    char *header = NULL;
    entry *entries = calloc(n_tensors + 1, sizeof *entries);
    if (!entries) {
        return attn_fail(err, ATTN_NOMEM, "%s: no memory to write it", path);
    }
    attn_status status = entries_fill(entries, path, tensors, n_tensors, err);
    if (status) {
        goto done;
    }
    header = header_text(entries, n_tensors, texts, n_texts);
    if (!header) {
        status = attn_fail(err, ATTN_INVALID,
                           "%s: names and metadata must be UTF-8 and each name different", path);
        goto done;
    }
    status = file_write(path, header, entries, n_tensors, err);
done:
    free(header);
    free(entries);
    return status;
}
