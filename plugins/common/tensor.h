/* tensor.h: views of tensors.  A view keeps NULL data NULL (plans are made before memory exists)
 * and promises no more alignment than it has. */
#ifndef ATTN_COMMON_TENSOR_H
#define ATTN_COMMON_TENSOR_H

#include "attn_abi.h"

static inline int tensor_absent(const attn_tensor *t)
{
    return !t || t->rank == 0;
}

static inline int tensor_same_type(const attn_tensor *a, const attn_tensor *b)
{
    return a->code == b->code && a->bits == b->bits && a->lanes == b->lanes;
}

static inline int tensor_same_shape(const attn_tensor *a, const attn_tensor *b)
{
    if (a->rank != b->rank)
        return 0;
    for (uint32_t i = 0; i < a->rank; i++)
        if (a->shape[i] != b->shape[i])
            return 0;
    return 1;
}

/* Row-major strides for t's shape and rank. */
static inline void tensor_pack_strides(attn_tensor *t)
{
    int64_t step = 1;
    for (uint32_t i = t->rank; i-- > 0;) {
        t->stride[i] = step;
        step *= t->shape[i];
    }
}

/* Entries [begin, begin + count) along `axis`. */
static inline attn_tensor tensor_slice(const attn_tensor *t, uint32_t axis, int64_t begin,
                                       int64_t count)
{
    attn_tensor view = *t;
    int64_t offset = begin * t->stride[axis] * (int64_t)(t->bits / 8);
    view.shape[axis] = count;
    if (t->data)
        view.data = (char *)t->data + offset;
    while (view.align > 1 && offset % (int64_t)view.align != 0)
        view.align /= 2;
    return view;
}

/* [B, N, H * D] as [B, H, N, D]. */
static inline attn_tensor tensor_heads(const attn_tensor *t, int64_t heads)
{
    int64_t dim = heads > 0 ? t->shape[2] / heads : 0;
    attn_tensor view = *t;
    view.rank = 4;
    view.shape[1] = heads;
    view.shape[2] = t->shape[1];
    view.shape[3] = dim;
    view.stride[1] = dim * t->stride[2];
    view.stride[2] = t->stride[1];
    view.stride[3] = t->stride[2];
    return view;
}

/* [B, C, height, width] as tokens [B, height * width, C]; tokens stay as they are.  0 where no
 * stride walks the pixels in order (a crop). */
static inline int tensor_tokens(const attn_tensor *t, attn_tensor *tokens)
{
    *tokens = *t;
    if (t->rank == 3)
        return 1;
    int64_t height = t->shape[2], width = t->shape[3];
    if (height > 1 && width > 1 && t->stride[2] != width * t->stride[3])
        return 0;
    tokens->rank = 3;
    tokens->shape[1] = height * width;
    tokens->shape[2] = t->shape[1];
    tokens->stride[1] = width > 1 ? t->stride[3] : t->stride[2];
    tokens->stride[2] = t->stride[1];
    return 1;
}

/* Contiguous tokens [B, height * width, C] as [B, C, height, width]. */
static inline attn_tensor tensor_picture(const attn_tensor *tokens, int64_t height, int64_t width)
{
    attn_tensor view = *tokens;
    view.rank = 4;
    view.shape[1] = tokens->shape[2];
    view.shape[2] = height;
    view.shape[3] = width;
    view.stride[1] = tokens->stride[2];
    view.stride[2] = width * tokens->stride[1];
    view.stride[3] = tokens->stride[1];
    return view;
}

/* [B, I, N, C] as [B, I * N, C], where one stride walks both; 0 where none does. */
static inline int tensor_join(const attn_tensor *t, attn_tensor *joined)
{
    int64_t outer = t->shape[1], inner = t->shape[2];
    if (outer > 1 && inner > 1 && t->stride[1] != inner * t->stride[2])
        return 0;
    *joined = *t;
    joined->rank = 3;
    joined->shape[1] = outer * inner;
    joined->shape[2] = t->shape[3];
    joined->stride[1] = inner > 1 ? t->stride[2] : t->stride[1];
    joined->stride[2] = t->stride[3];
    return 1;
}

#endif
