/* sag_fit.c: which smaller setting would have fitted into a device's memory.
 *
 * Each candidate's run is planned as a run is, which tells what its arena would take. */
#include "pass.h"
#include "sag_private.h"
#include "vae_tiles.h"

#include <stdio.h>
#include <string.h>

/* The job with other sizes; its arrays and tensors are not touched in a dry run. */
static struct sag_job resized(const struct sag_job *job, int64_t images, int64_t h, int64_t w)
{
    struct sag_job trial = *job;
    const int64_t factor = vae_factor(job->sag->vae);
    trial.images = images;
    trial.h = h;
    trial.w = w;
    trial.height = h * factor;
    trial.width = w * factor;
    trial.each = (size_t)(job->channels * h * w);
    trial.all = trial.each * (size_t)images;
    trial.err = NULL;
    unet_mid_size(job->sag->unet, h, w, &trial.mid_h, &trial.mid_w);
    trial.encoder = (attn_tensor){.device_type = job->sag->compute->device.type,
                                  .device_id = job->sag->compute->device.id,
                                  .code = job->sag->compute->dtype.code,
                                  .bits = job->sag->compute->dtype.bits,
                                  .lanes = 1,
                                  .align = 256,
                                  .rank = 3,
                                  .shape = {images * (job->guided ? 2 : 1), job->tokens, job->dim}};
    tensor_pack_strides(&trial.encoder);
    trial.encoder_sag = trial.encoder;
    trial.encoder_sag.shape[0] = images;
    return trial;
}

static int fits(struct sag_job trial)
{
    struct compute *c = trial.sag->compute;
    struct pass *pass = NULL;
    int fitting = 0;
    if (pass_create(c, &pass, NULL) == ATTN_OK &&
        job_queue_dry(pass_dry(pass, NULL), &trial) == ATTN_OK) {
        fitting = pass_peak(pass) <= c->api->free_bytes(c);
    }
    pass_destroy(pass);
    return fitting;
}

static int try_tiles(const struct sag_job *job, char *text, size_t capacity)
{
    struct sag_job trial = resized(job, job->images, job->h, job->w);
    if (trial.o.flags & ATTN_SAG_VAE_TILING || trial.wanted == OUTPUT_LATENT ||
        !vae_tiles_help(trial.sag->vae, trial.h, trial.w)) {
        return 0;
    }
    trial.o.flags |= ATTN_SAG_VAE_TILING | ATTN_SAG_VAE_SLICING;
    (void)snprintf(text, capacity, "; with vae_tiling and vae_slicing it would fit");
    return fits(trial);
}

static int try_images(const struct sag_job *job, char *text, size_t capacity)
{
    for (int64_t n = job->images / 2; n > 0; n /= 2) {
        if (fits(resized(job, n, job->h, job->w))) {
            (void)snprintf(text, capacity, "; %lld picture%s at a time would fit", (long long)n,
                           n == 1 ? "" : "s");
            return 1;
        }
    }
    return 0;
}

static int try_sizes(const struct sag_job *job, char *text, size_t capacity)
{
    const int64_t by = unet_downscale(job->sag->unet), factor = vae_factor(job->sag->vae);
    for (int64_t part = 3; part > 0; part--) {
        int64_t h = job->h * part / 4 / by * by, w = job->w * part / 4 / by * by;
        if (h >= by && w >= by && fits(resized(job, 1, h, w))) {
            (void)snprintf(text, capacity, "; one picture of %lld x %lld would fit",
                           (long long)(w * factor), (long long)(h * factor));
            return 1;
        }
    }
    return 0;
}

void fit_suggest(struct sag_job *job)
{
    char text[96];
    attn_error *err = job->err;
    if (!job->sag->compute->api->free_bytes || !err || !err->text || !err->capacity) {
        return;
    }
    /* The plans and the arena of a run that will not be. */
    pass_destroy(job->sag->pass);
    job->sag->pass = NULL;
    if (try_tiles(job, text, sizeof text) || try_images(job, text, sizeof text) ||
        try_sizes(job, text, sizeof text)) {
        const size_t used = strlen(err->text);
        (void)snprintf(err->text + used, err->capacity - used, "%s", text);
    }
}
