/* attention_mask.h: diffusers' attention_mask as the bias of an attn_layer_call. */
#ifndef ATTNPLUG_MODEL_ATTENTION_MASK_H
#define ATTNPLUG_MODEL_ATTENTION_MASK_H

#include "error.h"

/* mask: fp32, added to the scores: [B, L], [B or B * heads, 1 or N, L] or [B, 1 or heads, 1 or N,
 * L], as Attention.forward takes it (v0.26.3, prepare_attention_mask).  What it lacks of `keys` at
 * the end counts as zeros; upstream pads by the whole target length instead, which is the same
 * where it works (text before image, added projections) and fails elsewhere.
 *
 * *bias is a view [batch, heads, tokens, keys] of mask, or of *owned (free) where it was padded. */
attn_status attention_bias(const attn_tensor *mask, int64_t batch, int64_t heads, int64_t tokens,
                           int64_t keys, attn_tensor *bias, float **owned, attn_error *err);

#endif
