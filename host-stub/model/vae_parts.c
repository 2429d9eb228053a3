#include "vae_parts.h"

#include "attention.h"
#include "config.h"
#include "forward.h"

#include <string.h>

enum { MAX_CHANNELS = 1 << 16 };

static void read_types(struct config *c, const struct vae_config *v, const char *key,
                       const char *only)
{
    for (uint32_t i = 0; i < v->n_levels; i++) {
        if (strcmp(config_text_at(c, key, v->n_levels, i), only) != 0) {
            config_refuse(c, ATTN_UNSUPPORTED, key, only);
        }
    }
}

static attn_status config_read(const struct model_source *source, struct vae_config *v,
                               attn_error *err)
{
    /* how diffusers' own pipelines run it in fp16 */
    static const char *const ignored[] = {"force_upcast", NULL};
    struct config *c;
    attn_status status = config_open_source(source, &c, err);
    if (status != ATTN_OK) {
        return status;
    }
    memset(v, 0, sizeof(*v));
    config_only(c, "_class_name", "\"AutoencoderKL\"");
    config_only(c, "act_fn", "\"silu\"");
    /* later versions name what v0.26.3 always does */
    config_only(c, "use_post_quant_conv", "true");
    config_only(c, "use_quant_conv", "true");
    config_only(c, "mid_block_add_attention", "true");
    v->n_levels =
        config_ints(c, "block_out_channels", 1, MAX_CHANNELS, VAE_MAX_BLOCKS, v->channels);
    read_types(c, v, "down_block_types", "DownEncoderBlock2D");
    read_types(c, v, "up_block_types", "UpDecoderBlock2D");
    v->latent_channels = config_int(c, "latent_channels", 4, 1, MAX_CHANNELS);
    v->in_channels = config_int(c, "in_channels", 3, 3, 3);
    v->out_channels = config_int(c, "out_channels", 3, 3, 3);
    v->layers = config_int(c, "layers_per_block", 1, 1, 64);
    v->sample_size = config_int(c, "sample_size", 32, 1, 1 << 16);
    v->groups = config_int(c, "norm_num_groups", 32, 1, MAX_CHANNELS);
    v->scaling_factor = (float)config_float(c, "scaling_factor", 0.18215);
    if (!(v->scaling_factor > 0)) {
        config_refuse(c, ATTN_INVALID, "scaling_factor", "more than 0");
    }
    status = config_done(c, 1, ignored);
    config_close(c);
    return status;
}

attn_status vae_half_open(struct compute *c, const struct model_source *source,
                          struct vae_config *config, struct weights **weights, attn_error *err)
{
    attn_status status = config_read(source, config, err);
    if (status == ATTN_OK) {
        status = weights_open(c, source, "diffusion_pytorch_model", weights, err);
    }
    if (status == ATTN_OK) {
        weights_run_seldom(*weights);
    }
    return status;
}

void vae_resnet(struct weights *w, const struct vae_config *c, struct resnet *r, int64_t in,
                int64_t out, const char *block, int64_t index)
{
    char name[VAE_NAME_BYTES];
    const struct resnet_desc desc = {
        .in = in, .out = out, .output_scale = 1.0f, .groups = c->groups, .eps = VAE_NORM_EPS};
    (void)snprintf(name, sizeof(name), "%s.resnets.%lld", block, (long long)index);
    resnet_build(w, r, &desc, name);
}

void vae_mid_build(struct weights *w, const struct vae_config *c, struct vae_mid *mid,
                   const char *name, const char *op)
{
    const int64_t channels = c->channels[c->n_levels - 1];
    const struct attention_desc attention = {
        .heads = 1,
        .dim_head = channels,
        .query_dim = channels,
        .bias = 1,
        .flags = ATTN_LAYER_RESIDUAL | ATTN_LAYER_UPCAST_SOFTMAX,
        .norm_groups = c->groups,
        .norm_eps = VAE_NORM_EPS,
    };
    const attn_layer_spec spec = {.size = sizeof(spec), .processor = "standard", .op = op};
    char layer[VAE_NAME_BYTES];
    (void)snprintf(layer, sizeof(layer), "%s.attentions.0", name);
    vae_resnet(w, c, &mid->resnets[0], channels, channels, name, 0);
    mid->attention = attention_open(w, &attention, layer, &spec);
    vae_resnet(w, c, &mid->resnets[1], channels, channels, name, 1);
}

attn_tensor vae_mid_forward(attn_work *w, const struct vae_mid *mid, const attn_tensor *x)
{
    const attn_tensor y = take_like(w, x, x->shape[3]);
    const uint64_t mark = work_mark(w);
    const attn_tensor hidden = take_like(w, x, x->shape[3]);
    const attn_tensor tokens = as_tokens(&hidden);
    attn_layer_call call = {.size = sizeof(call), .hidden = tokens, .out = tokens};
    resnet_forward(w, &mid->resnets[0], x, NULL, NULL, &hidden);
    layer_run(w, mid->attention, &call);
    resnet_forward(w, &mid->resnets[1], &hidden, NULL, NULL, &y);
    work_reset(w, mark);
    return y;
}
