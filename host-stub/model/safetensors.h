/* Named tensors in a file: the safetensors format, read through a map and written whole.
 *
 * Format (huggingface/safetensors, README.md "Format"): 8 bytes little-endian length n, n bytes of
 * JSON {"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {text: text}},
 * then the tensors' bytes, little-endian and row-major, one after another without holes. */
#ifndef ATTNPLUG_MODEL_SAFETENSORS_H
#define ATTNPLUG_MODEL_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

enum { SAFETENSORS_MAX_RANK = 8 };

/* A tensor's element type as DLPack codes it: 0 int, 1 uint, 2 float, 4 bfloat, 6 bool,
 * 10 float8_e4m3fn, 12 float8_e5m2. */
typedef struct {
    uint8_t code, bits;
} safetensors_dtype;

typedef struct {
    const char *name;
    safetensors_dtype dtype;
    uint32_t rank;
    int64_t shape[SAFETENSORS_MAX_RANK]; /* the first `rank` count */
    const void *data; /* contiguous, row-major; a file does not promise any alignment */
    uint64_t bytes;   /* of `data`: the shape's product times the element's size */
} safetensors_tensor;

typedef struct {
    const char *key, *value;
} safetensors_text;

typedef struct safetensors safetensors;

/* Maps `path` for reading. Everything that the header says is checked against the file before it is
 * believed; ATTN_INVALID names the file, the tensor and what was expected. ATTN_NOT_FOUND where
 * there is no such file, ATTN_IO where it cannot be read. */
attn_status safetensors_open(const char *path, safetensors **out, attn_error *err);

/* NULL is fine. Tensors found before are dead afterwards. */
void safetensors_close(safetensors *file);

/* The tensor of that name, NULL where there is none. Lives until safetensors_close. Any thread. */
const safetensors_tensor *safetensors_find(const safetensors *file, const char *name);

/* Tensors in order of their names (bytes compared). */
size_t safetensors_count(const safetensors *file);
const safetensors_tensor *safetensors_at(const safetensors *file, size_t index);

/* Gives the memory under these bytes of the file back to the system: for tensors that were
 * converted and are not needed soon.  They stay readable and come back from the file when they are.
 * Memory that is not the file's is left alone. */
void safetensors_let_go(const safetensors *file, const void *data, uint64_t bytes);

/* The metadata text of that key, NULL where there is none. */
const char *safetensors_metadata(const safetensors *file, const char *key);

/* The path given to safetensors_open, for messages. */
const char *safetensors_path(const safetensors *file);

/* "F32", "BF16", ... or NULL for a type that the format lacks. */
const char *safetensors_dtype_name(safetensors_dtype dtype);

/* Writes a file that appears whole or not at all. `bytes` of each tensor may be 0: it is computed.
 * `texts` may be NULL when n_texts is 0. */
attn_status safetensors_write(const char *path, const safetensors_tensor *tensors, size_t n_tensors,
                              const safetensors_text *texts, size_t n_texts, attn_error *err);

#endif
