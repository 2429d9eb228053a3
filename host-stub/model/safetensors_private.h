#ifndef ATTNPLUG_MODEL_SAFETENSORS_PRIVATE_H
#define ATTNPLUG_MODEL_SAFETENSORS_PRIVATE_H

#include "safetensors.h"

/* The format's own limit on the JSON header (safetensors/src/tensor.rs, MAX_HEADER_SIZE). */
#define SAFETENSORS_MAX_HEADER 100000000u

typedef struct {
    const char *name;
    safetensors_dtype dtype;
} safetensors_dtype_entry;

/* Ends with a NULL name. */
extern const safetensors_dtype_entry safetensors_dtypes[];

/* Bytes of a contiguous tensor; 0 on success, -1 where a size is negative or the product overflows.
 */
int safetensors_bytes(const safetensors_tensor *tensor, uint64_t *bytes);

#endif
