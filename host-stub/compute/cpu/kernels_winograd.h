/* kernels_winograd.h: the transforms of winograd.c, one tile at a time.  Part of kernels_body.h.
 *
 * B' = | 1  0 -1  0 |   A' = | 1  1  1  0 |
 *      | 0  1  1  0 |        | 0  1 -1 -1 |
 *      | 0 -1  1  0 |
 *      | 0  1  0 -1 |
 */

/* d: 4 x 4 pixels of one vector of channels; B' d B in place. */
INLINE void winograd_forward(vec d[16])
{
    UNROLL for (int i = 0; i < 4; ++i)
    {
        vec a = d[i], b = d[4 + i], c = d[8 + i], e = d[12 + i];
        d[i] = a - c;
        d[4 + i] = b + c;
        d[8 + i] = c - b;
        d[12 + i] = b - e;
    }
    UNROLL for (int i = 0; i < 16; i += 4)
    {
        vec a = d[i], b = d[i + 1], c = d[i + 2], e = d[i + 3];
        d[i] = a - c;
        d[i + 1] = b + c;
        d[i + 2] = c - b;
        d[i + 3] = b - e;
    }
}

static void winograd_input(int64_t n, const float *const *x, float *v, int64_t stride)
{
    int64_t i = 0;
    vec d[16];
    for (; i + LANES <= n; i += LANES) {
        UNROLL for (int p = 0; p < 16; ++p) d[p] = vec_load(x[p] + i);
        winograd_forward(d);
        UNROLL for (int p = 0; p < 16; ++p) vec_store(v + p * stride + i, d[p]);
    }
    if (i == n)
        return;
    for (int p = 0; p < 16; ++p)
        d[p] = vec_part(x[p] + i, n - i);
    winograd_forward(d);
    for (int p = 0; p < 16; ++p)
        vec_store_part(v + p * stride + i, d[p], n - i);
}

/* Columns [first, first + n) of the four pixels, n <= LANES. */
INLINE void winograd_pixels(const struct winograd_output *o, int64_t first, int64_t n,
                            enum activation act)
{
    const float *m = o->sums + first;
    vec t[8], y[4];
    UNROLL for (int i = 0; i < 4; ++i)
    {
        vec a = vec_load(m + i * o->stride), b = vec_load(m + (4 + i) * o->stride);
        vec c = vec_load(m + (8 + i) * o->stride), e = vec_load(m + (12 + i) * o->stride);
        t[i] = a + b + c;
        t[4 + i] = b - c - e;
    }
    const vec bias = vec_load(o->bias + first);
    for (int i = 0; i < 2; ++i) {
        y[2 * i] = t[4 * i] + t[4 * i + 1] + t[4 * i + 2] + bias;
        y[2 * i + 1] = t[4 * i + 1] - t[4 * i + 2] - t[4 * i + 3] + bias;
    }
    for (int p = 0; p < 4; ++p) {
        if (!o->y[p])
            continue;
        vec v = vec_activate(act, y[p]);
        if (n >= LANES) {
            if (o->c)
                v += vec_load(o->c[p] + first);
            vec_store(o->y[p] + first, v);
        } else {
            if (o->c)
                v += vec_part(o->c[p] + first, n);
            vec_store_part(o->y[p] + first, v, n);
        }
    }
}

static void winograd_output(const struct winograd_output *o)
{
    for (int64_t first = 0; first < o->columns; first += LANES) {
        if (o->activation == ACT_NONE)
            winograd_pixels(o, first, o->columns - first, ACT_NONE);
        else
            winograd_pixels(o, first, o->columns - first, o->activation);
    }
}
