/* sag_run.c: one run from options to result. */
#include "sag_private.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* What a result owns. */
struct owned {
    float *latents, *masses, *pixels;
    char *warning;
};

static attn_status job_decode(struct sag_job *job)
{
    size_t each = (size_t)(job->height * job->width * 3);
    double began = seconds_now();
    job->pixels = malloc(each * (size_t)job->images * sizeof *job->pixels);
    if (!job->pixels) {
        return attn_fail(job->err, ATTN_NOMEM, "no memory for %lld pictures",
                         (long long)job->images);
    }
    attn_work *w = pass_real(job->sag->pass, NULL, job->err);
    attn_status status = w ? ATTN_OK : ATTN_NOMEM;
    /* One at a time: the decoder's memory is the most that a run takes. */
    for (size_t i = 0; i < (size_t)job->images && !status; i++) {
        status = image_decode(w, job, job->start + i * job->each, job->pixels + i * each);
    }
    job->seconds_decode = seconds_now() - began;
    return status;
}

/* Moves what the result shows from the job to the result. */
static attn_status result_fill(struct sag_job *job, attn_sag_result *result)
{
    struct owned *owned = calloc(1, sizeof *owned);
    if (!owned) {
        return attn_fail(job->err, ATTN_NOMEM, "no memory for a result");
    }
    const int64_t latents[4] = {job->images, job->channels, job->h, job->w};
    const int64_t masses[3] = {(int64_t)job->steps, job->images, job->mid_h * job->mid_w};
    const int64_t pixels[4] = {job->images, job->height, job->width, 3};
    *owned = (struct owned){job->start, job->masses, job->pixels, job->warning};
    attn_sag_result r = {.size = result->size,
                         .n_images = (uint32_t)job->images,
                         .latents = host_f32(job->start, 4, latents),
                         .peak_bytes = pass_peak(job->sag->pass),
                         .seconds_encode = job->seconds_encode,
                         .seconds_steps = job->seconds_steps,
                         .seconds_decode = job->seconds_decode,
                         .warning = job->warning ? job->warning : "",
                         .owner = owned};
    if (job->attended) {
        r.key_mass = host_f32(job->masses, 3, masses);
    }
    if (job->pixels) {
        r.images = host_f32(job->pixels, 4, pixels);
    }
    if (job->sag->text) {
        r.peak_bytes += text_encoder_peak(job->sag->text);
    }
    memcpy(result, &r, result->size < sizeof r ? result->size : sizeof r);
    job->start = NULL;
    job->masses = NULL;
    job->pixels = NULL;
    job->warning = NULL;
    return ATTN_OK;
}

attn_status attn_sag_run(attn_sag *sag, const attn_sag_run_options *options,
                         attn_sag_result *result, attn_error *err)
{
    struct sag_job job;
    if (!sag || !options || options->size < sizeof options->size || !result ||
        result->size < sizeof *result) {
        return attn_fail(err, ATTN_INVALID,
                         "attn_sag_run: expected a pipeline, options with their"
                         " size, and a result of at least %zu bytes",
                         sizeof *result);
    }
    *result = (attn_sag_result){.size = result->size, .warning = ""};
    atomic_store(&sag->cancelled, 0);
    attn_status status = job_begin(&job, sag, options, err);
    double began = seconds_now();
    if (!status) {
        status = job_plan(&job);
    }
    if (!status) {
        status = job_denoise(&job);
    }
    job.seconds_steps = seconds_now() - began;
    if (!status && !(job.o.flags & ATTN_SAG_LATENT)) {
        status = job_decode(&job);
    }
    if (!status) {
        status = result_fill(&job, result);
    }
    job_end(&job);
    return status;
}

void attn_sag_result_free(attn_sag_result *result)
{
    if (!result || !result->owner) {
        return;
    }
    struct owned *owned = result->owner;
    free(owned->latents);
    free(owned->masses);
    free(owned->pixels);
    free(owned->warning);
    free(owned);
    *result = (attn_sag_result){.size = result->size, .warning = ""};
}
