#include "resnet.h"

#include "forward.h"

void resnet_build(struct weights *w, struct resnet *r, const struct resnet_desc *desc,
                  const char *name)
{
    r->in = desc->in;
    r->out = desc->out;
    r->scale_shift = desc->scale_shift;
    r->output_scale = desc->output_scale;
    weights_norm(w, &r->norm1, ATTN_NORM_GROUP, desc->in, desc->groups, desc->eps, "%s.norm1",
                 name);
    r->conv1 = weights_conv_same(w, desc->in, desc->out, 3, "%s.conv1", name);
    if (desc->time) {
        weights_linear(w, &r->time, desc->scale_shift ? 2 * desc->out : desc->out, desc->time, 1,
                       "%s.time_emb_proj", name);
    }
    weights_norm(w, &r->norm2, ATTN_NORM_GROUP, desc->out, desc->groups, desc->eps, "%s.norm2",
                 name);
    r->conv2 = weights_conv_same(w, desc->out, desc->out, 3, "%s.conv2", name);
    r->shortcut = desc->in == desc->out
                      ? NULL
                      : weights_conv_same(w, desc->in, desc->out, 1, "%s.conv_shortcut", name);
}

/* y = conv2(silu(norm2(h))) + e, with the time embedding in its place. */
static void second_half(attn_work *w, const struct resnet *r, const attn_tensor *time,
                        const attn_tensor *h, const struct epilogue *e, const attn_tensor *y)
{
    struct norm_call norm = {.norm = &r->norm2, .act = ACT_SILU, .x = h};
    attn_tensor projected;
    attn_tensor shift;
    int64_t shape[2];
    if (r->time.weight.rank) {
        shape[0] = h->shape[0];
        shape[1] = r->time.weight.shape[0];
        projected = work_take(w, NULL, 2, shape);
        work_api(w)->linear(w, time, &r->time, NULL, &projected);
        norm.add = &projected;
    }
    if (r->scale_shift && norm.add) {
        shift = projected;
        projected.shape[1] = shift.shape[1] = r->out;
        if (projected.data) {
            shift.data = (char *)projected.data + r->out * projected.bits / 8;
        }
        norm.add = NULL;
        norm.scale = &projected;
        norm.shift = &shift;
    }
    norm_conv(w, &norm, r->conv2, e, y);
}

void resnet_forward(attn_work *w, const struct resnet *r, const attn_tensor *x,
                    const attn_tensor *x2, const attn_tensor *time, const attn_tensor *y)
{
    const struct compute_api *api = work_api(w);
    const uint64_t mark = work_mark(w);
    const struct norm_call norm = {.norm = &r->norm1, .act = ACT_SILU, .x = x, .x2 = x2};
    const struct epilogue add = {ACT_NONE, r->shortcut ? y : x};
    const attn_tensor hidden = take_like(w, x, r->out);

    norm_conv(w, &norm, r->conv1, NULL, &hidden);
    if (r->shortcut) {
        api->conv(w, r->shortcut, x, x2, NULL, y);
    }
    second_half(w, r, time, &hidden, &add, y);
    if (r->output_scale != 1.0f) {
        work_math(w)->combine(w, 1.0f / r->output_scale, y, 0.0f, y, y);
    }
    work_reset(w, mark);
}

struct conv *downsample_build(struct weights *w, int64_t channels, int64_t padding,
                              const char *name)
{
    const struct conv_desc desc = {.in_channels = channels,
                                   .out_channels = channels,
                                   .kernel = 3,
                                   .stride = 2,
                                   .pad_low = padding,
                                   .pad_high = padding ? padding : 1};
    return weights_conv(w, &desc, "%s.conv", name);
}

int64_t downsample_size(int64_t size, int64_t padding)
{
    return (size + padding + (padding ? padding : 1) - 1) / 2;
}

struct conv *upsample_build(struct weights *w, int64_t channels, const char *name)
{
    return weights_conv_same(w, channels, channels, 3, "%s.conv", name);
}
