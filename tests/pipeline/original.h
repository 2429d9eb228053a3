/* original.h: checkpoints with original names, written when a test wants one: the goldens store
 * names and shapes, and the weights follow from the names (tools/golden/original.py). */
#ifndef ATTNPLUG_TESTS_PIPELINE_ORIGINAL_H
#define ATTNPLUG_TESTS_PIPELINE_ORIGINAL_H

#include "golden.h"

/* The tensors of a checkpoint, to be changed before they are written. */
struct original {
    char *listing; /* names lie here; NULL in a copy */
    void **data;   /* n_data blocks; NULL in a copy */
    safetensors_tensor *tensors;
    size_t n, n_data;
};

struct original original_read(const safetensors *golden);
/* Its own list of tensors, whose names and values are the other's. */
struct original original_copy(const struct original *o);
void original_free(struct original *o);
void original_write(const struct original *o, const char *path);

/* The tensor of that name. */
safetensors_tensor *original_find(struct original *o, const char *name);
/* One more, whose name and values are the caller's. */
void original_add(struct original *o, const safetensors_tensor *t);
/* Leaves out each tensor whose name begins so; how many. */
size_t original_drop(struct original *o, const char *prefix);

#endif
