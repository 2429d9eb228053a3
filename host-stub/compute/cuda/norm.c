/* norm.c: group, layer and spatial normalisation. */
#include "cuda.h"

static attn_status check(attn_work *w, const attn_norm *norm, const attn_tensor *x,
                         const attn_tensor *x2, const attn_tensor *const *vectors,
                         const attn_tensor *y)
{
    static const char *const names[] = {"weight", "bias", "add", "scale", "shift"};
    const attn_tensor *all[] = {x, y, tensor_here(x2) ? x2 : x};
    if (w->status != ATTN_OK || check_floats(w, "norm", 3, all) != ATTN_OK)
        return w->status;
    int64_t channels = tensor_last(x) + (tensor_here(x2) ? tensor_last(x2) : 0);
    bool is_group = norm->kind == ATTN_NORM_GROUP;
    if (!is_group && norm->kind != ATTN_NORM_LAYER)
        return work_fail(w, ATTN_UNSUPPORTED, "norm: kind %u, expected %u (layer) or %u (group)",
                         norm->kind, ATTN_NORM_LAYER, ATTN_NORM_GROUP);
    if (!is_group && (tensor_here(x2) || tensor_here(vectors[2]) || tensor_here(vectors[3]) ||
                      tensor_here(vectors[4])))
        return work_fail(w, ATTN_UNSUPPORTED,
                         "norm: a layer norm takes one input and neither add, scale nor shift");
    if (!tensor_same_leading(x, y) || tensor_last(y) != channels ||
        (tensor_here(x2) && !tensor_same_leading(x, x2)) || (is_group && x->rank < 3))
        return work_fail(w, ATTN_INVALID, "norm: x %s, x2 %s, y %s do not fit",
                         tensor_describe(x).text, tensor_describe(x2).text,
                         tensor_describe(y).text);
    if (is_group && (!norm->groups || channels % norm->groups))
        return work_fail(w, ATTN_INVALID, "norm: %lld channels in %u groups", (long long)channels,
                         norm->groups);
    for (int i = 0; i < 5; ++i) {
        const attn_tensor *v = vectors[i];
        if (!tensor_here(v))
            continue;
        bool fits = tensor_is_float(v) && tensor_last(v) == channels &&
                    (i < 2 ? v->rank == 1 : v->rank == 2 && v->shape[0] == x->shape[0]);
        if (!fits)
            return work_fail(w, ATTN_INVALID, "norm: %s %s for x %s", names[i],
                             tensor_describe(v).text, tensor_describe(x).text);
    }
    return w->status;
}

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
    const attn_tensor *vectors[] = {&norm->weight, &norm->bias, add, scale, shift};
    if (check(w, norm, x, x2, vectors, y) != ATTN_OK || !tensor_count(y))
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

/* [B, C, H, W] seen as [B, H, W, C]. */
static attn_tensor channels_last(const attn_tensor *t)
{
    attn_tensor r = *t;
    const int from[] = {0, 2, 3, 1};
    for (int i = 0; i < 4; ++i) {
        r.shape[i] = t->shape[from[i]];
        r.stride[i] = t->stride[from[i]];
    }
    return r;
}

/* Convolutions of one pixel and nearest enlargement commute: zq stays small. */
static void spatial(attn_work *w, const attn_norm *norm, const attn_tensor *x,
                    const attn_tensor *zq, const attn_tensor *y)
{
    attn_tensor in = channels_last(x), out = channels_last(y), z = channels_last(zq);
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
    if (x->rank != 4 || y->rank != 4 || !tensor_here(zq) || zq->rank != 4 ||
        !tensor_same_shape(x, y) || zq->shape[0] != x->shape[0])
        return work_fail(
            w, ATTN_INVALID, "spatial norm: x %s, zq %s, y %s: expected [B, C, H, W] of one batch",
            tensor_describe(x).text, tensor_describe(zq).text, tensor_describe(y).text);
    uint64_t mark = work_mark(w);
    spatial(w, norm, x, zq, y);
    work_reset(w, mark);
    return w->status;
}
