#include "unet.h"

#include "attn_host.h"
#include "forward.h"
#include "unet_blocks.h"

#include <stdlib.h>
#include <string.h>

/* One attention layer, for unet_layer. */
struct bound {
    const char *name;
    struct layer *layer;
};

struct unet {
    struct unet_config config;
    struct weights *weights;
    const struct unet_processors *processors; /* while it is built */
    struct bound *bound;
    uint32_t n_bound;
    attn_linear time_1, time_2;
    struct conv *conv_in, *conv_out;
    attn_norm norm_out;
    struct unet_block down[UNET_MAX_BLOCKS], mid, up[UNET_MAX_BLOCKS];
    attn_error *err; /* while it is built */
};

/* -- building -------------------------------------------------------------------------------- */

static void choose(void *ctx, const char *layer, attn_layer_spec *spec)
{
    const struct unet *u = ctx;
    attn_status status;
    spec->processor = "standard";
    if (!u->processors || !u->processors->choose || weights_status(u->weights) != ATTN_OK) {
        return;
    }
    status = u->processors->choose(u->processors->ctx, layer, spec, u->err);
    if (status != ATTN_OK) {
        weights_fail_as(u->weights, status);
    }
}

static void remember(void *ctx, const char *name, struct layer *layer)
{
    struct unet *u = ctx;
    const char *kept = weights_name(u->weights, "%s", name);
    if (u->bound && kept) {
        u->bound[u->n_bound++] = (struct bound){kept, layer};
    }
}

static uint32_t count_layers(const struct unet_config *c)
{
    int64_t n = 2 * c->levels[c->n_levels - 1].transformers;
    for (uint32_t i = 0; i < c->n_levels; i++) {
        const struct unet_level *l = &c->levels[i];
        n += l->down_attention ? 2 * l->layers * l->transformers : 0;
        n += l->up_attention ? 2 * (l->layers + 1) * l->transformers : 0;
    }
    return (uint32_t)n;
}

/* In diffusers' order of its attention processors: down, up, mid. */
static void build(struct unet *u)
{
    const struct unet_config *c = &u->config;
    const struct transformer_hooks hooks = {choose, remember, u};
    const int64_t first = c->levels[0].channels;
    struct unet_builder b = {u->weights, c, &hooks, c->time_channels};
    u->bound = weights_alloc(u->weights, count_layers(c), sizeof(*u->bound));
    u->conv_in = weights_conv_same(u->weights, c->in_channels, first, c->conv_in_kernel, "conv_in");
    weights_linear(u->weights, &u->time_1, b.time_channels, first, 1, "time_embedding.linear_1");
    weights_linear(u->weights, &u->time_2, b.time_channels, b.time_channels, 1,
                   "time_embedding.linear_2");
    for (uint32_t i = 0; i < c->n_levels; i++) {
        down_block_build(&b, &u->down[i], i);
    }
    for (uint32_t i = 0; i < c->n_levels; i++) {
        up_block_build(&b, &u->up[i], i);
    }
    mid_block_build(&b, &u->mid);
    weights_norm(u->weights, &u->norm_out, ATTN_NORM_GROUP, first, c->groups, c->eps,
                 "conv_norm_out");
    u->conv_out =
        weights_conv_same(u->weights, first, c->out_channels, c->conv_out_kernel, "conv_out");
}

attn_status unet_open(struct compute *c, const char *folder, const struct unet_processors *p,
                      struct unet **out, attn_error *err)
{
    const struct model_source source = {.folder = folder};
    return unet_open_source(c, &source, p, out, err);
}

attn_status unet_open_source(struct compute *c, const struct model_source *source,
                             const struct unet_processors *p, struct unet **out, attn_error *err)
{
    /* of a guidance scale as input, in models distilled for it; diffusers' pipeline gives none */
    static const char *const unused[] = {"time_embedding.cond_proj.", NULL};
    attn_status status;
    struct unet *u = calloc(1, sizeof(*u));
    if (!u) {
        return attn_fail(err, ATTN_NOMEM, "no memory for a UNet");
    }
    u->processors = p;
    u->err = err;
    status = unet_config_read(source, &u->config, err);
    if (status == ATTN_OK && p) {
        status = lora_set_family(p->loras, u->config.cross_dim, err);
    }
    if (status == ATTN_OK && p && p->begin) {
        status = p->begin(p->ctx, u->config.cross_dim, err);
    }
    if (status == ATTN_OK) {
        status = weights_open(c, source, "diffusion_pytorch_model", &u->weights, err);
    }
    if (status == ATTN_OK) {
        weights_adapt(u->weights, p ? p->loras : NULL, LORA_UNET);
        build(u);
        status = weights_done(u->weights, unused);
    }
    u->processors = NULL;
    u->err = NULL;
    if (status != ATTN_OK) {
        unet_close(u);
        return status;
    }
    *out = u;
    return ATTN_OK;
}

void unet_close(struct unet *u)
{
    if (!u) {
        return;
    }
    weights_close(u->weights);
    free(u);
}

void unet_rest(const struct unet *u)
{
    weights_rest(u->weights);
}

/* -- questions ------------------------------------------------------------------------------- */

int64_t unet_in_channels(const struct unet *u)
{
    return u->config.in_channels;
}

int64_t unet_cross_dim(const struct unet *u)
{
    return u->config.cross_dim;
}

int64_t unet_sample_size(const struct unet *u)
{
    return u->config.sample_size;
}

int64_t unet_downscale(const struct unet *u)
{
    return (int64_t)1 << (u->config.n_levels - 1);
}

void unet_mid_size(const struct unet *u, int64_t h, int64_t w, int64_t *mid_h, int64_t *mid_w)
{
    for (uint32_t i = 1; i < u->config.n_levels; i++) {
        h = downsample_size(h, u->config.downsample_padding);
        w = downsample_size(w, u->config.downsample_padding);
    }
    *mid_h = h;
    *mid_w = w;
}

attn_status unet_layer(const struct unet *u, uint32_t index, const char **name,
                       const char **processor, const char **op)
{
    if (index >= u->n_bound) {
        return ATTN_NOT_FOUND;
    }
    *name = u->bound[index].name;
    *processor = layer_processor(u->bound[index].layer);
    *op = layer_op(u->bound[index].layer);
    return ATTN_OK;
}

/* -- the forward pass ------------------------------------------------------------------------ */

static int shape_is(const attn_tensor *t, uint32_t rank, const int64_t *shape)
{
    return t->rank == rank && memcmp(t->shape, shape, rank * sizeof(*shape)) == 0;
}

static attn_status call_check(attn_work *w, const struct unet *u, const struct unet_call *call)
{
    const struct unet_config *c = &u->config;
    const attn_tensor *x = &call->sample;
    const int64_t *s = x->shape;
    int64_t mid_h;
    int64_t mid_w;
    int64_t tokens;
    if (x->rank != 4 || s[3] != c->in_channels) {
        return work_fail(w, ATTN_INVALID, "sample: expected [B, h, w, %lld]",
                         (long long)c->in_channels);
    }
    unet_mid_size(u, s[1], s[2], &mid_h, &mid_w);
    if (mid_h < 1 || mid_w < 1) {
        return work_fail(w, ATTN_INVALID, "sample: %lld x %lld is too small, expected %lld or more",
                         (long long)s[1], (long long)s[2], (long long)unet_downscale(u));
    }
    if (!shape_is(&call->timestep, 1, s)) {
        return work_fail(w, ATTN_INVALID, "timestep: expected [%lld]", (long long)s[0]);
    }
    if (call->encoder.rank != 3 || call->encoder.shape[0] != s[0] ||
        call->encoder.shape[2] != c->cross_dim) {
        return work_fail(w, ATTN_INVALID, "encoder: expected [%lld, tokens, %lld]", (long long)s[0],
                         (long long)c->cross_dim);
    }
    if (!shape_is(&call->out, 4, (const int64_t[]){s[0], s[1], s[2], c->out_channels})) {
        return work_fail(w, ATTN_INVALID, "out: expected [%lld, %lld, %lld, %lld]", (long long)s[0],
                         (long long)s[1], (long long)s[2], (long long)c->out_channels);
    }
    tokens = mid_h * mid_w;
    if (call->key_mass.rank && !shape_is(&call->key_mass, 2, (const int64_t[]){s[0], tokens})) {
        return work_fail(w, ATTN_INVALID, "key_mass: expected [%lld, %lld]", (long long)s[0],
                         (long long)tokens);
    }
    return w->status;
}

/* Sinusoids through two linears; activated once here for all the resnets that would do it. */
static attn_tensor time_embedding(attn_work *w, const struct unet *u, const attn_tensor *timestep)
{
    const int64_t channels[] = {timestep->shape[0], u->time_2.weight.shape[0]};
    const int64_t waves[] = {timestep->shape[0], u->time_1.weight.shape[1]};
    const struct epilogue silu = {ACT_SILU, NULL};
    const attn_tensor out = work_take(w, NULL, 2, channels);
    const uint64_t mark = work_mark(w);
    const attn_tensor sines = work_take(w, NULL, 2, waves);
    const attn_tensor hidden = work_take(w, NULL, 2, channels);
    const struct compute_api *api = work_api(w);
    api->timestep(w, timestep, u->config.flip_sin_to_cos, u->config.freq_shift, &sines);
    api->linear(w, &sines, &u->time_1, &silu, &hidden);
    api->linear(w, &hidden, &u->time_2, &silu, &out);
    work_reset(w, mark);
    return out;
}

/* 2 x - 1. */
static attn_tensor centred(attn_work *w, const attn_tensor *x)
{
    const int64_t one[] = {1};
    attn_tensor ones = work_take(w, NULL, 1, one);
    const attn_tensor out = take_like(w, x, x->shape[3]);
    work_math(w)->fill(w, 1.0f, &ones);
    ones.rank = x->rank;
    memcpy(ones.shape, x->shape, sizeof(ones.shape));
    memset(ones.stride, 0, sizeof(ones.stride));
    work_math(w)->combine(w, 2.0f, x, -1.0f, &ones, &out);
    return out;
}

static attn_status forward(attn_work *w, struct unet *u, const struct unet_call *call)
{
    const uint64_t mark = work_mark(w);
    const uint32_t n = u->config.n_levels;
    const struct transformer_call attend = {.encoder = &call->encoder,
                                            .same_encoder = call->same_encoder,
                                            .params = call->params,
                                            .n_params = call->n_params,
                                            .images = call->images,
                                            .n_images = call->n_images};
    struct transformer_call attend_mid = attend;
    struct skips skips = {.n = 1};
    attn_tensor time;
    attn_tensor x = call->sample;
    if (call_check(w, u, call) != ATTN_OK) {
        return w->status;
    }
    attend_mid.key_mass = call->key_mass.rank ? &call->key_mass : NULL;
    time = time_embedding(w, u, &call->timestep);
    x = u->config.center_input ? centred(w, &x) : x;
    const struct block_call block = {&time, &attend, u->config.downsample_padding};
    const struct block_call mid = {&time, &attend_mid, 0};

    skips.of[0] = take_like(w, &x, u->config.levels[0].channels);
    work_api(w)->conv(w, u->conv_in, &x, NULL, NULL, &skips.of[0]);
    for (uint32_t i = 0; i < n; i++) {
        down_block_forward(w, &u->down[i], &block, &skips);
    }
    x = mid_block_forward(w, &u->mid, &mid, &skips.of[skips.n - 1]);
    for (uint32_t i = 0; i < n; i++) {
        x = up_block_forward(w, &u->up[i], &block, &x, &skips);
    }
    work_api(w)->norm(w, &u->norm_out, ACT_SILU, &x, NULL, NULL, NULL, NULL, &x);
    work_api(w)->conv(w, u->conv_out, &x, NULL, NULL, &call->out);
    work_reset(w, mark);
    return w->status;
}

attn_status unet_forward(attn_work *w, struct unet *u, const struct unet_call *call)
{
    const float *scales = w->scales;
    const uint32_t n_scales = w->n_scales;
    attn_status status;
    w->scales = call->scales;
    w->n_scales = call->n_scales;
    status = forward(w, u, call);
    w->scales = scales;
    w->n_scales = n_scales;
    return status;
}
