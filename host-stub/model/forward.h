/* forward.h: the few words that every forward pass of this room is written with.
 *
 * Pictures are [B, H, W, C] and their tokens [B, H*W, C] are the same memory. Errors stick to the
 * work, so a pass is straight code.
 */
#ifndef ATTNPLUG_MODEL_FORWARD_H
#define ATTNPLUG_MODEL_FORWARD_H

#include "host_tensor.h"
#include "pass.h"

static inline const struct compute_api *work_api(const attn_work *w)
{
    return work_compute(w)->api;
}

/* The plugin-facing operations: combine, copy, fill, attend. */
static inline const attn_compute *work_math(const attn_work *w)
{
    return &work_compute(w)->plugin;
}

static inline attn_tensor take_picture(attn_work *w, int64_t batch, int64_t height, int64_t width,
                                       int64_t channels)
{
    const int64_t shape[] = {batch, height, width, channels};
    return work_take(w, NULL, 4, shape);
}

/* Scratch like x, with other channels. */
static inline attn_tensor take_like(attn_work *w, const attn_tensor *x, int64_t channels)
{
    int64_t shape[4] = {x->shape[0], x->shape[1], x->shape[2], x->shape[3]};
    shape[x->rank - 1] = channels;
    return work_take(w, NULL, x->rank, shape);
}

/* A contiguous picture as its tokens. */
static inline attn_tensor as_tokens(const attn_tensor *picture)
{
    attn_tensor t = *picture;
    t.rank = 3;
    t.shape[1] = picture->shape[1] * picture->shape[2];
    t.shape[2] = t.stride[1] = picture->shape[3];
    t.stride[2] = 1;
    return t;
}

/* Tokens [first, first + n) of x [B, tokens, C]. */
static inline attn_tensor tokens_of(const attn_tensor *x, int64_t first, int64_t n)
{
    attn_tensor t = *x;
    t.data = t.data ? (char *)t.data + (uint64_t)(first * t.stride[1]) * (t.bits / 8u) : NULL;
    t.shape[1] = n;
    t.align = 0;
    return t;
}

/* Channels [first, first + heads * head_dim) of x [B, tokens, C] as [B, heads, tokens, head_dim].
 */
static inline attn_tensor heads_of(const attn_tensor *x, int64_t first, int64_t heads,
                                   int64_t head_dim)
{
    attn_tensor t = *x;
    t.data = t.data ? (char *)t.data + (uint64_t)first * (t.bits / 8u) : NULL;
    t.rank = 4;
    t.shape[1] = heads;
    t.shape[2] = x->shape[1];
    t.shape[3] = head_dim;
    t.stride[1] = head_dim;
    t.stride[2] = x->stride[1];
    t.stride[3] = 1;
    t.align = 0;
    return t;
}

/* A picture like x with other channels, which is then enlarged to y: in y's memory where y is
 * written only when it has been read. */
static inline attn_tensor take_small(attn_work *w, const attn_tensor *y, const attn_tensor *x,
                                     int64_t channels)
{
    if (work_api(w)->upsample_conv) {
        return take_like(w, x, channels);
    }
    attn_tensor t = *y;
    t.shape[1] = x->shape[1];
    t.shape[2] = x->shape[2];
    t.shape[3] = t.stride[2] = channels;
    t.stride[1] = t.shape[2] * t.stride[2];
    t.stride[0] = t.shape[1] * t.stride[1];
    return t;
}

#endif
