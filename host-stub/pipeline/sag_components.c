/* sag_components.c: a model's parts, loaded once for any number of pipelines. */
#include "sag_adapters.h"
#include "sag_image_prompts.h"
#include "sag_safety.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What unet_open asks about each layer. */
struct chooser {
    const attn_sag_open_options *options;
    attn_registry *registry;
    struct custom_diffusion *custom;
    struct image_prompts *pictures;
    uint32_t *matches; /* layers that each processor option's glob matched */
};

static attn_status processor_choose(void *ctx, const char *layer, attn_layer_spec *spec,
                                    attn_error *err)
{
    struct chooser *chooser = ctx;
    const attn_sag_open_options *o = chooser->options;
    int32_t named = 0;
    *spec = (attn_layer_spec){.size = sizeof *spec, .processor = "standard"};
    for (uint32_t i = 0; i < o->n_processors; i++) {
        const attn_sag_processor *p = &o->processors[i];
        if (!p->glob || fnmatch(p->glob, layer, 0) == 0) {
            *spec = p->spec;
            chooser->matches[i]++;
            named = 1;
        }
    }
    if (!spec->op) {
        spec->op = o->op;
    }
    attn_status status = custom_diffusion_choose(chooser->custom, layer, named, spec, err);
    return status ? status
                  : image_prompts_choose(chooser->pictures, chooser->registry, layer, spec, err);
}

static attn_status unet_begin(void *ctx, int64_t cross_dim, attn_error *err)
{
    const struct chooser *chooser = ctx;
    attn_status status = custom_diffusion_family(chooser->custom, cross_dim, err);
    return status ? status : image_prompts_family(chooser->pictures, cross_dim, err);
}

/* A name that matches no layer is most likely misspelt, and would change nothing silently. */
static attn_status matches_check(const struct chooser *chooser, attn_error *err)
{
    for (uint32_t i = 0; i < chooser->options->n_processors; i++) {
        if (!chooser->matches[i]) {
            return attn_fail(err, ATTN_NOT_FOUND,
                             "processor for %s: no attention layer of the UNet has such a name",
                             chooser->options->processors[i].glob);
        }
    }
    return ATTN_OK;
}

/* The folder's own tokenizer, else CLIP's where the text encoder has its vocabulary; none where
 * neither fits: such a pipeline still takes embeddings. */
static attn_status tokenizer_load(struct sag_components *m, attn_error *err)
{
    attn_status status = ATTN_OK;
    char *folder = NULL;
    if (asprintf(&folder, "%s/tokenizer", m->files.model) < 0) {
        return attn_fail(err, ATTN_NOMEM, "%s: no memory to load it", m->files.model);
    }
    const int own = !m->files.checkpoint && access(folder, F_OK) == 0;
    if (own) {
        status = tokenizer_open(folder, &m->tokenizer, err);
    } else if (m->text && text_encoder_vocabulary(m->text) == TOKENIZER_CLIP_TOKENS) {
        status = tokenizer_open_clip(text_encoder_openclip(m->text), &m->tokenizer, err);
    }
    if (!status && m->tokenizer && m->text &&
        (int64_t)tokenizer_max_length(m->tokenizer) != text_encoder_tokens(m->text)) {
        status =
            attn_fail(err, ATTN_INVALID, "%s: %s is %zu, but the text encoder has %lld positions",
                      own ? folder : m->files.model,
                      own ? "model_max_length" : "CLIP's own tokenizer's model_max_length",
                      tokenizer_max_length(m->tokenizer), (long long)text_encoder_tokens(m->text));
    }
    free(folder);
    return status;
}

static attn_status text_load(struct sag_components *m, const char *op, attn_error *err)
{
    struct model_source source;
    char *folder;
    attn_status status = files_source(&m->files, PART_TEXT, &source, &folder, err);
    if (!status && files_have(&m->files, &source)) {
        status = text_encoder_open_adapted(m->compute, &source, op, m->loras, &m->text, err);
    }
    free(folder);
    return status ? status : tokenizer_load(m, err);
}

static attn_status unet_load(struct sag_components *m, attn_registry *registry,
                             const attn_sag_open_options *o, attn_error *err)
{
    struct chooser chooser = {
        .options = o, .registry = registry, .custom = m->custom, .pictures = m->pictures};
    struct unet_processors processors = {
        .begin = unet_begin, .choose = processor_choose, .ctx = &chooser, .loras = m->loras};
    struct model_source source;
    char *folder;
    attn_status status = files_source(&m->files, PART_UNET, &source, &folder, err);
    if (!status) {
        chooser.matches = calloc(o->n_processors + 1, sizeof *chooser.matches);
        status = chooser.matches
                     ? unet_open_source(m->compute, &source, &processors, &m->unet, err)
                     : attn_fail(err, ATTN_NOMEM, "%s: no memory to load it", m->files.model);
    }
    if (!status) {
        status = matches_check(&chooser, err);
    }
    if (!status) {
        status = image_prompts_done(m->pictures, err);
    }
    free(chooser.matches);
    free(folder);
    return status;
}

static attn_status vae_load(struct sag_components *m, const char *op, attn_error *err)
{
    struct model_source source;
    char *folder;
    attn_status status = files_source(&m->files, PART_VAE, &source, &folder, err);
    if (!status) {
        status = vae_open_source(m->compute, &source, op, &m->vae, err);
    }
    free(folder);
    return status;
}

/* The parts were made for each other. */
static attn_status fit_check(const struct sag_components *m, attn_error *err)
{
    int64_t channels = unet_in_channels(m->unet);
    if (vae_latent_channels(m->vae) != channels) {
        return attn_fail(
            err, ATTN_INVALID, "%s: the VAE has %lld latent channels, the UNet takes %lld",
            m->files.model, (long long)vae_latent_channels(m->vae), (long long)channels);
    }
    if (m->text && text_encoder_width(m->text) != unet_cross_dim(m->unet)) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: the text encoder's width is %lld, the UNet's cross-attention takes"
                         " %lld",
                         m->files.model, (long long)text_encoder_width(m->text),
                         (long long)unet_cross_dim(m->unet));
    }
    return ATTN_OK;
}

attn_status components_load(struct sag_components *m, attn_registry *registry,
                            const attn_sag_open_options *o, attn_error *err)
{
    const int whole = !(o->flags & ATTN_SAG_PROMPTS_ONLY);
    attn_name op = {.size = sizeof op};
    attn_status status =
        o->op && registry ? attn_name_find_in(registry, o->op, ATTN_NAME_OPS, &op, err) : ATTN_OK;
    if (!status) {
        status = sag_compute(registry, o, &m->compute, err);
    }
    if (!status) {
        m->compute->log = o->log;
        m->compute->log_ctx = o->log_ctx;
    }
    if (!status && whole) {
        status = vae_load(m, o->op, err);
    }
    if (!status) {
        status = adapters_open(m, o, err);
    }
    if (!status) {
        status = text_load(m, o->op, err);
    }
    if (!status) {
        status = inversions_load(m, o, err);
    }
    if (!status && whole) {
        status = safety_open(m, o, err);
    }
    if (!status && whole) {
        status = image_prompts_open(m, o, err);
    }
    if (!status && whole) {
        status = unet_load(m, registry, o, err);
    }
    if (!status && whole) {
        status = fit_check(m, err);
    }
    return status ? status : adapters_done(m, o, err);
}

attn_status components_open(const attn_sag_open_options *o, struct sag_components **out,
                            attn_error *err)
{
    struct sag_components *m = calloc(1, sizeof *m);
    if (!m || pthread_mutex_init(&m->encoders_lock, NULL) != 0) {
        free(m);
        return attn_fail(err, ATTN_NOMEM, "no memory for a model");
    }
    atomic_init(&m->users, 1);
    attn_status status = files_open(&m->files, o, err);
    if (!status && o->op && !(m->op = strdup(o->op))) {
        status = attn_fail(err, ATTN_NOMEM, "no memory for a model");
    }
    if (status) {
        components_leave(m);
        return status;
    }
    *out = m;
    return ATTN_OK;
}

struct sag_components *components_join(struct sag_components *m)
{
    atomic_fetch_add(&m->users, 1);
    return m;
}

void components_leave(struct sag_components *m)
{
    if (!m || atomic_fetch_sub(&m->users, 1) != 1) {
        return;
    }
    vae_close(m->vae);
    unet_close(m->unet);
    image_prompts_close(m->pictures); /* the UNet's layers have weights of it */
    safety_close(m->safety);
    text_encoder_close(m->text);
    custom_diffusion_close(m->custom);
    lora_set_close(m->loras);
    tokenizer_close(m->tokenizer);
    if (m->compute) {
        m->compute->api->destroy(m->compute);
    }
    pthread_mutex_destroy(&m->encoders_lock);
    files_close(&m->files); /* weights are used where they lie in the files */
    free(m->op);
    free(m);
}
