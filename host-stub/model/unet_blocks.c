#include "unet_blocks.h"

#include "forward.h"

enum { NAME_BYTES = 96 };

static void add_resnet(struct unet_builder *b, struct resnet *r, int64_t in, int64_t out,
                       float output_scale, const char *block, int64_t index)
{
    char name[NAME_BYTES];
    const struct resnet_desc desc = {.in = in,
                                     .out = out,
                                     .time = b->time_channels,
                                     .scale_shift = b->config->scale_shift,
                                     .output_scale = output_scale,
                                     .groups = b->config->groups,
                                     .eps = b->config->eps};
    (void)snprintf(name, sizeof(name), "%s.resnets.%lld", block, (long long)index);
    resnet_build(b->weights, r, &desc, name);
}

static void add_transformer(struct unet_builder *b, struct transformer *t,
                            const struct unet_level *level, int32_t only_cross, const char *block,
                            int64_t index)
{
    char name[NAME_BYTES];
    const struct transformer_desc desc = {.channels = level->channels,
                                          .heads = level->heads,
                                          .cross_dim = b->config->cross_dim,
                                          .n_blocks = level->transformers,
                                          .groups = b->config->groups,
                                          .linear_projection = b->config->linear_projection,
                                          .only_cross = only_cross,
                                          .upcast = b->config->upcast_attention};
    (void)snprintf(name, sizeof(name), "%s.attentions.%lld", block, (long long)index);
    transformer_build(b->weights, t, &desc, b->hooks, name);
}

/* Room for n layers and, with attention, their transformers; 0 after a failure. */
static int block_alloc(struct unet_builder *b, struct unet_block *block, int64_t n_resnets,
                       int64_t n_transformers)
{
    block->resnets = weights_alloc(b->weights, (size_t)n_resnets, sizeof(*block->resnets));
    if (n_transformers) {
        block->transformers =
            weights_alloc(b->weights, (size_t)n_transformers, sizeof(*block->transformers));
    }
    return weights_status(b->weights) == ATTN_OK;
}

void down_block_build(struct unet_builder *b, struct unet_block *block, uint32_t level)
{
    const struct unet_level *l = &b->config->levels[level];
    char name[NAME_BYTES / 2];
    int64_t in = b->config->levels[level ? level - 1 : 0].channels;
    (void)snprintf(name, sizeof(name), "down_blocks.%u", level);
    block->n_layers = l->layers;
    block->channels = l->channels;
    if (!block_alloc(b, block, l->layers, l->down_attention ? l->layers : 0)) {
        return;
    }
    for (int64_t i = 0; i < l->layers; i++) {
        add_resnet(b, &block->resnets[i], in, l->channels, 1.0f, name, i);
        if (l->down_attention) {
            add_transformer(b, &block->transformers[i], l, l->only_cross, name, i);
        }
        in = l->channels;
    }
    if (level + 1 < b->config->n_levels) {
        char sampler[NAME_BYTES];
        (void)snprintf(sampler, sizeof(sampler), "%s.downsamplers.0", name);
        block->resize =
            downsample_build(b->weights, l->channels, b->config->downsample_padding, sampler);
    }
}

void mid_block_build(struct unet_builder *b, struct unet_block *block)
{
    const struct unet_level *l = &b->config->levels[b->config->n_levels - 1];
    block->n_layers = 1;
    block->channels = l->channels;
    if (!block_alloc(b, block, 2, 1)) {
        return;
    }
    add_resnet(b, &block->resnets[0], l->channels, l->channels, b->config->mid_scale, "mid_block",
               0);
    /* diffusers hands the mid block no only_cross_attention */
    add_transformer(b, &block->transformers[0], l, 0, "mid_block", 0);
    add_resnet(b, &block->resnets[1], l->channels, l->channels, b->config->mid_scale, "mid_block",
               1);
}

void up_block_build(struct unet_builder *b, struct unet_block *block, uint32_t index)
{
    const uint32_t level = b->config->n_levels - 1 - index;
    const struct unet_level *l = &b->config->levels[level];
    const int64_t last_skip = b->config->levels[level ? level - 1 : 0].channels;
    char name[NAME_BYTES / 2];
    int64_t in = b->config->levels[index ? level + 1 : level].channels;
    (void)snprintf(name, sizeof(name), "up_blocks.%u", index);
    block->n_layers = l->layers + 1;
    block->channels = l->channels;
    if (!block_alloc(b, block, block->n_layers, l->up_attention ? block->n_layers : 0)) {
        return;
    }
    for (int64_t i = 0; i < block->n_layers; i++) {
        const int64_t skip = i + 1 < block->n_layers ? l->channels : last_skip;
        add_resnet(b, &block->resnets[i], in + skip, l->channels, 1.0f, name, i);
        if (l->up_attention) {
            add_transformer(b, &block->transformers[i], l, l->only_cross, name, i);
        }
        in = l->channels;
    }
    if (level > 0) {
        char sampler[NAME_BYTES];
        (void)snprintf(sampler, sizeof(sampler), "%s.upsamplers.0", name);
        block->resize = upsample_build(b->weights, l->channels, sampler);
    }
}

void down_block_forward(attn_work *w, const struct unet_block *block, const struct block_call *call,
                        struct skips *skips)
{
    attn_tensor x = skips->of[skips->n - 1];
    for (int64_t i = 0; i < block->n_layers; i++) {
        const attn_tensor y = take_like(w, &x, block->channels);
        resnet_forward(w, &block->resnets[i], &x, NULL, call->time, &y);
        if (block->transformers) {
            transformer_forward(w, &block->transformers[i], call->attend, &y);
        }
        skips->of[skips->n++] = x = y;
    }
    if (block->resize) {
        const attn_tensor y =
            take_picture(w, x.shape[0], downsample_size(x.shape[1], call->padding),
                         downsample_size(x.shape[2], call->padding), block->channels);
        work_api(w)->conv(w, block->resize, &x, NULL, NULL, &y);
        skips->of[skips->n++] = y;
    }
}

attn_tensor mid_block_forward(attn_work *w, const struct unet_block *block,
                              const struct block_call *call, const attn_tensor *x)
{
    const attn_tensor y = take_like(w, x, block->channels);
    const uint64_t mark = work_mark(w);
    const attn_tensor hidden = take_like(w, x, block->channels);
    resnet_forward(w, &block->resnets[0], x, NULL, call->time, &hidden);
    transformer_forward(w, &block->transformers[0], call->attend, &hidden);
    resnet_forward(w, &block->resnets[1], &hidden, NULL, call->time, &y);
    work_reset(w, mark);
    return y;
}

attn_tensor up_block_forward(attn_work *w, const struct unet_block *block,
                             const struct block_call *call, const attn_tensor *x,
                             struct skips *skips)
{
    /* A block that enlarges does so to the size of what the next one takes back: with odd sides
     * that is not twice its own. */
    const attn_tensor *size = block->resize ? &skips->of[skips->n - 1 - block->n_layers] : x;
    const attn_tensor out = take_like(w, size, block->channels);
    const uint64_t mark = work_mark(w);
    const attn_tensor turns[2] = {block->resize ? take_small(w, &out, x, block->channels) : out,
                                  take_like(w, x, block->channels)};
    attn_tensor now = *x;
    for (int64_t i = 0; i < block->n_layers; i++) {
        const attn_tensor y = turns[(block->n_layers - 1 - i) & 1]; /* the last in the first */
        resnet_forward(w, &block->resnets[i], &now, &skips->of[--skips->n], call->time, &y);
        if (block->transformers) {
            transformer_forward(w, &block->transformers[i], call->attend, &y);
        }
        now = y;
    }
    if (block->resize) {
        upsample_conv(w, &now, block->resize, &out);
    }
    work_reset(w, mark);
    return out;
}
