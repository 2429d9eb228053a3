/* norm.c: group, layer and spatial normalisation. */
#include "cuda.h"

static void launch(attn_work *w, bool is_group, const struct kernel_norm *n)
{
    const attn_tensor bytes = {.code = ATTN_CODE_UINT, .bits = 8};
    const int64_t scratch_bytes[] = {is_group ? (int64_t)kernels()->group_norm_scratch(n) : 0};
    uint64_t mark = work_mark(w);
    attn_tensor scratch = work_take(w, &bytes, 1, scratch_bytes);
    ATTN_ERROR_ON(why, 256);
    if (!work_dry(w) && w->status == ATTN_OK) {
        if (cuda_current(cuda_of(w), &why) != ATTN_OK)
            work_fail(w, ATTN_DEVICE, "%s", why.text);
        else if (is_group)
            work_check(w, "group norm", kernels()->group_norm(n, scratch.data, w->stream));
        else
            work_check(w, "layer norm", kernels()->layer_norm(n, w->stream));
    }
    work_reset(w, mark);
}

attn_status cuda_norm(attn_work *w, const attn_norm *norm, enum activation act,
                      const attn_tensor *x, const attn_tensor *x2, const attn_tensor *add,
                      const attn_tensor *scale, const attn_tensor *shift, const attn_tensor *y)
{
    const struct norm_call call = {norm, act, x, x2, add, scale, shift};
    if (check_norm(w, &call, y) != ATTN_OK || !tensor_count(y))
        return w->status;
    const struct kernel_norm n = {.groups = norm->groups,
                                  .eps = norm->eps,
                                  .act = (int32_t)act,
                                  .x = x,
                                  .x2 = x2,
                                  .weight = &norm->weight,
                                  .bias = &norm->bias,
                                  .add = add,
                                  .scale = scale,
                                  .shift = shift,
                                  .y = y};
    launch(w, norm->kind == ATTN_NORM_GROUP, &n);
    return w->status;
}

/* -- spatial ----------------------------------------------------------------------------------- */

/* Convolutions of one pixel and nearest enlargement commute: zq stays small. */
static void spatial(attn_work *w, const attn_norm *norm, const attn_tensor *x,
                    const attn_tensor *zq, const attn_tensor *y)
{
    attn_tensor in = tensor_channels_last(x), out = tensor_channels_last(y),
                z = tensor_channels_last(zq);
    attn_norm plain = *norm;
    plain.kind = ATTN_NORM_GROUP;
    attn_tensor n = work_take(w, NULL, 4, in.shape);
    const int64_t z_shape[] = {z.shape[0], z.shape[1], z.shape[2], in.shape[3]};
    attn_tensor by = work_take(w, NULL, 4, z_shape), add = work_take(w, NULL, 4, z_shape);
    cuda_norm(w, &plain, ACT_NONE, &in, NULL, NULL, NULL, NULL, &n);
    cuda_linear(w, 1.0f, &z, &norm->conv_y, 0.0f, NULL, &by);
    cuda_linear(w, 1.0f, &z, &norm->conv_b, 0.0f, NULL, &add);
    if (w->status == ATTN_OK && !work_dry(w))
        work_check(w, "spatial norm", kernels()->spatial_modulate(&n, &by, &add, &out, w->stream));
}

attn_status cuda_plugin_norm(attn_work *w, const attn_norm *norm, const attn_tensor *x,
                             const attn_tensor *zq, const attn_tensor *y)
{
    if (w->status != ATTN_OK || norm->kind != ATTN_NORM_SPATIAL)
        return w->status != ATTN_OK ? w->status
                                    : cuda_norm(w, norm, ACT_NONE, x, NULL, NULL, NULL, NULL, y);
    if (check_spatial(w, x, zq, y) != ATTN_OK)
        return w->status;
    uint64_t mark = work_mark(w);
    spatial(w, norm, x, zq, y);
    work_reset(w, mark);
    return w->status;
}
