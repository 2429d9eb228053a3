#include "unet_config.h"

#include "config.h"

#include <string.h>

enum { MAX_CHANNELS = 1 << 16 };

/* Options of UNet2DConditionModel that change what is computed and have one value in Stable
 * Diffusion 1.x and 2.x. */
static const struct {
    const char *key, *value;
} only[] = {
    {"mid_block_type", "\"UNetMidBlock2DCrossAttn\""},
    {"reverse_transformer_layers_per_block", "null"},
    {"encoder_hid_dim", "null"},
    {"encoder_hid_dim_type", "null"},
    {"num_attention_heads", "null"},
    {"dual_cross_attention", "false"},
    {"class_embed_type", "null"},
    {"addition_embed_type", "null"},
    {"addition_time_embed_dim", "null"},
    {"num_class_embeds", "null"},
    {"resnet_skip_time_act", "false"},
    {"resnet_out_scale_factor", "1.0"},
    {"time_embedding_type", "\"positional\""},
    {"time_embedding_act_fn", "null"},
    {"timestep_post_act", "null"},
    {"projection_class_embeddings_input_dim", "null"},
    {"attention_type", "\"default\""},
    {"class_embeddings_concat", "false"},
    {"cross_attention_norm", "null"},
};

/* Options that change nothing here: of training, of inputs and blocks that there are none of, and
 * what training scripts leave behind. */
static const char *const ignored[] = {
    "dropout",
    "addition_embed_type_num_heads",
    "time_cond_proj_dim", /* of a guidance scale as input, which this pipeline never gives */
    "mid_block_only_cross_attention", /* of UNetMidBlock2DSimpleCrossAttn */
    "decay",
    "inv_gamma",
    "min_decay",
    "optimization_step",
    "power",
    "update_after_step",
    "use_ema_warmup",
    NULL};

static void read_block_types(struct config *c, struct unet_config *u)
{
    static const char *const downs = "DownBlock2D or CrossAttnDownBlock2D";
    static const char *const ups = "UpBlock2D or CrossAttnUpBlock2D";
    for (uint32_t i = 0; i < u->n_levels; i++) {
        const char *down = config_text_at(c, "down_block_types", u->n_levels, i);
        /* the up blocks are listed from the deepest */
        const char *up = config_text_at(c, "up_block_types", u->n_levels, u->n_levels - 1 - i);
        u->levels[i].down_attention = strcmp(down, "CrossAttnDownBlock2D") == 0;
        u->levels[i].up_attention = strcmp(up, "CrossAttnUpBlock2D") == 0;
        if (!u->levels[i].down_attention && strcmp(down, "DownBlock2D") != 0) {
            config_refuse(c, ATTN_UNSUPPORTED, "down_block_types", downs);
        }
        if (!u->levels[i].up_attention && strcmp(up, "UpBlock2D") != 0) {
            config_refuse(c, ATTN_UNSUPPORTED, "up_block_types", ups);
        }
    }
}

static void read_levels(struct config *c, struct unet_config *u)
{
    int64_t channels[UNET_MAX_BLOCKS];
    int64_t layers[UNET_MAX_BLOCKS];
    int64_t heads[UNET_MAX_BLOCKS];
    int64_t transformers[UNET_MAX_BLOCKS];
    int32_t only_cross[UNET_MAX_BLOCKS];
    const uint32_t n =
        config_ints(c, "block_out_channels", 1, MAX_CHANNELS, UNET_MAX_BLOCKS, channels);
    u->n_levels = n;
    config_ints_each(c, "layers_per_block", 2, 1, UNET_MAX_LAYERS, n, layers);
    config_ints_each(c, "attention_head_dim", 8, 1, MAX_CHANNELS, n, heads);
    config_ints_each(c, "transformer_layers_per_block", 1, 1, 256, n, transformers);
    config_bools_each(c, "only_cross_attention", 0, n, only_cross);
    for (uint32_t i = 0; i < n; i++) {
        u->levels[i] = (struct unet_level){.channels = channels[i],
                                           .layers = layers[i],
                                           .heads = heads[i],
                                           .transformers = transformers[i],
                                           .only_cross = only_cross[i]};
    }
    read_block_types(c, u);
}

static void read_rest(struct config *c, struct unet_config *u)
{
    const char *shift = config_text(c, "resnet_time_scale_shift", "default");
    const char *act = config_text(c, "act_fn", "silu");
    u->in_channels = config_int(c, "in_channels", 4, 1, MAX_CHANNELS);
    u->out_channels = config_int(c, "out_channels", 4, 1, MAX_CHANNELS);
    u->sample_size = config_int(c, "sample_size", 0, 1, 1 << 15);
    u->time_channels =
        config_int(c, "time_embedding_dim", 4 * u->levels[0].channels, 2, 4 * MAX_CHANNELS);
    u->cross_dim = config_int(c, "cross_attention_dim", 1280, 1, MAX_CHANNELS);
    u->conv_in_kernel = config_int(c, "conv_in_kernel", 3, 1, 15);
    u->conv_out_kernel = config_int(c, "conv_out_kernel", 3, 1, 15);
    u->groups = config_int(c, "norm_num_groups", 32, 1, MAX_CHANNELS);
    u->eps = config_float(c, "norm_eps", 1e-5);
    u->downsample_padding = config_int(c, "downsample_padding", 1, 0, 1);
    u->center_input = config_bool(c, "center_input_sample", 0);
    u->flip_sin_to_cos = config_bool(c, "flip_sin_to_cos", 1);
    u->freq_shift = (float)config_float(c, "freq_shift", 0);
    u->linear_projection = config_bool(c, "use_linear_projection", 0);
    u->upcast_attention = config_bool(c, "upcast_attention", 0);
    u->mid_scale = (float)config_float(c, "mid_block_scale_factor", 1);
    u->scale_shift = strcmp(shift, "scale_shift") == 0;
    if (!u->scale_shift && strcmp(shift, "default") != 0) {
        config_refuse(c, ATTN_UNSUPPORTED, "resnet_time_scale_shift", "default or scale_shift");
    }
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0) {
        config_refuse(c, ATTN_UNSUPPORTED, "act_fn", "silu, or swish, its other name");
    }
    if (u->conv_in_kernel % 2 == 0) {
        config_refuse(c, ATTN_UNSUPPORTED, "conv_in_kernel", "an odd number");
    }
    if (u->conv_out_kernel % 2 == 0) {
        config_refuse(c, ATTN_UNSUPPORTED, "conv_out_kernel", "an odd number");
    }
    if (u->mid_scale == 0.0f) {
        config_refuse(c, ATTN_INVALID, "mid_block_scale_factor", "not 0");
    }
}

attn_status unet_config_read(const struct model_source *source, struct unet_config *out,
                             attn_error *err)
{
    struct config *c;
    attn_status status = config_open_source(source, &c, err);
    if (status != ATTN_OK) {
        return status;
    }
    memset(out, 0, sizeof(*out));
    config_only(c, "_class_name", "\"UNet2DConditionModel\"");
    for (size_t i = 0; i < sizeof(only) / sizeof(*only); i++) {
        config_only(c, only[i].key, only[i].value);
    }
    read_levels(c, out);
    read_rest(c, out);
    status = config_done(c, 1, ignored);
    config_close(c);
    return status;
}
