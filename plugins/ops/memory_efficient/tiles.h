/* The algorithm, written once and compiled for each instruction set.
 *
 * Scores are kept transposed, S[key][query], so that queries lie in the lanes of a vector:
 *   S = K Q'    for each group of keys: broadcast K, multiply with a row of Q' [column][query]
 *   P, max, sum need no operation across lanes
 *   O' += V' P  for each group of columns: broadcast V, multiply with a row of P
 * Neither product pads the head dimension, and K and V are only read one element at a time.
 *
 * The including file defines vec, LANES, NV, vec_load, vec_store, vec_set1, vec_add, vec_sub,
 * vec_mul, vec_fma(a, b, c) = a b + c, vec_max(a, b) (b if a is NaN), vec_exp, vec_shield(x) (0
 * where x is minus infinity, else x), vec_sum, GROUP, KERNELS, KERNELS_NAME, and what pack.h
 * wants. A microtile is ROWS = NV * LANES queries wide; NV * GROUP accumulators live in registers.
 */

#define ROWS (NV * LANES)

#include "pack.h"
#include "windows.h"

/* Columns of Q' that fit the first-level cache beside a tile of scores. */
#ifndef CHUNK
#define CHUNK 96
#endif

struct tile_memory {
    float *qt;        /* [microtiles][d][ROWS] */
    float *ot;        /* [microtiles][dv rounded up][ROWS] */
    float *max, *sum; /* [microtiles][ROWS] */
    float *alpha;     /* [ROWS] */
    float *s;         /* [ME_KEYS][ROWS] */
    float *kp, *vp;   /* see pack.h */
    float *part;      /* [ME_MASS_KEYS][LANES], key-mass pass only */
    double *mass;     /* [ME_MASS_KEYS], key-mass pass only */
};

static float *carve(char **at, int64_t floats)
{
    float *p = (float *)*at;
    *at += me_round_up(floats * 4, 64);
    return p;
}

static uint64_t memory_attend(const struct me_problem *p, char *base, struct tile_memory *m)
{
    int64_t dv = me_round_up(p->dv, ME_GROUP);
    char *at = base;
    m->qt = carve(&at, p->block_q * p->d);
    m->ot = carve(&at, p->block_q * dv);
    m->max = carve(&at, p->block_q);
    m->sum = carve(&at, p->block_q);
    m->alpha = carve(&at, ROWS);
    m->s = carve(&at, ME_KEYS * ROWS);
    m->kp = carve(&at, ME_KEYS * p->d);
    m->vp = carve(&at, ME_KEYS * dv);
    return (uint64_t)(at - base);
}

static uint64_t memory_mass(const struct me_problem *p, char *base, struct tile_memory *m)
{
    char *at = base;
    m->qt = carve(&at, ROWS * p->d);
    m->max = carve(&at, ROWS);
    m->s = carve(&at, ME_KEYS * ROWS);
    m->kp = carve(&at, ME_MASS_KEYS * p->d);
    m->part = carve(&at, ME_MASS_KEYS * LANES);
    m->mass = (double *)carve(&at, ME_MASS_KEYS * 2);
    return (uint64_t)(at - base);
}

static uint64_t tiles_scratch(const struct me_problem *p)
{
    struct tile_memory unused = {0};
    uint64_t need = memory_attend(p, NULL, &unused);
    if (p->wants_mass) {
        uint64_t mass = memory_mass(p, NULL, &unused);
        need = mass > need ? mass : need;
    }
    return need;
}

/* GROUP rows of scores from `d` columns; kp and qt advance by a row per column. */
static ALWAYS_INLINE void scores_group(int nv, const float *qt, const float *kp, int64_t d,
                                       float *s, int add)
{
    vec acc[GROUP][NV];
    UNROLL
    for (int i = 0; i < GROUP; i++)
        UNROLL
    for (int v = 0; v < nv; v++)
        acc[i][v] = vec_set1(0.0f);
    for (int64_t c = 0; c < d; c++, qt += ROWS, kp += ME_GROUP) {
        vec q[NV];
        UNROLL
        for (int v = 0; v < nv; v++)
            q[v] = vec_load(qt + v * LANES);
        UNROLL
        for (int i = 0; i < GROUP; i++) {
            vec k = vec_set1(kp[i]);
            UNROLL
            for (int v = 0; v < nv; v++)
                acc[i][v] = vec_fma(k, q[v], acc[i][v]);
        }
    }
    UNROLL
    for (int i = 0; i < GROUP; i++)
        UNROLL
    for (int v = 0; v < nv; v++) {
        float *at = s + i * ROWS + v * LANES;
        vec_store(at, add ? vec_add(vec_load(at), acc[i][v]) : acc[i][v]);
    }
}

/* s[key][query] for a tile; kp and s hold keys rounded up to ME_GROUP. */
static ALWAYS_INLINE void scores_tile(int nv, const float *qt, const float *kp, int64_t d,
                                      int64_t keys, float *s)
{
    int64_t chunks = me_ceil_div(d, CHUNK);
    int64_t step = chunks ? me_ceil_div(d, chunks) : 0;
    if (d == 0)
        memset(s, 0, (size_t)me_round_up(keys, ME_GROUP) * ROWS * sizeof *s);
    for (int64_t c = 0; c < d; c += step)
        for (int64_t j = 0; j < keys; j += ME_GROUP)
            for (int64_t g = 0; g < ME_GROUP; g += GROUP)
                scores_group(nv, qt + c * ROWS, kp + j * d + c * ME_GROUP + g, me_min(step, d - c),
                             s + (j + g) * ROWS, c > 0);
}

/* Scores become exp(s - max); max, sum and alpha, the factor for what was summed before, follow. */
static ALWAYS_INLINE void softmax_tile(int nv, float *s, int64_t keys, float *max, float *sum,
                                       float *alpha)
{
    vec top[NV], total[NV];
    UNROLL
    for (int v = 0; v < nv; v++) {
        top[v] = vec_load(max + v * LANES);
        total[v] = vec_set1(0.0f);
    }
    for (int64_t j = 0; j < keys; j++)
        UNROLL
    for (int v = 0; v < nv; v++)
        top[v] = vec_max(vec_load(s + j * ROWS + v * LANES), top[v]);
    UNROLL
    for (int v = 0; v < nv; v++) {
        vec old = vec_load(max + v * LANES);
        vec_store(max + v * LANES, top[v]);
        top[v] = vec_shield(top[v]);
        vec_store(alpha + v * LANES, vec_exp(vec_sub(old, top[v])));
    }
    for (int64_t j = 0; j < keys; j++)
        UNROLL
    for (int v = 0; v < nv; v++) {
        float *at = s + j * ROWS + v * LANES;
        vec e = vec_exp(vec_sub(vec_load(at), top[v]));
        vec_store(at, e);
        total[v] = vec_add(total[v], e);
    }
    UNROLL
    for (int v = 0; v < nv; v++) {
        float *at = sum + v * LANES;
        vec_store(at, vec_fma(vec_load(at), vec_load(alpha + v * LANES), total[v]));
    }
}

/* GROUP rows of O': ot = ot * alpha + V' P. The tile's own sum starts at zero, which keeps the
 * rounding of long rows small; the factor then costs nothing, whether or not a maximum grew. */
static ALWAYS_INLINE void output_group(int nv, const float *s, const float *vp, int64_t keys,
                                       const float *alpha, float *ot)
{
    vec acc[GROUP][NV];
    UNROLL
    for (int i = 0; i < GROUP; i++)
        UNROLL
    for (int v = 0; v < nv; v++)
        acc[i][v] = vec_set1(0.0f);
    for (int64_t j = 0; j < keys; j++, s += ROWS, vp += ME_GROUP) {
        vec e[NV];
        UNROLL
        for (int v = 0; v < nv; v++)
            e[v] = vec_load(s + v * LANES);
        UNROLL
        for (int i = 0; i < GROUP; i++) {
            vec x = vec_set1(vp[i]);
            UNROLL
            for (int v = 0; v < nv; v++)
                acc[i][v] = vec_fma(x, e[v], acc[i][v]);
        }
    }
    UNROLL
    for (int i = 0; i < GROUP; i++)
        UNROLL
    for (int v = 0; v < nv; v++) {
        float *at = ot + i * ROWS + v * LANES;
        vec_store(at, vec_fma(vec_load(at), vec_load(alpha + v * LANES), acc[i][v]));
    }
}

/* exp(s - lse), summed over the queries of each lane into part[key][lane]. */
static ALWAYS_INLINE void mass_tile(int nv, const float *s, int64_t keys, const float *lse,
                                    float *part)
{
    vec norm[NV];
    UNROLL
    for (int v = 0; v < nv; v++)
        norm[v] = vec_load(lse + v * LANES);
    for (int64_t j = 0; j < keys; j++) {
        vec sum = vec_load(part + j * LANES);
        UNROLL
        for (int v = 0; v < nv; v++)
            sum = vec_add(sum, vec_exp(vec_sub(vec_load(s + j * ROWS + v * LANES), norm[v])));
        vec_store(part + j * LANES, sum);
    }
}

/* Instances for each width of the last microtile. */
#define EACH_WIDTH(nv, call)                                                                       \
    do {                                                                                           \
        if ((nv) == 1) {                                                                           \
            enum { W = 1 };                                                                        \
            call;                                                                                  \
        } else if ((nv) == 2) {                                                                    \
            enum { W = NV < 2 ? NV : 2 };                                                          \
            call;                                                                                  \
        } else {                                                                                   \
            enum { W = NV };                                                                       \
            call;                                                                                  \
        }                                                                                          \
    } while (0)

static void scores(int nv, const float *qt, const float *kp, int64_t d, int64_t keys, float *s)
{
    EACH_WIDTH(nv, scores_tile(W, qt, kp, d, keys, s));
}

static void softmax(int nv, float *s, int64_t keys, float *max, float *sum, float *alpha)
{
    EACH_WIDTH(nv, softmax_tile(W, s, keys, max, sum, alpha));
}

static void output(int nv, const float *s, const float *vp, int64_t keys, int64_t dv,
                   const float *alpha, float *ot)
{
    for (int64_t c = 0; c < dv; c += ME_GROUP)
        for (int64_t g = 0; g < ME_GROUP; g += GROUP)
            EACH_WIDTH(nv,
                       output_group(W, s, vp + c * ME_KEYS + g, keys, alpha, ot + (c + g) * ROWS));
}

static void mass_add(int nv, const float *s, int64_t keys, const float *lse, float *part)
{
    EACH_WIDTH(nv, mass_tile(W, s, keys, lse, part));
}

/* Scores of a window with bias, mask and band. */
static void window_scores(const struct me_problem *p, const struct window *w, const float *qt,
                          const float *kp, float *s)
{
    int nv = (int)me_ceil_div(w->rows, LANES);
    scores(nv, qt, kp, p->d, w->keys, s);
    window_edit(p, w, s);
}

static void tiles_attend(const struct me_problem *p, int64_t task, void *scratch)
{
    struct tile_memory m;
    memory_attend(p, scratch, &m);
    int64_t dv = me_round_up(p->dv, ME_GROUP), blocks = me_blocks(p), head = task / blocks;
    int64_t first = task % blocks * p->block_q, last = me_min(first + p->block_q, p->nq);
    struct window w = {.b = head / p->heads, .h = head % p->heads};
    int64_t kv_head = w.h / (p->heads / p->kv_heads);
    struct me_matrix k = me_head(&p->k, w.b, kv_head, 0), v = me_head(&p->v, w.b, kv_head, 0);

    for (w.i0 = first; w.i0 < last; w.i0 += ROWS) {
        w.rows = me_min(ROWS, last - w.i0);
        load_queries(p, &w, m.qt + (w.i0 - first) * p->d);
    }
    memset(m.ot, 0, (size_t)(p->block_q * dv) * sizeof *m.ot);
    for (int64_t i = 0; i < p->block_q; i++) {
        m.max[i] = -INFINITY;
        m.sum[i] = 0.0f;
    }
    int64_t end;
    key_range(p, first, last, &w.j0, &end);
    for (; w.j0 < end; w.j0 += ME_KEYS) {
        w.keys = me_min(ME_KEYS, p->nk - w.j0);
        pack_keys(m.kp, me_at(k, w.j0, 0), w.keys, p->d);
        pack_values(m.vp, me_at(v, w.j0, 0), w.keys, p->dv);
        for (w.i0 = first; w.i0 < last; w.i0 += ROWS) {
            int64_t at = w.i0 - first;
            w.rows = me_min(ROWS, last - w.i0);
            if (window_hidden(p, &w))
                continue;
            int nv = (int)me_ceil_div(w.rows, LANES);
            window_scores(p, &w, m.qt + at * p->d, m.kp, m.s);
            softmax(nv, m.s, w.keys, m.max + at, m.sum + at, m.alpha);
            output(nv, m.s, m.vp, w.keys, dv, m.alpha, m.ot + at * dv);
        }
    }
    for (w.i0 = first; w.i0 < last; w.i0 += ROWS) {
        w.rows = me_min(ROWS, last - w.i0);
        store_outputs(p, &w, m.ot + (w.i0 - first) * dv, m.max + (w.i0 - first),
                      m.sum + (w.i0 - first));
    }
}

/* Adds one head's part of the mass of `keys` keys from j0. */
static void mass_head(const struct me_problem *p, struct window *w, int64_t j0, int64_t keys,
                      const struct tile_memory *m)
{
    int64_t kv_head = w->h / (p->heads / p->kv_heads);
    struct me_matrix k = me_head(&p->k, w->b, kv_head, j0);
    memset(m->part, 0, (size_t)(keys * LANES) * sizeof *m->part);
    pack_keys(m->kp, k, keys, p->d);
    for (w->i0 = 0; w->i0 < p->nq; w->i0 += ROWS) {
        w->rows = me_min(ROWS, p->nq - w->i0);
        load_lse(p, w, m->max);
        int loaded = 0;
        for (int64_t j = 0; j < keys; j += ME_KEYS) {
            w->j0 = j0 + j;
            w->keys = me_min(ME_KEYS, keys - j);
            if (window_hidden(p, w))
                continue;
            if (!loaded++)
                load_queries(p, w, m->qt);
            window_scores(p, w, m->qt, m->kp + j * p->d, m->s);
            mass_add((int)me_ceil_div(w->rows, LANES), m->s, w->keys, m->max, m->part + j * LANES);
        }
    }
    for (int64_t j = 0; j < keys; j++)
        m->mass[j] += (double)vec_sum(vec_load(m->part + j * LANES));
}

static void tiles_mass(const struct me_problem *p, int64_t task, void *scratch)
{
    struct tile_memory m;
    memory_mass(p, scratch, &m);
    int64_t tiles = me_ceil_div(p->nk, ME_MASS_KEYS);
    int64_t j0 = task % tiles * ME_MASS_KEYS, keys = me_min(ME_MASS_KEYS, p->nk - j0);
    struct window w = {.b = task / tiles};
    for (int64_t j = 0; j < keys; j++)
        m.mass[j] = 0.0;
    for (w.h = 0; w.h < p->heads; w.h++)
        mass_head(p, &w, j0, keys, &m);
    struct me_matrix out = me_at(me_head(&p->mass, w.b, 0, 0), 0, j0);
    for (int64_t j = 0; j < keys; j++)
        element_store(out.data + j * out.col, ME_F32,
                      (float)(p->heads ? m.mass[j] / (double)p->heads : 0.0));
}

const struct me_kernels KERNELS = {
    .name = KERNELS_NAME,
    .usable = kernels_usable,
    .rows = ROWS,
    .scratch = tiles_scratch,
    .attend = tiles_attend,
    .mass = tiles_mass,
};
