/* kernels_blocks.h: between rows of pixels and blocks of channels.  Part of kernels_body.h. */

/* The first n of LANES, 0 after them; n from 0 to LANES. */
INLINE vec vec_upto(const float *x, int64_t n)
{
    return n == LANES ? vec_load(x) : vec_part(x, n);
}

INLINE int64_t lanes_of(int64_t n, int64_t at)
{
    int64_t left = n - at;
    return left < 0 ? 0 : left < LANES ? left : LANES;
}

INLINE void block_in_as(enum activation act, bool scaled, int64_t pixels, int64_t n, const float *x,
                        int64_t stride, const float *scale, const float *shift, float *y)
{
    for (int64_t at = 0; at < CHANNEL_BLOCK; at += LANES) {
        int64_t here = lanes_of(n, at);
        vec s = scaled ? vec_upto(scale + at, here) : vec_of(1.0f);
        vec t = scaled ? vec_upto(shift + at, here) : vec_of(0.0f);
        for (int64_t i = 0; i < pixels; ++i) {
            vec v = vec_upto(x + i * stride + at, here);
            vec_store(y + i * CHANNEL_BLOCK + at, scaled ? vec_activate(act, v * s + t) : v);
        }
    }
}

static void block_in(enum activation act, int64_t pixels, int64_t n, const float *x, int64_t stride,
                     const float *scale, const float *shift, float *y)
{
    if (!scale && n == CHANNEL_BLOCK)
        block_in_as(ACT_NONE, false, pixels, CHANNEL_BLOCK, x, stride, scale, shift, y);
    else if (!scale)
        block_in_as(ACT_NONE, false, pixels, n, x, stride, scale, shift, y);
    else if (act == ACT_SILU && n == CHANNEL_BLOCK)
        block_in_as(ACT_SILU, true, pixels, CHANNEL_BLOCK, x, stride, scale, shift, y);
    else
        block_in_as(act, true, pixels, n, x, stride, scale, shift, y);
}

INLINE void block_out_as(enum activation act, int64_t pixels, int64_t n, const float *x,
                         const float *add, int64_t add_stride, float *y, int64_t stride)
{
    for (int64_t at = 0; at < CHANNEL_BLOCK; at += LANES) {
        int64_t here = lanes_of(n, at);
        for (int64_t i = 0; i < pixels; ++i) {
            vec v = vec_activate(act, vec_load(x + i * CHANNEL_BLOCK + at));
            if (add)
                v += vec_upto(add + i * add_stride + at, here);
            if (here == LANES)
                vec_store(y + i * stride + at, v);
            else
                vec_store_part(y + i * stride + at, v, here);
        }
    }
}

static void block_out(enum activation act, int64_t pixels, int64_t n, const float *x,
                      const float *add, int64_t add_stride, float *y, int64_t stride)
{
    if (act != ACT_NONE)
        block_out_as(act, pixels, n, x, add, add_stride, y, stride);
    else if (n == CHANNEL_BLOCK && add)
        block_out_as(ACT_NONE, pixels, CHANNEL_BLOCK, x, add, add_stride, y, stride);
    else if (n == CHANNEL_BLOCK)
        block_out_as(ACT_NONE, pixels, CHANNEL_BLOCK, x, NULL, 0, y, stride);
    else
        block_out_as(ACT_NONE, pixels, n, x, add, add_stride, y, stride);
}
