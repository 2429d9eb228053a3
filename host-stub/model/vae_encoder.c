#include "vae_encoder.h"

#include "forward.h"
#include "vae_parts.h"

#include "attn_host.h"

#include <math.h>
#include <stdlib.h>

/* DownEncoderBlock2D. */
struct down_block {
    int64_t channels;
    struct resnet *resnets;   /* config.layers of them */
    struct conv *downsampler; /* NULL in the last */
};

struct vae_encoder {
    struct vae_config config;
    struct weights *weights;
    struct conv *conv_in, *conv_out, *quant;
    struct down_block down[VAE_MAX_BLOCKS];
    struct vae_mid mid;
    attn_norm norm_out;
};

/* -- building -------------------------------------------------------------------------------- */

static void build_down(struct vae_encoder *v, uint32_t level)
{
    const struct vae_config *c = &v->config;
    struct down_block *b = &v->down[level];
    int64_t in = c->channels[level ? level - 1 : 0];
    char name[VAE_NAME_BYTES / 2];
    (void)snprintf(name, sizeof(name), "encoder.down_blocks.%u", level);
    b->channels = c->channels[level];
    b->resnets = weights_alloc(v->weights, (size_t)c->layers, sizeof(*b->resnets));
    for (int64_t i = 0; b->resnets && i < c->layers; i++) {
        vae_resnet(v->weights, c, &b->resnets[i], in, b->channels, name, i);
        in = b->channels;
    }
    if (level + 1 < c->n_levels) {
        char sampler[VAE_NAME_BYTES];
        (void)snprintf(sampler, sizeof(sampler), "%s.downsamplers.0", name);
        b->downsampler = downsample_build(v->weights, b->channels, 0, sampler);
    }
}

static void build(struct vae_encoder *v, const char *op)
{
    const struct vae_config *c = &v->config;
    const int64_t deepest = c->channels[c->n_levels - 1];
    const int64_t moments = 2 * c->latent_channels;
    v->conv_in =
        weights_conv_same(v->weights, c->in_channels, c->channels[0], 3, "encoder.conv_in");
    for (uint32_t i = 0; i < c->n_levels; i++) {
        build_down(v, i);
    }
    vae_mid_build(v->weights, c, &v->mid, "encoder.mid_block", op);
    weights_norm(v->weights, &v->norm_out, ATTN_NORM_GROUP, deepest, c->groups, VAE_NORM_EPS,
                 "encoder.conv_norm_out");
    v->conv_out = weights_conv_same(v->weights, deepest, moments, 3, "encoder.conv_out");
    v->quant = weights_conv_same(v->weights, moments, moments, 1, "quant_conv");
}

attn_status vae_encoder_open(struct compute *c, const struct model_source *source, const char *op,
                             struct vae_encoder **out, attn_error *err)
{
    static const char *const decoder[] = {"decoder.", "post_quant_conv.", NULL};
    attn_status status;
    struct vae_encoder *v = calloc(1, sizeof(*v));
    if (!v) {
        return attn_fail(err, ATTN_NOMEM, "no memory for an autoencoder");
    }
    status = vae_half_open(c, source, &v->config, &v->weights, err);
    if (status == ATTN_OK) {
        build(v, op);
        status = weights_done(v->weights, decoder);
    }
    if (status != ATTN_OK) {
        vae_encoder_close(v);
        return status;
    }
    *out = v;
    return ATTN_OK;
}

void vae_encoder_close(struct vae_encoder *v)
{
    if (!v) {
        return;
    }
    weights_close(v->weights);
    free(v);
}

int64_t vae_encoder_latent_channels(const struct vae_encoder *v)
{
    return v->config.latent_channels;
}

int64_t vae_encoder_side(const struct vae_encoder *v, int64_t pixels)
{
    for (uint32_t i = 1; i < v->config.n_levels; i++) {
        pixels = downsample_size(pixels, 0);
    }
    return pixels;
}

/* -- encoding -------------------------------------------------------------------------------- */

/* In the memory of the block's result where that is possible: the last of the residual blocks
 * writes where the next level begins. */
static attn_tensor down_forward(attn_work *w, const struct vae_encoder *v,
                                const struct down_block *b, const attn_tensor *x)
{
    attn_tensor now = *x;
    const attn_tensor out = b->downsampler
                                ? take_picture(w, x->shape[0], downsample_size(x->shape[1], 0),
                                               downsample_size(x->shape[2], 0), b->channels)
                                : take_like(w, x, b->channels);
    const uint64_t mark = work_mark(w);
    const attn_tensor turns[2] = {take_like(w, x, b->channels), take_like(w, x, b->channels)};
    for (int64_t i = 0; i < v->config.layers; i++) {
        const int last = i + 1 == v->config.layers && !b->downsampler;
        const attn_tensor y = last ? out : turns[i & 1];
        resnet_forward(w, &b->resnets[i], &now, NULL, NULL, &y);
        now = y;
    }
    if (b->downsampler) {
        work_api(w)->conv(w, b->downsampler, &now, NULL, NULL, &out);
    }
    work_reset(w, mark);
    return out;
}

static attn_status shapes_check(attn_work *w, const struct vae_encoder *v,
                                const attn_tensor *pictures, const attn_tensor *moments)
{
    const int64_t *s = pictures->shape;
    const int64_t height = vae_encoder_side(v, s[1]);
    const int64_t width = vae_encoder_side(v, s[2]);
    const int64_t channels = 2 * v->config.latent_channels;
    if (pictures->rank != 4 || s[3] != v->config.in_channels || height < 1 || width < 1) {
        return work_fail(w, ATTN_INVALID,
                         "pictures: expected [B, H, W, %lld], sides of %lld or more",
                         (long long)v->config.in_channels, 1LL << (v->config.n_levels - 1));
    }
    if (moments->rank != 4 || moments->shape[0] != s[0] || moments->shape[1] != height ||
        moments->shape[2] != width || moments->shape[3] != channels) {
        return work_fail(w, ATTN_INVALID, "moments: expected [%lld, %lld, %lld, %lld]",
                         (long long)s[0], (long long)height, (long long)width, (long long)channels);
    }
    return w->status;
}

attn_status vae_encode(attn_work *w, struct vae_encoder *v, const attn_tensor *pictures,
                       const attn_tensor *moments)
{
    const uint64_t mark = work_mark(w);
    const struct compute_api *api = work_api(w);
    attn_tensor x;
    attn_tensor y;
    if (shapes_check(w, v, pictures, moments) != ATTN_OK) {
        return w->status;
    }
    x = take_like(w, pictures, v->config.channels[0]);
    api->conv(w, v->conv_in, pictures, NULL, NULL, &x);
    for (uint32_t i = 0; i < v->config.n_levels; i++) {
        x = down_forward(w, v, &v->down[i], &x);
    }
    x = vae_mid_forward(w, &v->mid, &x);
    api->norm(w, &v->norm_out, ACT_SILU, &x, NULL, NULL, NULL, NULL, &x);
    y = take_like(w, &x, moments->shape[3]);
    api->conv(w, v->conv_out, &x, NULL, NULL, &y);
    api->conv(w, v->quant, &y, NULL, NULL, moments);
    work_reset(w, mark);
    return w->status;
}

void vae_latents(const float *moments, int64_t channels, int64_t cells, const float *noise,
                 float *latents)
{
    for (int64_t c = 0; c < channels; c++) {
        for (int64_t i = 0; i < cells; i++) {
            const float *both = moments + i * 2 * channels + c;
            float value = both[0];
            if (noise) {
                const float held = fminf(fmaxf(both[channels], -30.0f), 20.0f);
                value += expf(0.5f * held) * noise[c * cells + i];
            }
            latents[c * cells + i] = value;
        }
    }
}
