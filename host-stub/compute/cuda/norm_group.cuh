/* norm_group.cuh: a group norm as its kernels see it.
 *
 * Channels are cut into slabs: whole groups that are also whole vectors of 16 bytes.  A block takes
 * some rows of one slab into registers, so that its mean and its sum of squared deviations are
 * exact two-pass figures; blocks are merged by Chan, Golub and LeVeque's formula (1983).  A slab
 * whose blocks fit into one cluster is read and written once: they merge through shared memory.
 * Larger ones leave their figures in scratch and are read twice.  Whatever does not lie in vectors
 * goes element by element.
 */
#ifndef ATTNPLUG_CUDA_NORM_GROUP_CUH
#define ATTNPLUG_CUDA_NORM_GROUP_CUH

#include "device.cuh"

#define GROUP_THREADS_MAX 512
#define GROUP_CLUSTER_MAX 8
#define GROUP_ROWS_MAX    16 /* of a thread */

/* What shapes and types decide. */
struct group_shape {
    int64_t batch, height, width, rows; /* rows = height * width */
    int32_t channels, first_channels;   /* of x and x2 together, of x */
    int32_t groups, group_width;
    int32_t type;         /* of x, x2 and y in the kernels of vectors */
    int32_t slab_vectors; /* of a row; 0: no vectors */
    int32_t slab_groups, slab_channels, slabs;
    int32_t rows_each;  /* of a thread: 2, 8 or 16 */
    int32_t lanes;      /* rows that a block's threads take at once */
    int32_t block_rows; /* rows of a block */
    int32_t blocks;     /* of a slab of one image */
    int32_t resident;   /* blocks of a slab are one cluster */
};

struct group_tensor {
    void *data;
    int64_t batch, line, row, each; /* strides; in the kernels of vectors each is 1 and lines are
                                       even: line = width * row */
    int32_t type;
};

struct group_norm {
    struct group_shape s;
    struct group_tensor x[2], y;
    struct vector weight, bias, add, scale, shift;
    float eps;
    int32_t act;
    float2 *partials; /* [batch][groups][blocks]: mean, sum of squared deviations */
    float2 *moments;  /* [batch][groups]: mean, 1 / deviation */
};

enum group_mode { GROUP_RESIDENT, GROUP_MEASURE, GROUP_APPLY };

/* Rows of block `block`. */
static __host__ __device__ __forceinline__ int64_t group_rows(const struct group_shape &s,
                                                              int64_t block)
{
    int64_t left = s.rows - block * s.block_rows;
    return left < 0 ? 0 : left < s.block_rows ? left : s.block_rows;
}

/* norm_slab.cu: the launches of the kernels of vectors. */
int group_slab_launch(const struct group_norm *g, enum group_mode mode, void *stream);
int group_merge_launch(const struct group_norm *g, void *stream);
/* Blocks that may form a cluster: 1 where the chip or the code loaded for it knows none. */
int group_cluster_limit(void);

#endif
