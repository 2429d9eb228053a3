/* A window is a microtile of queries against a tile of keys: what it may see, what is added to its
 * scores, and how queries enter and outputs leave. Needs pack.h and ROWS, the queries in it. */

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

static void window_band(const struct me_problem *p, const struct window *w, float *s)
{
    if (w->j0 - (w->i0 + w->rows - 1) >= p->lo && w->j0 + w->keys - 1 - w->i0 <= p->hi)
        return;
    for (int64_t j = 0; j < w->keys; j++) {
        /* Key j is seen by rows [first, last). */
        int64_t at = w->j0 + j - w->i0;
        int64_t first = at > p->hi ? at - p->hi : 0;
        int64_t last = at < p->lo ? 0 : at - p->lo < w->rows ? at - p->lo + 1 : w->rows;
        for (int64_t r = 0; r < me_min(first, w->rows); r++)
            s[j * ROWS + r] = -INFINITY;
        for (int64_t r = last; r < w->rows; r++)
            s[j * ROWS + r] = -INFINITY;
    }
}

/* Bias, mask and band upon the scores of a window. */
static void window_edit(const struct me_problem *p, const struct window *w, float *s)
{
    if (p->bias.data)
        edit(s, ROWS, me_at(me_head(&p->bias, w->b, w->h, w->i0), 0, w->j0), w->rows, w->keys);
    if (p->mask.data)
        edit(s, ROWS, me_at(me_head(&p->mask, w->b, w->h, w->i0), 0, w->j0), w->rows, w->keys);
    if (p->band)
        window_band(p, w, s);
}

/* Writes out and lse of one microtile. Row sums become the factors. */
static void store_outputs(const struct me_problem *p, const struct window *w, const float *ot,
                          const float *max, float *sum)
{
    struct me_matrix lse = me_head(&p->lse, w->b, w->h, w->i0);
    for (int64_t r = 0; r < w->rows; r++) {
        if (lse.data)
            element_store(lse.data + r * lse.row, ME_F32,
                          sum[r] == 0.0f ? -INFINITY : max[r] + logf(sum[r]));
        sum[r] = sum[r] == 0.0f ? 0.0f : 1.0f / sum[r];
    }
    unpack(me_head(&p->out, w->b, w->h, w->i0), ot, ROWS, sum, w->rows, p->dv);
}

/* Keys that any of rows [i0, i1) may see, the first rounded down to a tile. */
static void key_range(const struct me_problem *p, int64_t i0, int64_t i1, int64_t *j0, int64_t *j1)
{
    *j0 = 0;
    *j1 = p->nk;
    if (!p->band)
        return;
    if (p->lo > -i0)
        *j0 = p->lo >= p->nk - i0 ? p->nk : (i0 + p->lo) / ME_KEYS * ME_KEYS;
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
