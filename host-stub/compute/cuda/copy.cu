/* copy.cu: strided copies with conversion.  Where source and destination run along different
 * dimensions, tiles turn in shared memory so that both sides move whole sectors. */
#include "launchers.h"
#include "walk.cuh"

#define TILE  32
#define LINES 8 /* of a tile, at a time */

struct turn {
    const void *src;
    void *dst;
    int32_t src_type, dst_type;
    int64_t rows, columns;       /* columns run along dst, rows along src */
    int64_t src_column, dst_row; /* strides of the other direction */
    int64_t batch[2];            /* the two other dimensions */
    int64_t src_batch[2], dst_batch[2];
};

static __global__ void __launch_bounds__(TILE *LINES)
    turn_kernel(const __grid_constant__ struct turn t)
{
    __shared__ float tile[TILE][TILE + 1];
    const int64_t tiles = (t.columns + TILE - 1) / TILE;
    const int64_t row = blockIdx.x / tiles * TILE, column = blockIdx.x % tiles * TILE;
    for (int64_t b = blockIdx.y; b < t.batch[0] * t.batch[1]; b += gridDim.y) {
        const int64_t b0 = b / t.batch[1], b1 = b % t.batch[1];
        const int64_t from = b0 * t.src_batch[0] + b1 * t.src_batch[1];
        const int64_t to = b0 * t.dst_batch[0] + b1 * t.dst_batch[1];
        for (int i = threadIdx.y; i < TILE; i += LINES) {
            int64_t c = column + i, r = row + threadIdx.x;
            if (c < t.columns && r < t.rows)
                tile[i][threadIdx.x] = load1(t.src, from + c * t.src_column + r, t.src_type);
        }
        __syncthreads();
        for (int i = threadIdx.y; i < TILE; i += LINES) {
            int64_t r = row + i, c = column + threadIdx.x;
            if (c < t.columns && r < t.rows)
                store1(t.dst, to + r * t.dst_row + c, t.dst_type, tile[threadIdx.x][i]);
        }
        __syncthreads();
    }
}

/* The dimension along which the source is contiguous, if it is another than the last and the
 * destination is contiguous along that; else -1. */
static int turn_dimension(const struct walk *w)
{
    if (w->stride[1][3] != 1 || w->stride[0][3] == 1 || w->stride[0][3] == 0 || w->shape[3] < 4)
        return -1;
    for (int d = 2; d >= 0; --d) {
        if (w->stride[0][d] == 1 && w->shape[d] >= 4)
            return d;
    }
    return -1;
}

static int turn_launch(const struct walk *w, int along, void *stream)
{
    struct turn t = {};
    t.src = w->data[0];
    t.dst = w->data[1];
    t.src_type = w->type[0];
    t.dst_type = w->type[1];
    t.rows = w->shape[along];
    t.columns = w->shape[3];
    t.src_column = w->stride[0][3];
    t.dst_row = w->stride[1][along];
    for (int d = 0, i = 0; d < 3; ++d) {
        if (d == along)
            continue;
        t.batch[i] = w->shape[d];
        t.src_batch[i] = w->stride[0][d];
        t.dst_batch[i++] = w->stride[1][d];
    }
    const int64_t tiles = ((t.rows + TILE - 1) / TILE) * ((t.columns + TILE - 1) / TILE);
    const int64_t batch = t.batch[0] * t.batch[1];
    if (tiles > INT32_MAX)
        return cudaErrorInvalidValue;
    dim3 grid((unsigned)tiles, (unsigned)(batch < 65535 ? batch : 65535));
    turn_kernel<<<grid, dim3(TILE, LINES), 0, (cudaStream_t)stream>>>(t);
    return (int)cudaGetLastError();
}

extern "C" int kernel_copy(const attn_tensor *src, const attn_tensor *dst, void *stream)
{
    struct walk w = {};
    walk_open(&w, 1, &src, dst);
    if (!tensor_count(dst))
        return 0;
    const int along = turn_dimension(&w);
    return along < 0 ? walk_copy(&w, stream) : turn_launch(&w, along, stream);
}
