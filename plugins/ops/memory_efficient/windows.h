/* A window is a microtile of queries against a tile of keys: what it may see, and which come after
 * it. Needs pack.h and ROWS, the queries in it. */

/* Keys in a tile, ME_KEYS at most.  It depends on the problem alone, and tiles start at multiples
 * of it, so that a row's rounding depends neither on the number of threads nor on how queries are
 * cut into blocks. */
static int64_t tile_keys(const struct me_problem *p);

/* A microtile against a tile of keys: `rows` queries from i0, `keys` keys from j0. */
struct window {
    int64_t b, h, i0, rows, j0, keys;
};

/* Whether the band leaves the window no pair at all. */
static int window_hidden(const struct me_problem *p, const struct window *w)
{
    return p->band &&
           (w->j0 + w->keys - 1 - w->i0 < p->lo || w->j0 - (w->i0 + w->rows - 1) > p->hi);
}

/* The first window of a block in the tile after w's; no keys after the last. */
static struct window window_after(const struct me_problem *p, const struct window *w, int64_t first,
                                  int64_t last)
{
    struct window next = *w;
    next.i0 = first;
    next.rows = me_min(ROWS, last - first);
    next.j0 += tile_keys(p);
    next.keys = me_max(0, me_min(tile_keys(p), p->nk - next.j0));
    return next;
}

/* Writes lse of one microtile; row sums become the factors of its outputs. */
static void finish_rows(const struct me_problem *p, const struct window *w, const float *max,
                        float *sum)
{
    struct me_matrix lse = me_head(&p->lse, w->b, w->h, w->i0);
    for (int64_t r = 0; r < w->rows; r++) {
        if (lse.data)
            element_store(lse.data + r * lse.row, ME_F32,
                          sum[r] == 0.0f ? -INFINITY : max[r] + logf(sum[r]));
        sum[r] = sum[r] == 0.0f ? 0.0f : 1.0f / sum[r];
    }
}

/* Keys that any of rows [i0, i1) may see, the first rounded down to a tile. */
static void key_range(const struct me_problem *p, int64_t i0, int64_t i1, int64_t *j0, int64_t *j1)
{
    const int64_t tile = tile_keys(p);
    *j0 = 0;
    *j1 = p->nk;
    if (!p->band)
        return;
    if (p->lo > -i0)
        *j0 = p->lo >= p->nk - i0 ? p->nk : (i0 + p->lo) / tile * tile;
    if (p->hi < p->nk - i1)
        *j1 = p->hi < -i1 ? 0 : i1 + p->hi;
}

/* Row maxima for the key-mass pass: lse, but plus infinity for a row that sees nothing and for a
 * lane past the last row, which must add nothing. */
static void load_lse(const struct me_problem *p, const struct window *w, float *lse)
{
    struct me_matrix m = me_head(&p->lse, w->b, w->h, w->i0);
    for (int64_t r = 0; r < ROWS; r++) {
        float x = r < w->rows ? element_load(m.data + r * m.row, ME_F32) : INFINITY;
        lse[r] = x == -INFINITY ? INFINITY : x;
    }
}
