/* standard: diffusers' AttnProcessor (v0.26.3 src/diffusers/models/attention_processor.py), the
 * attention layer as it is by default:
 *
 *   x   = group_norm(spatial_norm(hidden, temb))          each where the layer has it
 *   e   = norm_cross(encoder), or x where there are no encoder states
 *   out = (to_out(attention(to_q(x), to_k(e), to_v(e))) + hidden) / rescale
 *
 * The steps are plugins/common/forward.c's, which other processors share.
 *
 * Check: meson test processors       Time: meson test --benchmark processors
 */
#include "forward.h"

static attn_status standard_bind(attn_binding *b, const attn_param *params, uint32_t n,
                                 attn_work *work, attn_error *err)
{
    (void)params;
    (void)n;
    (void)work;
    return layer_check_keys(b, err);
}

static const attn_param_list standard_params = {.size = sizeof standard_params};

const struct processor_kind processor_kind = {
    .name = "standard",
    .params = &standard_params,
    .bind = standard_bind,
    .forward = forward_standard,
};

PROCESSOR_EXPORT("standard", ATTN_HEAD_TERMS, "diffusers' AttnProcessor: a plain attention layer");
