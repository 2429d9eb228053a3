/* Bias, mask and band upon the scores of a window that lie S[key][query]: a bias lies [query][key]
 * and is turned block by block.  Needs windows.h. */

/* s[j][r] += e[j][r], or for bytes: minus infinity where e[j][r] is negative; `keys` columns of a
 * block, each LANES queries. */
static ALWAYS_INLINE void edit_block(float *s, int64_t ld, const char *x, int64_t stride,
                                     enum me_type type, int64_t keys)
{
    vec e[LANES];
    vec_columns(x, stride, type, e);
    UNROLL
    for (int i = 0; i < LANES; i++) {
        float *at = s + i * ld;
        if (i < keys)
            vec_store(at, type == ME_BYTES ? vec_hide(vec_load(at), e[i])
                                           : vec_add(vec_load(at), e[i]));
    }
}

/* The same for a block that is ragged or whose columns are not adjacent. */
static void edit_ragged(float *s, int64_t ld, struct me_matrix x, int64_t rows, int64_t keys)
{
    _Alignas(64) char block[LANES * LANES * sizeof(float)];
    int64_t size = me_type_size(x.type);
    memset(block, x.type == ME_BYTES, sizeof block); /* what changes no score */
    for (int64_t r = 0; r < rows; r++) {
        char *to = block + r * LANES * size;
        if (x.col == size)
            memcpy(to, x.data + r * x.row, (size_t)(keys * size));
        else
            for (int64_t j = 0; j < keys; j++)
                memcpy(to + j * size, x.data + r * x.row + j * x.col, (size_t)size);
    }
    if (x.type == ME_F32)
        edit_block(s, ld, block, LANES * 4, ME_F32, keys);
    else if (x.type == ME_F16)
        edit_block(s, ld, block, LANES * 2, ME_F16, keys);
    else if (x.type == ME_BF16)
        edit_block(s, ld, block, LANES * 2, ME_BF16, keys);
    else
        edit_block(s, ld, block, LANES, ME_BYTES, keys);
}

static ALWAYS_INLINE void edit_typed(float *s, int64_t ld, struct me_matrix x, enum me_type type,
                                     int64_t rows, int64_t keys)
{
    for (int64_t j = 0; j < keys; j += LANES)
        for (int64_t r = 0; r < rows; r += LANES) {
            struct me_matrix at = me_at(x, r, j);
            if (keys - j < LANES || rows - r < LANES || x.col != me_type_size(type)) {
                edit_ragged(s + j * ld + r, ld, at, me_min(LANES, rows - r),
                            me_min(LANES, keys - j));
                continue;
            }
            edit_block(s + j * ld + r, ld, at.data, x.row, type, LANES);
        }
}

/* The same where x has one row for all queries. */
static void edit_broadcast(float *s, int64_t ld, struct me_matrix x, int64_t rows, int64_t keys)
{
    for (int64_t j = 0; j < keys; j++) {
        float e = element_load(x.data + j * x.col, x.type);
        if (x.type == ME_BYTES && e != 0.0f)
            continue;
        for (int64_t r = 0; r < rows; r++)
            s[j * ld + r] = x.type == ME_BYTES ? -INFINITY : s[j * ld + r] + e;
    }
}

/* Applies a bias, or a mask of bytes, to a tile of scores. */
static void edit(float *s, int64_t ld, struct me_matrix x, int64_t rows, int64_t keys)
{
    if (x.row == 0)
        edit_broadcast(s, ld, x, rows, keys);
    else if (x.type == ME_F32)
        edit_typed(s, ld, x, ME_F32, rows, keys);
    else if (x.type == ME_F16)
        edit_typed(s, ld, x, ME_F16, rows, keys);
    else if (x.type == ME_BF16)
        edit_typed(s, ld, x, ME_BF16, rows, keys);
    else
        edit_typed(s, ld, x, ME_BYTES, rows, keys);
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
