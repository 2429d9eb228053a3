#include "attention_mask.h"

#include <inttypes.h>
#include <stdlib.h>

/* [B, heads, N, L] of any mask; strides of 0 where it has 1. 0 where it does not fit. */
static int mask_widen(const attn_tensor *mask, int64_t batch, int64_t heads, int64_t tokens,
                      attn_tensor *wide)
{
    const uint32_t r = mask->rank;
    *wide = *mask;
    wide->rank = 4;
    wide->shape[3] = mask->shape[r - 1];
    wide->stride[3] = mask->stride[r - 1];
    wide->shape[2] = r > 2 ? mask->shape[r - 2] : 1;
    wide->stride[2] = r > 2 ? mask->stride[r - 2] : 0;
    wide->shape[1] = r > 3 ? mask->shape[1] : 1;
    wide->stride[1] = r > 3 ? mask->stride[1] : 0;
    wide->shape[0] = mask->shape[0];
    wide->stride[0] = mask->stride[0];
    if (r == 3 && heads > 1 && mask->shape[0] == batch * heads) {
        wide->shape[0] = batch;
        wide->stride[0] = heads * mask->stride[0];
        wide->shape[1] = heads;
        wide->stride[1] = mask->stride[0];
    }
    const int64_t want[3] = {batch, heads, tokens};
    for (int i = 0; i < 3; i++) {
        if (wide->shape[i] != want[i] && wide->shape[i] != 1)
            return 0;
        if (wide->shape[i] == 1)
            wide->stride[i] = 0;
    }
    return 1;
}

/* wide's distinct values, each row followed by zeros up to `keys`. */
static attn_status mask_pad(attn_tensor *wide, int64_t keys, float **owned, attn_error *err)
{
    const int64_t length = wide->shape[3];
    int64_t b = wide->shape[0], h = wide->shape[1], n = wide->shape[2], count = keys;
    if (__builtin_mul_overflow(count, b, &count) || __builtin_mul_overflow(count, h, &count) ||
        __builtin_mul_overflow(count, n, &count))
        return attn_fail(err, ATTN_INVALID, "attention_mask: its padded size overflows");
    float *padded = calloc((size_t)count + 1, sizeof *padded);
    if (!padded)
        return attn_fail(err, ATTN_NOMEM, "attention_mask: no memory for %" PRId64 " values",
                         count);
    const float *data = wide->data;
    float *row = padded;
    for (int64_t i = 0; i < b; i++)
        for (int64_t j = 0; j < h; j++)
            for (int64_t k = 0; k < n; k++, row += keys)
                for (int64_t l = 0; l < length; l++)
                    row[l] = data[i * wide->stride[0] + j * wide->stride[1] + k * wide->stride[2] +
                                  l * wide->stride[3]];
    wide->data = *owned = padded;
    wide->shape[3] = keys;
    wide->stride[3] = 1;
    wide->stride[2] = n > 1 ? keys : 0;
    wide->stride[1] = h > 1 ? n * keys : 0;
    wide->stride[0] = b > 1 ? h * n * keys : 0;
    return ATTN_OK;
}

attn_status attention_bias(const attn_tensor *mask, int64_t batch, int64_t heads, int64_t tokens,
                           int64_t keys, attn_tensor *bias, float **owned, attn_error *err)
{
    *owned = NULL;
    if (mask->rank < 2 || mask->rank > 4)
        return attn_fail(err, ATTN_INVALID, "attention_mask: rank %" PRIu32 ", expected 2 to 4",
                         mask->rank);
    if (mask->code != ATTN_CODE_FLOAT || mask->bits != 32)
        return attn_fail(err, ATTN_INVALID,
                         "attention_mask: not fp32; diffusers adds it to the scores");
    if (!mask_widen(mask, batch, heads, tokens, bias))
        return attn_fail(err, ATTN_INVALID,
                         "attention_mask: its shape does not broadcast to [%" PRId64 ", %" PRId64
                         ", %" PRId64 ", keys]",
                         batch, heads, tokens);
    if (bias->shape[3] > keys)
        return attn_fail(err, ATTN_INVALID,
                         "attention_mask: %" PRId64 " keys, but the layer has %" PRId64,
                         bias->shape[3], keys);
    attn_status status = bias->shape[3] < keys ? mask_pad(bias, keys, owned, err) : ATTN_OK;
    bias->shape[0] = batch;
    bias->shape[1] = heads;
    bias->shape[2] = tokens;
    bias->align = 0;
    return status;
}
