/* pack.h: weights laid out in panels for gemm.h, and which of them are kept. */
#ifndef ATTNPLUG_CPU_PACK_H
#define ATTNPLUG_CPU_PACK_H

#include "gemm.h"

/* A matrix [columns of y, depth] of any float type. */
struct pack_source {
    attn_tensor type; /* code and bits count */
    const void *data;
    int64_t column_stride, depth_stride, depth; /* strides in elements */
};

struct pack_shape {
    int64_t columns; /* of y */
    bool gated;      /* the sources have 2 columns, a | g */
    int32_t n_sources;
    const struct pack_source *sources; /* one after another in depth */
};

int64_t pack_depth(const struct pack_shape *shape);
uint64_t pack_floats(const struct kernels *k, const struct pack_shape *shape);
void pack_panels(const struct cpu *c, const struct pack_shape *shape, float *panels);
/* bias may be absent: zeros.  dst holds gemm_padded floats. */
void pack_bias(const struct cpu *c, const attn_tensor *bias, int64_t columns, bool gated,
               float *dst);

/* -- packs that are kept: one for each weight, shared by passes -------------------------------- */

struct packed {
    uint32_t references;
    _Atomic bool forgotten; /* its weight is gone; set under cpu->lock, read without */
    uint64_t bytes;
    float *panels;
};

/* Panels of these sources, packed now if nobody did; NULL where they are not worth their memory.
 * Give back with packed_release. */
struct packed *packed_find(struct cpu *c, const struct pack_shape *shape, int64_t rows);
void packed_release(struct cpu *c, struct packed *p);

#endif
