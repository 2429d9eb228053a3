/* Both products with fused multiply-adds on fp32, for tiles.h; scores are transposed,
 * S[key][query]:
 *
 *   S = K Q'    for each group of keys: broadcast K, multiply with a row of Q' [column][query]
 *   O' += V' P  for each group of columns: broadcast V, multiply with a row of P
 *
 * Neither pads the head dimension, and K and V are only read one element at a time.  The including
 * file defines GROUP, the keys or columns of a group, such that NV * GROUP accumulators fit the
 * registers. */

#define ROWS (NV * LANES)
/* Keys in a tile. */
#define ME_KEYS 128

#include "pack.h"
#include "unpack.h"
#include "vectors.h"
#include "windows.h"

#include "edit.h"
#include "fetch.h"

/* Columns of Q' that fit the first-level cache beside a tile of scores. */
#define CHUNK 96

static int64_t tile_keys(const struct me_problem *p)
{
    (void)p;
    return ME_KEYS;
}

static int64_t query_floats(const struct me_problem *p)
{
    return p->d;
}

static int64_t key_floats(const struct me_problem *p)
{
    return p->d;
}

/* A group of columns of V, packed, and a line more: else the same row of every group would lie in
 * the same set of the cache. */
#define VALUE_STEP (ME_KEYS * ME_GROUP + 16)

static int64_t value_floats(const struct me_problem *p)
{
    return me_ceil_div(me_ceil_div(p->dv, ME_GROUP) * VALUE_STEP, ME_KEYS);
}

static int64_t output_floats(const struct me_problem *p)
{
    return me_round_up(p->dv, ME_GROUP);
}

/* Room: scores of a microtile, [ME_KEYS][ROWS], and its alpha, [ROWS]. */
static int64_t room_floats(const struct me_problem *p)
{
    (void)p;
    return (ME_KEYS + 1) * ROWS;
}

/* Q' [column][ROWS], scaled; lanes past the last query are zero. */
static void pack_queries(const struct me_problem *p, struct tile_memory *m, struct me_matrix q,
                         int64_t rows, float *qt)
{
    (void)m;
    if (rows < ROWS)
        memset(qt, 0, (size_t)(p->d * ROWS) * sizeof *qt);
    transpose(qt, ROWS, q, rows, p->d, p->scale);
}

/* kp[key / 8][column][key % 8]; keys up to the next multiple of 8 are zero. */
static void pack_key_groups(float *kp, struct me_matrix k, int64_t keys, int64_t d)
{
    for (int64_t j = 0; j < keys; j += ME_GROUP) {
        int64_t n = me_min(ME_GROUP, keys - j);
        if (n < ME_GROUP)
            memset(kp + j * d, 0, (size_t)(d * ME_GROUP) * sizeof *kp);
        transpose(kp + j * d, ME_GROUP, me_at(k, j, 0), n, d, 1.0f);
    }
}

/* Row by row, so that V is read in the order in which it lies. */
static ALWAYS_INLINE void pack_values_typed(float *vp, struct me_matrix v, enum me_type type,
                                            int64_t keys, int64_t dv)
{
    for (int64_t j = 0; j < keys; j++, vp += ME_GROUP) {
        const char *src = v.data + j * v.row;
        float *dst = vp;
        int64_t c = 0;
        for (; c + ME_GROUP <= dv && v.col == me_type_size(type); c += ME_GROUP, dst += VALUE_STEP)
            v8_store((char *)dst, ME_F32, v8_load(src + c * v.col, type));
        for (; c < dv; c += ME_GROUP, dst += VALUE_STEP)
            for (int64_t i = 0; i < ME_GROUP; i++)
                dst[i] = c + i < dv ? element_load(src + (c + i) * v.col, type) : 0.0f;
    }
}

/* vp[column / 8][key][column % 8]; columns up to the next multiple of 8 are zero. */
static void pack_value_groups(float *vp, struct me_matrix v, int64_t keys, int64_t dv)
{
    if (v.type == ME_F32)
        pack_values_typed(vp, v, ME_F32, keys, dv);
    else if (v.type == ME_F16)
        pack_values_typed(vp, v, ME_F16, keys, dv);
    else
        pack_values_typed(vp, v, ME_BF16, keys, dv);
}

static void pack_keys(const struct me_problem *p, struct tile_memory *m, struct me_matrix k,
                      int64_t keys, float *kp)
{
    (void)m;
    pack_key_groups(kp, k, keys, p->d);
}

static void pack_values(const struct me_problem *p, struct tile_memory *m, struct me_matrix v,
                        int64_t keys)
{
    pack_value_groups(m->vp, v, keys, p->dv);
}

/* What the next window and the next tile need. */
struct fetches {
    struct fetch window, tile;
};

static ALWAYS_INLINE void fetches_share(struct fetches *f)
{
    fetch_share(&f->window);
    fetch_share(&f->tile);
}

/* Pieces of a window's work. */
static int64_t window_pieces(const struct me_problem *p, int64_t keys)
{
    return me_ceil_div(p->d, CHUNK) * me_ceil_div(keys, ME_GROUP) + me_ceil_div(p->dv, ME_GROUP);
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
                                      int64_t keys, float *s, struct fetches *next)
{
    int64_t chunks = me_ceil_div(d, CHUNK);
    int64_t step = chunks ? me_ceil_div(d, chunks) : 0;
    if (d == 0)
        memset(s, 0, (size_t)me_round_up(keys, ME_GROUP) * ROWS * sizeof *s);
    for (int64_t c = 0; c < d; c += step)
        for (int64_t j = 0; j < keys; j += ME_GROUP) {
            fetches_share(next);
            for (int64_t g = 0; g < ME_GROUP; g += GROUP)
                scores_group(nv, qt + c * ROWS, kp + j * d + c * ME_GROUP + g, me_min(step, d - c),
                             s + (j + g) * ROWS, c > 0);
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

/* S of a tile; s has room for keys up to the next multiple of ME_GROUP. */
static void scores(const struct me_problem *p, int nv, const float *qt, const float *kp,
                   int64_t keys, float *s, struct fetches *next)
{
    EACH_WIDTH(nv, scores_tile(W, qt, kp, p->d, keys, s, next));
}

/* S becomes P, then O' of the microtile follows. */
static void softmax_output(const struct me_problem *p, int nv, struct tile_memory *m, int64_t keys,
                           float *max, float *sum, float *ot, struct fetches *next)
{
    int64_t dv = me_round_up(p->dv, ME_GROUP);
    float *s = m->room, *alpha = m->room + ME_KEYS * ROWS;
    EACH_WIDTH(nv, softmax_tile(W, s, keys, max, sum, alpha));
    for (int64_t c = 0; c < dv; c += ME_GROUP) {
        fetches_share(next);
        for (int64_t g = 0; g < ME_GROUP; g += GROUP)
            EACH_WIDTH(nv, output_group(W, s, m->vp + c / ME_GROUP * VALUE_STEP + g, keys, alpha,
                                        ot + (c + g) * ROWS));
    }
}

/* Writes out and lse of one microtile. */
static void store_outputs(const struct me_problem *p, const struct window *w, const float *ot,
                          const float *max, float *sum)
{
    finish_rows(p, w, max, sum);
    unpack(me_head(&p->out, w->b, w->h, w->i0), ot, ROWS, sum, w->rows, p->dv);
}

static void mass_add(int nv, const float *s, int64_t keys, const float *lse, float *part)
{
    EACH_WIDTH(nv, mass_tile(W, s, keys, lse, part));
}

/* Keys and values of the tile. */
static void fetch_tile(struct fetch *f, const struct me_problem *p, const struct window *w,
                       int64_t pieces)
{
    int64_t kv_head = w->h / (p->heads / p->kv_heads);
    *f = (struct fetch){0};
    fetch_add(f, 0, me_head(&p->k, w->b, kv_head, w->j0), w->keys, p->d);
    fetch_add(f, 1, me_head(&p->v, w->b, kv_head, w->j0), w->keys, p->dv);
    fetch_cut(f, pieces);
}

/* What the queries of each lane gave to a key's mass. */
static float mass_of(const struct tile_memory *m, int64_t key)
{
    return vec_sum(vec_load(m->part + key * LANES));
}

/* One tile of keys, packed, against queries [first, last). */
static void block_tile(const struct me_problem *p, struct window *w, int64_t first, int64_t last,
                       struct tile_memory *m)
{
    int64_t dv = me_round_up(p->dv, ME_GROUP), pieces = window_pieces(p, w->keys);
    struct window after = window_after(p, w, first, last);
    struct fetches next;
    fetch_tile(&next.tile, p, &after, pieces * me_ceil_div(last - first, ROWS));
    for (w->i0 = first; w->i0 < last; w->i0 += ROWS) {
        int64_t at = w->i0 - first;
        w->rows = me_min(ROWS, last - w->i0);
        if (window_hidden(p, w))
            continue;
        struct window below = *w;
        below.i0 += ROWS;
        below.rows = me_min(ROWS, last - below.i0);
        fetch_window(&next.window, p, below.rows > 0 ? &below : &after, pieces);
        int nv = (int)me_ceil_div(w->rows, LANES);
        scores(p, nv, m->qt + at * query_floats(p), m->kp, w->keys, m->room, &next);
        window_edit(p, w, m->room);
        softmax_output(p, nv, m, w->keys, m->max + at, m->sum + at, m->ot + at * dv, &next);
    }
}

/* All queries of a head against packed keys from j0. */
static void mass_windows(const struct me_problem *p, struct window *w, int64_t j0, int64_t keys,
                         struct tile_memory *m)
{
    struct fetches none = {0};
    for (w->i0 = 0; w->i0 < p->nq; w->i0 += ROWS) {
        int loaded = 0;
        w->rows = me_min(ROWS, p->nq - w->i0);
        load_lse(p, w, m->max);
        for (int64_t j = 0; j < keys; j += ME_KEYS) {
            w->j0 = j0 + j;
            w->keys = me_min(ME_KEYS, keys - j);
            if (window_hidden(p, w))
                continue;
            if (!loaded++)
                pack_queries(p, m, me_head(&p->q, w->b, w->h, w->i0), w->rows, m->qt);
            int nv = (int)me_ceil_div(w->rows, LANES);
            scores(p, nv, m->qt, m->kp + j * key_floats(p), w->keys, m->room, &none);
            window_edit(p, w, m->room);
            mass_add(nv, m->room, w->keys, m->max, m->part + j * LANES);
        }
    }
}
