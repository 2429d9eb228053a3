/* What the parts of memory_efficient share: the problem after validation, and the table that each
 * instruction set fills. Nothing here is visible outside the plugin. */
#ifndef MEMORY_EFFICIENT_H
#define MEMORY_EFFICIENT_H

#include <stdint.h>

/* Keys that one task of the key-mass pass owns. */
#define ME_MASS_KEYS 512
/* Packed rows of V and packed groups of keys are this many floats wide. */
#define ME_GROUP 8

#define ALWAYS_INLINE inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum me_type { ME_F32, ME_F16, ME_BF16, ME_BYTES };

/* A tensor [batch][heads][rows][columns]; strides in elements, 0 where it is broadcast.
 * data is NULL when the call does not have it. */
struct me_view {
    char *data;
    int64_t stride[4];
    enum me_type type;
};

/* One head of a view; strides in bytes. */
struct me_matrix {
    char *data;
    int64_t row, col;
    enum me_type type;
};

struct me_problem {
    int64_t batch, heads, kv_heads; /* query head h reads KV head h / (heads / kv_heads) */
    int64_t nq, nk, d, dv;
    struct me_view q, k, v, out;
    struct me_view bias, mask; /* broadcast to [batch, heads, nq, nk]; mask: non-zero attends */
    struct me_view lse;        /* [batch, heads, nq, 1], fp32 */
    struct me_view mass;       /* [batch, 1, 1, nk], fp32 */
    int band;                  /* key j is seen by query i iff lo <= j - i <= hi */
    int64_t lo, hi;
    float scale;
    enum me_type
        products; /* the accuracy that is wanted of products: that of the inputs, or fp32 */
    int wants_mass;
    /* A head's queries are cut into blocks of nearly equal size, each the work of one attend task:
     * whole units of the kernels' rows, block_q at most. */
    int64_t blocks, unit, block_q;
};

struct me_kernels {
    const char *name;
    /* Whether this CPU and its operating system can run them. */
    int (*usable)(void);
    /* Queries that are worked on together: a block has a multiple of them. */
    int64_t rows;
    /* At most so many queries in a block, and so many bytes of their packed rows and outputs: more
     * make packing keys and values cheaper, fewer leave more of the cache to them. */
    int64_t block_rows, block_bytes;
    /* Bytes that one thread needs for the problem; scratch is aligned to 64. */
    uint64_t (*scratch)(const struct me_problem *p);
    /* Both return 0, with nothing written, for data that these kernels leave to others.
     * One block of queries of one head: out, and lse where present.
     * Task t is block t % blocks of head t / blocks. */
    int (*attend)(const struct me_problem *p, int64_t task, void *scratch);
    /* Key mass of keys [tile * ME_MASS_KEYS, ...) of one batch entry, from p->lse. */
    int (*mass)(const struct me_problem *p, int64_t task, void *scratch);
    /* With fewer keys the fallback is faster. */
    int64_t least_keys;
    /* Kernels for such data; NULL where there is none. Its rows divide these. */
    const struct me_kernels *fallback;
};

/* A thread's scratch, as tiles.h lays it out. */
struct tile_memory {
    float *qt;        /* packed queries, [microtiles] */
    float *ot;        /* O' [microtiles][dv rounded up to ME_GROUP][rows] */
    float *max, *sum; /* [microtiles][rows] */
    float *kp, *vp;   /* packed keys and values */
    float *room;      /* the products' own */
    float *part;      /* [ME_MASS_KEYS][lanes], key-mass pass only */
    double *mass;     /* [ME_MASS_KEYS], key-mass pass only */
    int refused;      /* the products cannot take this data */
};

extern const struct me_kernels memory_efficient_c;
extern const struct me_kernels memory_efficient_avx2;
extern const struct me_kernels memory_efficient_avx512;
extern const struct me_kernels memory_efficient_amx;

static inline int64_t me_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t me_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t me_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static inline int64_t me_round_up(int64_t a, int64_t b)
{
    return me_ceil_div(a, b) * b;
}

/* The first query of a block; of block p->blocks, the end. */
static inline int64_t me_block_begin(const struct me_problem *p, int64_t block)
{
    return me_min(p->nq, block * me_ceil_div(p->nq, p->unit) / p->blocks * p->unit);
}

static inline int64_t me_type_size(enum me_type type)
{
    return type == ME_F32 ? 4 : type == ME_BYTES ? 1 : 2;
}

/* The rows from `row` on of one head of a view. */
static inline struct me_matrix me_head(const struct me_view *view, int64_t b, int64_t h,
                                       int64_t row)
{
    int64_t size = me_type_size(view->type);
    struct me_matrix m = {view->data, view->stride[2] * size, view->stride[3] * size, view->type};
    if (m.data)
        m.data += (b * view->stride[0] + h * view->stride[1] + row * view->stride[2]) * size;
    return m;
}

static inline struct me_matrix me_at(struct me_matrix m, int64_t row, int64_t col)
{
    if (m.data)
        m.data += row * m.row + col * m.col;
    return m;
}

#endif
