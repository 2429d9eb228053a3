#include "vae.h"

#include "attention.h"
#include "config.h"
#include "forward.h"
#include "resnet.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_BLOCKS = 8, MAX_CHANNELS = 1 << 16, NAME_BYTES = 96 };

/* The decoder's own, which no config sets. */
static const double norm_eps = 1e-6;

struct vae_config {
    int64_t latent_channels, out_channels, layers, groups;
    float scaling_factor;
    uint32_t n_levels;
    int64_t channels[MAX_BLOCKS]; /* from the picture's size down */
};

/* UpDecoderBlock2D. */
struct up_block {
    int64_t channels, n_resnets;
    struct resnet *resnets;
    struct conv *upsampler; /* NULL in the last */
};

struct vae {
    struct vae_config config;
    struct weights *weights;
    struct conv *post_quant, *conv_in, *conv_out;
    struct resnet mid[2];
    struct layer *attention;
    struct up_block up[MAX_BLOCKS];
    attn_norm norm_out;
};

/* -- building -------------------------------------------------------------------------------- */

static void read_blocks(struct config *c, struct vae_config *v)
{
    v->n_levels = config_ints(c, "block_out_channels", 1, MAX_CHANNELS, MAX_BLOCKS, v->channels);
    for (uint32_t i = 0; i < v->n_levels; i++) {
        const char *type = config_text_at(c, "up_block_types", v->n_levels, i);
        if (strcmp(type, "UpDecoderBlock2D") != 0) {
            config_refuse(c, ATTN_UNSUPPORTED, "up_block_types", "UpDecoderBlock2D");
        }
    }
}

static attn_status config_read(const struct model_source *source, struct vae_config *v,
                               attn_error *err)
{
    /* of the encoder and of training; force_upcast speaks of fp16 pipelines */
    static const char *const ignored[] = {"in_channels", "down_block_types", "sample_size",
                                          "force_upcast", NULL};
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
    read_blocks(c, v);
    v->latent_channels = config_int(c, "latent_channels", 4, 1, MAX_CHANNELS);
    v->out_channels = config_int(c, "out_channels", 3, 3, 3);
    v->layers = config_int(c, "layers_per_block", 1, 1, 64);
    v->groups = config_int(c, "norm_num_groups", 32, 1, MAX_CHANNELS);
    v->scaling_factor = (float)config_float(c, "scaling_factor", 0.18215);
    if (!(v->scaling_factor > 0)) {
        config_refuse(c, ATTN_INVALID, "scaling_factor", "more than 0");
    }
    status = config_done(c, 1, ignored);
    config_close(c);
    return status;
}

static struct conv *conv_build(struct weights *w, int64_t in, int64_t out, int64_t kernel,
                               const char *name)
{
    const struct conv_desc desc = {.in_channels = in,
                                   .out_channels = out,
                                   .kernel = kernel,
                                   .stride = 1,
                                   .pad_low = kernel / 2,
                                   .pad_high = kernel / 2};
    return weights_conv(w, &desc, "%s", name);
}

static void add_resnet(struct vae *v, struct resnet *r, int64_t in, int64_t out, const char *block,
                       int64_t index)
{
    char name[NAME_BYTES];
    const struct resnet_desc desc = {
        .in = in, .out = out, .output_scale = 1.0f, .groups = v->config.groups, .eps = norm_eps};
    (void)snprintf(name, sizeof(name), "%s.resnets.%lld", block, (long long)index);
    resnet_build(v->weights, r, &desc, name);
}

static void build_mid(struct vae *v, int64_t channels, const char *op)
{
    const struct attention_desc attention = {
        .heads = 1,
        .dim_head = channels,
        .query_dim = channels,
        .bias = 1,
        .flags = ATTN_LAYER_RESIDUAL | ATTN_LAYER_UPCAST_SOFTMAX,
        .norm_groups = v->config.groups,
        .norm_eps = norm_eps,
    };
    const attn_layer_spec spec = {.size = sizeof(spec), .processor = "standard", .op = op};
    add_resnet(v, &v->mid[0], channels, channels, "decoder.mid_block", 0);
    v->attention = attention_open(v->weights, &attention, "decoder.mid_block.attentions.0", &spec);
    add_resnet(v, &v->mid[1], channels, channels, "decoder.mid_block", 1);
}

static void build_up(struct vae *v, uint32_t index)
{
    const uint32_t level = v->config.n_levels - 1 - index;
    struct up_block *b = &v->up[index];
    int64_t in = v->config.channels[index ? level + 1 : level];
    char name[NAME_BYTES / 2];
    (void)snprintf(name, sizeof(name), "decoder.up_blocks.%u", index);
    b->channels = v->config.channels[level];
    b->n_resnets = v->config.layers + 1;
    b->resnets = weights_alloc(v->weights, (size_t)b->n_resnets, sizeof(*b->resnets));
    for (int64_t i = 0; b->resnets && i < b->n_resnets; i++) {
        add_resnet(v, &b->resnets[i], in, b->channels, name, i);
        in = b->channels;
    }
    if (level > 0) {
        char sampler[NAME_BYTES];
        (void)snprintf(sampler, sizeof(sampler), "%s.upsamplers.0", name);
        b->upsampler = upsample_build(v->weights, b->channels, sampler);
    }
}

static void build(struct vae *v, const char *op)
{
    const struct vae_config *c = &v->config;
    const int64_t deepest = c->channels[c->n_levels - 1];
    v->post_quant =
        conv_build(v->weights, c->latent_channels, c->latent_channels, 1, "post_quant_conv");
    v->conv_in = conv_build(v->weights, c->latent_channels, deepest, 3, "decoder.conv_in");
    build_mid(v, deepest, op);
    for (uint32_t i = 0; i < c->n_levels; i++) {
        build_up(v, i);
    }
    weights_norm(v->weights, &v->norm_out, ATTN_NORM_GROUP, c->channels[0], c->groups, norm_eps,
                 "decoder.conv_norm_out");
    v->conv_out = conv_build(v->weights, c->channels[0], c->out_channels, 3, "decoder.conv_out");
}

attn_status vae_open(struct compute *c, const char *folder, const char *op, struct vae **out,
                     attn_error *err)
{
    const struct model_source source = {.folder = folder};
    return vae_open_source(c, &source, op, out, err);
}

attn_status vae_open_source(struct compute *c, const struct model_source *source, const char *op,
                            struct vae **out, attn_error *err)
{
    static const char *const encoder[] = {"encoder.", "quant_conv.", NULL};
    attn_status status;
    struct vae *v = calloc(1, sizeof(*v));
    if (!v) {
        return attn_fail(err, ATTN_NOMEM, "no memory for an autoencoder");
    }
    status = config_read(source, &v->config, err);
    if (status == ATTN_OK) {
        status = weights_open_source(c, source, "diffusion_pytorch_model", &v->weights, err);
    }
    if (status == ATTN_OK) {
        build(v, op);
        status = weights_done(v->weights, encoder);
    }
    if (status != ATTN_OK) {
        vae_close(v);
        return status;
    }
    *out = v;
    return ATTN_OK;
}

void vae_close(struct vae *v)
{
    if (!v) {
        return;
    }
    weights_close(v->weights);
    free(v);
}

/* -- questions ------------------------------------------------------------------------------- */

int64_t vae_factor(const struct vae *v)
{
    return (int64_t)1 << (v->config.n_levels - 1);
}

int64_t vae_latent_channels(const struct vae *v)
{
    return v->config.latent_channels;
}

float vae_scaling_factor(const struct vae *v)
{
    return v->config.scaling_factor;
}

/* -- decoding -------------------------------------------------------------------------------- */

static attn_tensor mid_forward(attn_work *w, const struct vae *v, const attn_tensor *x)
{
    const attn_tensor y = take_like(w, x, x->shape[3]);
    const uint64_t mark = work_mark(w);
    const attn_tensor hidden = take_like(w, x, x->shape[3]);
    const attn_tensor tokens = as_tokens(&hidden);
    attn_layer_call call = {.size = sizeof(call), .hidden = tokens, .out = tokens};
    resnet_forward(w, &v->mid[0], x, NULL, NULL, &hidden);
    layer_run(w, v->attention, &call);
    resnet_forward(w, &v->mid[1], &hidden, NULL, NULL, &y);
    work_reset(w, mark);
    return y;
}

static attn_tensor up_forward(attn_work *w, const struct up_block *b, const attn_tensor *x)
{
    const int64_t times = b->upsampler ? 2 : 1;
    const attn_tensor out =
        take_picture(w, x->shape[0], times * x->shape[1], times * x->shape[2], b->channels);
    const uint64_t mark = work_mark(w);
    const attn_tensor turns[2] = {borrow_like(&out, x, b->channels), take_like(w, x, b->channels)};
    attn_tensor now = *x;
    for (int64_t i = 0; i < b->n_resnets; i++) {
        const attn_tensor y = turns[(b->n_resnets - 1 - i) & 1]; /* the last in out's memory */
        resnet_forward(w, &b->resnets[i], &now, NULL, NULL, &y);
        now = y;
    }
    if (b->upsampler) {
        upsample_forward(w, b->upsampler, &now, &out);
    }
    work_reset(w, mark);
    return out;
}

static attn_status shapes_check(attn_work *w, const struct vae *v, const attn_tensor *latents,
                                const attn_tensor *out)
{
    const int64_t *s = latents->shape;
    const int64_t height = vae_factor(v) * s[1];
    const int64_t width = vae_factor(v) * s[2];
    if (latents->rank != 4 || s[3] != v->config.latent_channels || s[1] < 1 || s[2] < 1) {
        return work_fail(w, ATTN_INVALID, "latents: expected [B, h, w, %lld]",
                         (long long)v->config.latent_channels);
    }
    if (out->rank != 4 || out->shape[0] != s[0] || out->shape[1] != height ||
        out->shape[2] != width || out->shape[3] != v->config.out_channels) {
        return work_fail(w, ATTN_INVALID, "picture: expected [%lld, %lld, %lld, %lld]",
                         (long long)s[0], (long long)height, (long long)width,
                         (long long)v->config.out_channels);
    }
    return w->status;
}

attn_status vae_decode(attn_work *w, struct vae *v, const attn_tensor *latents,
                       const attn_tensor *out)
{
    const uint64_t mark = work_mark(w);
    const struct compute_api *api = work_api(w);
    const int64_t deepest = v->config.channels[v->config.n_levels - 1];
    attn_tensor x;
    attn_tensor y;
    if (shapes_check(w, v, latents, out) != ATTN_OK) {
        return w->status;
    }
    x = take_like(w, latents, v->config.latent_channels);
    api->conv(w, v->post_quant, latents, NULL, NULL, &x);
    y = take_like(w, latents, deepest);
    api->conv(w, v->conv_in, &x, NULL, NULL, &y);
    x = mid_forward(w, v, &y);
    for (uint32_t i = 0; i < v->config.n_levels; i++) {
        x = up_forward(w, &v->up[i], &x);
    }
    api->norm(w, &v->norm_out, ACT_SILU, &x, NULL, NULL, NULL, NULL, &x);
    api->conv(w, v->conv_out, &x, NULL, NULL, out);
    work_reset(w, mark);
    return w->status;
}
