#include "vae.h"

#include "forward.h"
#include "vae_parts.h"

#include <stdlib.h>

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
    struct vae_mid mid;
    struct up_block up[VAE_MAX_BLOCKS];
    attn_norm norm_out;
};

/* -- building -------------------------------------------------------------------------------- */

static void build_up(struct vae *v, uint32_t index)
{
    const uint32_t level = v->config.n_levels - 1 - index;
    struct up_block *b = &v->up[index];
    int64_t in = v->config.channels[index ? level + 1 : level];
    char name[VAE_NAME_BYTES / 2];
    (void)snprintf(name, sizeof(name), "decoder.up_blocks.%u", index);
    b->channels = v->config.channels[level];
    b->n_resnets = v->config.layers + 1;
    b->resnets = weights_alloc(v->weights, (size_t)b->n_resnets, sizeof(*b->resnets));
    for (int64_t i = 0; b->resnets && i < b->n_resnets; i++) {
        vae_resnet(v->weights, &v->config, &b->resnets[i], in, b->channels, name, i);
        in = b->channels;
    }
    if (level > 0) {
        char sampler[VAE_NAME_BYTES];
        (void)snprintf(sampler, sizeof(sampler), "%s.upsamplers.0", name);
        b->upsampler = upsample_build(v->weights, b->channels, sampler);
    }
}

static void build(struct vae *v, const char *op)
{
    const struct vae_config *c = &v->config;
    const int64_t deepest = c->channels[c->n_levels - 1];
    v->post_quant =
        weights_conv_same(v->weights, c->latent_channels, c->latent_channels, 1, "post_quant_conv");
    v->conv_in = weights_conv_same(v->weights, c->latent_channels, deepest, 3, "decoder.conv_in");
    vae_mid_build(v->weights, c, &v->mid, "decoder.mid_block", op);
    for (uint32_t i = 0; i < c->n_levels; i++) {
        build_up(v, i);
    }
    weights_norm(v->weights, &v->norm_out, ATTN_NORM_GROUP, c->channels[0], c->groups, VAE_NORM_EPS,
                 "decoder.conv_norm_out");
    v->conv_out =
        weights_conv_same(v->weights, c->channels[0], c->out_channels, 3, "decoder.conv_out");
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
    status = vae_half_open(c, source, &v->config, &v->weights, err);
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

int64_t vae_sample_size(const struct vae *v)
{
    return v->config.sample_size;
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

static attn_tensor up_forward(attn_work *w, const struct up_block *b, const attn_tensor *x)
{
    const int64_t times = b->upsampler ? 2 : 1;
    const attn_tensor out =
        take_picture(w, x->shape[0], times * x->shape[1], times * x->shape[2], b->channels);
    const uint64_t mark = work_mark(w);
    const attn_tensor turns[2] = {b->upsampler ? take_small(w, &out, x, b->channels) : out,
                                  take_like(w, x, b->channels)};
    attn_tensor now = *x;
    for (int64_t i = 0; i < b->n_resnets; i++) {
        const attn_tensor y = turns[(b->n_resnets - 1 - i) & 1]; /* the last in the first */
        resnet_forward(w, &b->resnets[i], &now, NULL, NULL, &y);
        now = y;
    }
    if (b->upsampler) {
        upsample_conv(w, &now, b->upsampler, &out);
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
    x = vae_mid_forward(w, &v->mid, &y);
    for (uint32_t i = 0; i < v->config.n_levels; i++) {
        x = up_forward(w, &v->up[i], &x);
    }
    api->norm(w, &v->norm_out, ACT_SILU, &x, NULL, NULL, NULL, NULL, &x);
    api->conv(w, v->conv_out, &x, NULL, NULL, out);
    work_reset(w, mark);
    return w->status;
}
