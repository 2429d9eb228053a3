/* sag_open.c: loading a model folder into a pipeline, and what may be asked of it. */
#include "sag_private.h"

#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What unet_open asks about each layer. */
struct chooser {
    const attn_sag_open_options *options;
    uint32_t *matches; /* layers that each processor option's glob matched */
};

static attn_status processor_choose(void *ctx, const char *layer, attn_layer_spec *spec,
                                    attn_error *err)
{
    struct chooser *chooser = ctx;
    const attn_sag_open_options *o = chooser->options;
    (void)err;
    *spec = (attn_layer_spec){.size = sizeof *spec, .processor = "standard"};
    for (uint32_t i = 0; i < o->n_processors; i++) {
        const attn_sag_processor *p = &o->processors[i];
        if (!p->glob || fnmatch(p->glob, layer, 0) == 0) {
            *spec = p->spec;
            chooser->matches[i]++;
        }
    }
    if (!spec->op) {
        spec->op = o->op;
    }
    return ATTN_OK;
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

static char *path_join(const char *folder, const char *name)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

static attn_status folder_check(const char *path, attn_error *err)
{
    struct stat info;
    if (!path || !*path) {
        return attn_fail(err, ATTN_INVALID, "model: none given, expected a model's folder");
    }
    if (stat(path, &info) != 0) {
        return attn_fail(err, errno == ENOENT ? ATTN_NOT_FOUND : ATTN_IO,
                         "%s: %s, expected a model's folder", path, strerror(errno));
    }
    if (!S_ISDIR(info.st_mode)) {
        return attn_fail(err, ATTN_INVALID, "%s: not a folder, expected a model's folder", path);
    }
    return ATTN_OK;
}

static attn_status compute_make(attn_sag *sag, attn_registry *registry,
                                const attn_sag_open_options *o, attn_error *err)
{
    if (o->device && strcmp(o->device, "cpu") != 0) {
        return attn_fail(err, ATTN_UNSUPPORTED, "device: %s is not supported; there is: cpu",
                         o->device);
    }
    /* Halves are computed in fp32; an op that takes halves alone gets its inputs as such. */
    static const struct {
        const char *name;
        uint32_t route;
    } dtypes[] = {{"f32", 0}, {"f16", ATTN_ROUTE_AS_F16}, {"bf16", ATTN_ROUTE_AS_BF16}};
    const char *dtype = o->dtype ? o->dtype : "f32";
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(dtypes[i].name, dtype) == 0) {
            attn_status status = compute_cpu_create(registry, o->n_threads, &sag->compute, err);
            if (status == ATTN_OK) {
                sag->compute->route = dtypes[i].route;
            }
            return status;
        }
    }
    return attn_fail(err, ATTN_UNSUPPORTED, "dtype: %s is not supported; there are: f32, f16, bf16",
                     dtype);
}

/* Tokenizer and text encoder, where the folder has them: a pipeline without still takes
 * embeddings. */
static attn_status text_load(attn_sag *sag, const char *op, attn_error *err)
{
    attn_status status = ATTN_OK;
    char *tokens = path_join(sag->model, "tokenizer");
    char *encoder = path_join(sag->model, "text_encoder");
    if (!tokens || !encoder) {
        status = attn_fail(err, ATTN_NOMEM, "%s: no memory to load it", sag->model);
        goto done;
    }
    if (access(tokens, F_OK) == 0) {
        status = tokenizer_open(tokens, &sag->tokenizer, err);
    }
    if (!status && access(encoder, F_OK) == 0) {
        status = text_encoder_open(sag->compute, encoder, op, &sag->text, err);
    }
    if (!status && sag->tokenizer && sag->text &&
        (int64_t)tokenizer_max_length(sag->tokenizer) != text_encoder_tokens(sag->text)) {
        status = attn_fail(err, ATTN_INVALID,
                           "%s: model_max_length is %zu, but the text encoder has %lld positions",
                           tokens, tokenizer_max_length(sag->tokenizer),
                           (long long)text_encoder_tokens(sag->text));
    }
done:
    free(encoder);
    free(tokens);
    return status;
}

static attn_status unet_load(attn_sag *sag, const attn_sag_open_options *o, attn_error *err)
{
    struct chooser chooser = {.options = o};
    struct unet_processors processors = {.choose = processor_choose, .ctx = &chooser};
    char *folder = path_join(sag->model, "unet");
    attn_status status = ATTN_NOMEM;
    chooser.matches = calloc(o->n_processors + 1, sizeof *chooser.matches);
    if (!folder || !chooser.matches) {
        attn_fail(err, status, "%s: no memory to load it", sag->model);
        goto done;
    }
    status = unet_open(sag->compute, folder, &processors, &sag->unet, err);
    if (!status) {
        status = matches_check(&chooser, err);
    }
done:
    free(chooser.matches);
    free(folder);
    return status;
}

static attn_status rest_load(attn_sag *sag, const attn_sag_open_options *o, attn_error *err)
{
    attn_status status = ATTN_NOMEM;
    char *vae = path_join(sag->model, "vae");
    char *settings = path_join(sag->model, "scheduler/scheduler_config.json");
    if (!vae || !settings) {
        attn_fail(err, ATTN_NOMEM, "%s: no memory to load it", sag->model);
    } else {
        status = vae_open(sag->compute, vae, o->op, &sag->vae, err);
    }
    if (!status) {
        status = scheduler_open(settings, o->scheduler, &sag->scheduler, err);
    }
    free(settings);
    free(vae);
    return status;
}

/* The parts were made for each other. */
static attn_status fit_check(const attn_sag *sag, attn_error *err)
{
    int64_t channels = unet_in_channels(sag->unet);
    if (vae_latent_channels(sag->vae) != channels) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: the VAE has %lld latent channels, the UNet takes %lld", sag->model,
                         (long long)vae_latent_channels(sag->vae), (long long)channels);
    }
    if (sag->text && text_encoder_width(sag->text) != unet_cross_dim(sag->unet)) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: the text encoder's width is %lld, the UNet's cross-attention takes"
                         " %lld",
                         sag->model, (long long)text_encoder_width(sag->text),
                         (long long)unet_cross_dim(sag->unet));
    }
    return ATTN_OK;
}

static attn_status sag_load(attn_sag *sag, attn_registry *registry, const attn_sag_open_options *o,
                            attn_error *err)
{
    attn_status status = folder_check(o->model, err);
    if (!status && !(sag->model = strdup(o->model))) {
        status = attn_fail(err, ATTN_NOMEM, "%s: no memory to load it", o->model);
    }
    if (!status) {
        status = compute_make(sag, registry, o, err);
    }
    /* The scheduler first: it is quick to read and the likeliest to be refused. */
    if (!status) {
        status = rest_load(sag, o, err);
    }
    if (!status) {
        status = text_load(sag, o->op, err);
    }
    if (!status) {
        status = unet_load(sag, o, err);
    }
    return status ? status : fit_check(sag, err);
}

attn_status attn_sag_open(attn_registry *registry, const attn_sag_open_options *options,
                          attn_sag **sag, attn_error *err)
{
    attn_sag_open_options o = {0};
    if (!sag || !registry || !options || options->size < sizeof options->size) {
        return attn_fail(err, ATTN_INVALID,
                         "attn_sag_open: expected a registry, options with their"
                         " size, and where to put the pipeline");
    }
    *sag = NULL;
    memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
    attn_sag *made = calloc(1, sizeof *made);
    if (!made) {
        return attn_fail(err, ATTN_NOMEM, "no memory for a pipeline");
    }
    made->log = o.log;
    made->log_ctx = o.log_ctx;
    attn_status status = sag_load(made, registry, &o, err);
    if (status) {
        attn_sag_close(made);
        return status;
    }
    *sag = made;
    return ATTN_OK;
}

void attn_sag_close(attn_sag *sag)
{
    if (!sag) {
        return;
    }
    /* Plans know weights by address, so they go before the models. */
    pass_destroy(sag->pass);
    scheduler_close(sag->scheduler);
    vae_close(sag->vae);
    unet_close(sag->unet);
    text_encoder_close(sag->text);
    tokenizer_close(sag->tokenizer);
    if (sag->compute) {
        sag->compute->api->destroy(sag->compute);
    }
    free(sag->model);
    free(sag);
}

void attn_sag_cancel(attn_sag *sag)
{
    if (sag) {
        atomic_store(&sag->cancelled, 1);
    }
}

attn_status attn_sag_layer(attn_sag *sag, uint32_t index, const char **layer,
                           const char **processor, const char **op)
{
    return unet_layer(sag->unet, index, layer, processor, op);
}

const char *attn_sag_scheduler(const attn_sag *sag)
{
    return scheduler_name(sag->scheduler);
}
