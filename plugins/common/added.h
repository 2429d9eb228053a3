/* added.h: attention over the text's tokens and the picture's own (diffusers' AttnAddedKVProcessor,
 * v0.26.3 src/diffusers/models/attention_processor.py). */
#ifndef ATTN_COMMON_ADDED_H
#define ATTN_COMMON_ADDED_H

#include "forward.h"

/* What such a layer needs: group norm, add_k_proj, add_v_proj; to_k and to_v unless it has
 * ATTN_LAYER_ONLY_CROSS. */
attn_status added_check(const attn_binding *b, attn_error *err);

/* The whole layer.  Keys are the text's, then the picture's. Without a text the picture stands in
 * for it, before its group norm.  The residual is always added, the result never rescaled. */
void forward_added(struct forward *f);

#endif
