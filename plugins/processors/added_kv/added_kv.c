/* added_kv: diffusers' AttnAddedKVProcessor (v0.26.3 src/diffusers/models/attention_processor.py):
 * the picture attends to the text's tokens and to its own at once.
 *
 *   x    = group_norm(hidden)
 *   e    = norm_cross(encoder), or hidden where there are no encoder states
 *   K, V = [add_k_proj(e) | to_k(x)], [add_v_proj(e) | to_v(x)]      the text's come first
 *   out  = to_out(attention(to_q(x), K, V)) + hidden
 *
 * With only_cross_attention keys and values are the text's alone.
 *
 * Check: meson test processors       Time: meson test --benchmark processors
 */
#include "added.h"

static attn_status added_kv_bind(attn_binding *b, const attn_param *params, uint32_t n,
                                 attn_work *work, attn_error *err)
{
    (void)params;
    (void)n;
    (void)work;
    return added_check(b, err);
}

static const attn_param_list added_kv_params = {.size = sizeof added_kv_params};

const struct processor_kind processor_kind = {
    .name = "added_kv",
    .params = &added_kv_params,
    .bind = added_kv_bind,
    .forward = forward_added,
};

PROCESSOR_EXPORT("added_kv", ATTN_HEAD_TERMS,
                 "diffusers' AttnAddedKVProcessor: text and image tokens as keys of one layer");
