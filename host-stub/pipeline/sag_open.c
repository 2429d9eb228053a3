/* sag_open.c: a pipeline from components, its own or another's, and a scheduler. */
#include "sag_private.h"

#include <stdlib.h>
#include <string.h>

/* What components bring cannot be asked for besides. */
static attn_status sharing_check(const attn_sag_open_options *o, attn_error *err)
{
    const struct {
        const char *name;
        int given;
    } options[] = {{"model", o->model != NULL},
                   {"device", o->device != NULL},
                   {"dtype", o->dtype != NULL},
                   {"n_threads", o->n_threads != 0},
                   {"op", o->op != NULL},
                   {"processors", o->n_processors != 0},
                   {"variant", o->variant != NULL},
                   {"loras", o->n_loras != 0},
                   {"inversions", o->n_inversions != 0},
                   {"custom_diffusion", o->custom_diffusion != NULL},
                   {"ip_adapters", o->n_ip_adapters != 0},
                   {"image_encoder", o->image_encoder != NULL},
                   {"ATTN_SAG_NO_SAFETY_CHECKER", (o->flags & ATTN_SAG_NO_SAFETY_CHECKER) != 0},
                   {"ATTN_SAG_EMA", (o->flags & ATTN_SAG_EMA) != 0},
                   {"ATTN_SAG_PROMPTS_ONLY", (o->flags & ATTN_SAG_PROMPTS_ONLY) != 0}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        if (options[i].given) {
            return attn_fail(err, ATTN_INVALID,
                             "components and %s: both given, but components bring theirs",
                             options[i].name);
        }
    }
    if (!o->components->unet) {
        return attn_fail(err, ATTN_INVALID,
                         "components: those of a pipeline with ATTN_SAG_PROMPTS_ONLY, expected one"
                         " with a UNet and a VAE");
    }
    return ATTN_OK;
}

/* A misspelt option would change nothing silently. */
static void scheduler_warn(const attn_sag *sag)
{
    char text[1024];
    if (sag->log && sag->scheduler && *scheduler_warning(sag->scheduler)) {
        snprintf(text, sizeof text, "scheduler_config.json: %s", scheduler_warning(sag->scheduler));
        sag->log(sag->log_ctx, 1, text);
    }
}

static attn_status sag_load(attn_sag *sag, attn_registry *registry, const attn_sag_open_options *o,
                            attn_error *err)
{
    attn_status status;
    if (o->components) {
        status = sharing_check(o, err);
        sag->components = status ? NULL : components_join(o->components->components);
    } else {
        status = components_open(o, &sag->components, err);
    }
    struct sag_components *m = sag->components;
    /* The scheduler before the weights: quick to read and the likeliest to be refused. */
    if (!status && !(o->flags & ATTN_SAG_PROMPTS_ONLY)) {
        status = files_scheduler(&m->files, o->scheduler, o->prediction_type, &sag->scheduler, err);
    }
    if (!status && !o->components) {
        status = components_load(m, registry, o, err);
    }
    if (status) {
        return status;
    }
    scheduler_warn(sag);
    sag->model = m->files.model;
    sag->compute = m->compute;
    sag->tokenizer = m->tokenizer;
    sag->text = m->text;
    sag->unet = m->unet;
    sag->vae = m->vae;
    return ATTN_OK;
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
    vae_encoder_close(sag->encoder);
    scheduler_close(sag->scheduler);
    components_leave(sag->components);
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
    if (!sag->unet) {
        return ATTN_NOT_FOUND;
    }
    return unet_layer(sag->unet, index, layer, processor, op);
}

const char *attn_sag_scheduler(const attn_sag *sag)
{
    return sag->scheduler ? scheduler_name(sag->scheduler) : "";
}
