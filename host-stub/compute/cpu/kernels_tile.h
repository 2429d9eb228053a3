/* kernels_tile.h: the matrix product: one tile, and few rows.  Part of kernels_body.h. */

/* One vector of y: columns [first, first + n) of row r, n <= LANES. */
INLINE void tile_store_vec(const struct tile *t, vec v, int r, int first, int64_t n,
                           enum activation act)
{
    float *y = t->y[r] + first;
    v = vec_activate(act, v) * t->alpha;
    if (n >= LANES) {
        if (t->c)
            v += t->beta * vec_load(t->c[r] + first);
        vec_store(y, v);
    } else if (n > 0) {
        if (t->c)
            v += t->beta * vec_part(t->c[r] + first, n);
        vec_store_part(y, v, n);
    }
}

/* What becomes of the sums; act is a constant wherever this is inlined. */
INLINE void tile_store(const struct tile *t, const float *sum, int rows, const int vectors,
                       enum activation act)
{
    const vec b0 = vec_load(t->bias), b1 = vectors == 2 ? vec_load(t->bias + LANES) : b0;
    for (int r = 0; r < rows; ++r) {
        const float *row = sum + (ptrdiff_t)r * vectors * LANES;
        tile_store_vec(t, vec_load(row) + b0, r, 0, t->columns, act);
        if (vectors == 2)
            tile_store_vec(t, vec_load(row + LANES) + b1, r, LANES, t->columns - LANES, act);
    }
}

static void tile_store_gated(const struct tile *t, const float *sum)
{
    const vec b0 = vec_load(t->bias), b1 = vec_load(t->bias + LANES);
    for (int r = 0; r < t->rows; ++r) {
        const float *row = sum + (ptrdiff_t)r * WIDTH;
        vec v = (vec_load(row) + b0) * vec_gelu(vec_load(row + LANES) + b1);
        vec_store_part(t->y[r], v, t->columns);
    }
}

static void tile_store_activated(const struct tile *t, const float *sum, int vectors)
{
    if (vectors == 2 && t->activation == ACT_SILU)
        tile_store(t, sum, t->rows, 2, ACT_SILU);
    else if (vectors == 2)
        tile_store(t, sum, t->rows, 2, t->activation);
    else
        tile_store(t, sum, t->rows, 1, t->activation);
}

static void tile_finish(const struct tile *t, const float *sum, int vectors)
{
    if (vectors == 2 && t->gated)
        tile_store_gated(t, sum);
    else if (t->activation != ACT_NONE)
        tile_store_activated(t, sum, vectors);
    else
        tile_store(t, sum, t->rows, vectors, ACT_NONE);
}

/* rows and vectors are constants at each place where this is inlined, so that the sums live in
 * registers.  Two depths at a time: row pointers are loaded half as often. */
INLINE void tile_body(const struct tile *t, const int rows, const int vectors)
{
    vec sum[TILE_ROWS][2];
    UNROLL for (int r = 0; r < rows; ++r)
    {
        sum[r][0] = (vec){0};
        sum[r][1] = (vec){0};
    }
    const float *w = t->panel;
    for (int s = 0; s < t->segments; ++s) {
        const float *const *x = t->x + (ptrdiff_t)s * TILE_ROWS_MAX;
        const int64_t depth = t->depth[t->parts == 2 ? s & 1 : 0];
        int64_t k = 0;
        for (; k + 2 <= depth; k += 2, w += 2 * vectors * LANES) {
            __builtin_prefetch(w + 12 * WIDTH);
            __builtin_prefetch(w + 12 * WIDTH + 16);
            __builtin_prefetch(w + 13 * WIDTH);
            __builtin_prefetch(w + 13 * WIDTH + 16);
            vec a0 = vec_load(w), b0 = vec_load(w + vectors * LANES);
            vec a1, b1;
            if (vectors == 2) {
                a1 = vec_load(w + LANES);
                b1 = vec_load(w + 3 * LANES);
            }
            UNROLL for (int r = 0; r < rows; ++r)
            {
                const float *xr = x[r] + k;
                sum[r][0] += xr[0] * a0;
                if (vectors == 2)
                    sum[r][1] += xr[0] * a1;
                sum[r][0] += xr[1] * b0;
                if (vectors == 2)
                    sum[r][1] += xr[1] * b1;
            }
        }
        if (k < depth) {
            vec a0 = vec_load(w), a1;
            if (vectors == 2)
                a1 = vec_load(w + LANES);
            UNROLL for (int r = 0; r < rows; ++r)
            {
                sum[r][0] += x[r][k] * a0;
                if (vectors == 2)
                    sum[r][1] += x[r][k] * a1;
            }
            w += vectors * LANES;
        }
    }
    if (t->columns == vectors * LANES && t->activation == ACT_NONE && !t->gated) {
        const vec b0 = vec_load(t->bias), b1 = vectors == 2 ? vec_load(t->bias + LANES) : b0;
        UNROLL for (int r = 0; r < rows; ++r)
        {
            sum[r][0] = (sum[r][0] + b0) * t->alpha;
            sum[r][1] = (sum[r][1] + b1) * t->alpha;
            if (t->c) {
                sum[r][0] += t->beta * vec_load(t->c[r]);
                if (vectors == 2)
                    sum[r][1] += t->beta * vec_load(t->c[r] + LANES);
            }
            vec_store(t->y[r], sum[r][0]);
            if (vectors == 2)
                vec_store(t->y[r] + LANES, sum[r][1]);
        }
        return;
    }
    float out[TILE_ROWS * WIDTH] __attribute__((aligned(64)));
    UNROLL for (int r = 0; r < rows; ++r)
    {
        vec_store(out + (ptrdiff_t)r * vectors * LANES, sum[r][0]);
        if (vectors == 2)
            vec_store(out + (ptrdiff_t)r * WIDTH + LANES, sum[r][1]);
    }
    tile_finish(t, out, vectors);
}

#define TILE(n)                                                                                    \
    static void tile_##n##_1(const struct tile *t)                                                 \
    {                                                                                              \
        tile_body(t, n, 1);                                                                        \
    }                                                                                              \
    static void tile_##n##_2(const struct tile *t)                                                 \
    {                                                                                              \
        tile_body(t, n, 2);                                                                        \
    }

TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)
#if TILE_ROWS > 6
TILE(7)
TILE(8)
TILE(9)
TILE(10)
TILE(11)
TILE(12)
#endif

#define TILE_PAIR(n)                                                                               \
    {                                                                                              \
        tile_##n##_1, tile_##n##_2                                                                 \
    }
static void (*const tiles[][2])(const struct tile *) = {
    TILE_PAIR(1), TILE_PAIR(2), TILE_PAIR(3), TILE_PAIR(4),  TILE_PAIR(5),  TILE_PAIR(6),
#if TILE_ROWS > 6
    TILE_PAIR(7), TILE_PAIR(8), TILE_PAIR(9), TILE_PAIR(10), TILE_PAIR(11), TILE_PAIR(12),
#endif
};

static void tile(const struct tile *t)
{
    tiles[t->rows - 1][t->vectors - 1](t);
}

INLINE float vec_sum(vec v)
{
    float s = 0.0f;
    UNROLL for (int i = 0; i < LANES; ++i) s += v[i];
    return s;
}

/* Four weights rows at a time against m rows of x, along the depth. */
INLINE void dots_body(const int m, int64_t n, int64_t k, const float *const *x, const float *w,
                      int64_t w_stride, float *const *y)
{
    for (int64_t j = 0; j < n; j += 4) {
        const int64_t here = n - j < 4 ? n - j : 4;
        const float *rows[4];
        for (int64_t i = 0; i < 4; ++i)
            rows[i] = w + (j + (i < here ? i : here - 1)) * w_stride;
        vec sum[4][4];
        UNROLL for (int i = 0; i < 4; ++i)
        {
            UNROLL for (int r = 0; r < m; ++r) sum[i][r] = (vec){0};
        }
        int64_t d = 0;
        for (; d + LANES <= k; d += LANES) {
            UNROLL for (int i = 0; i < 4; ++i)
            {
                vec wv = vec_load(rows[i] + d);
                UNROLL for (int r = 0; r < m; ++r) sum[i][r] += wv * vec_load(x[r] + d);
            }
        }
        for (int64_t i = 0; i < here; ++i) {
            for (int r = 0; r < m; ++r) {
                float total = vec_sum(sum[i][r]);
                for (int64_t e = d; e < k; ++e)
                    total += rows[i][e] * x[r][e];
                y[r][j + i] = total;
            }
        }
    }
}

static void dots(int64_t m, int64_t n, int64_t k, const float *const *x, const float *w,
                 int64_t w_stride, float *const *y)
{
    switch (m) {
    case 1:
        dots_body(1, n, k, x, w, w_stride, y);
        break;
    case 2:
        dots_body(2, n, k, x, w, w_stride, y);
        break;
    case 3:
        dots_body(3, n, k, x, w, w_stride, y);
        break;
    default:
        dots_body(4, n, k, x, w, w_stride, y);
        break;
    }
}
