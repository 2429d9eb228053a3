/* sag_run.c: one run from options to result. */
#include "sag_safety.h"

#include <math.h>
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
    float *latents, *masses;
    void *pixels;
    char *warning;
    uint8_t *nsfw;
};

/* numpy's round, halves to even, as diffusers' numpy_to_pil has it; in place. */
static void pixels_to_bytes(float *pixels, size_t n)
{
    uint8_t *bytes = (uint8_t *)pixels;
    for (size_t i = 0; i < n; i++) {
        bytes[i] = (uint8_t)rintf(pixels[i] * 255.0f);
    }
}

/* One image [cells, 3] to [3, cells]. */
static void pixels_to_planes(const float *in, float *out, size_t cells)
{
    for (size_t i = 0; i < cells; i++) {
        for (size_t c = 0; c < 3; c++) {
            out[c * cells + i] = in[i * 3 + c];
        }
    }
}

/* The pictures, fp32 with channels last, as the output type has them. */
static attn_status pixels_convert(struct sag_job *job)
{
    size_t cells = (size_t)(job->height * job->width);
    size_t n = 3 * cells * (size_t)job->images;
    if (job->wanted == OUTPUT_PIL) {
        pixels_to_bytes(job->pixels, n);
    }
    if (job->wanted != OUTPUT_PT) {
        return ATTN_OK;
    }
    float *planes = job_take(job, n * sizeof *planes);
    if (!planes) {
        return attn_fail(job->err, ATTN_NOMEM, "no memory for %lld pictures",
                         (long long)job->images);
    }
    for (size_t i = 0; i < (size_t)job->images; i++) {
        pixels_to_planes((float *)job->pixels + 3 * cells * i, planes + 3 * cells * i, cells);
    }
    free(job->pixels);
    job->pixels = planes;
    return ATTN_OK;
}

static attn_status job_decode(struct sag_job *job)
{
    size_t each = (size_t)(job->height * job->width * 3);
    int64_t batch = decode_batch(job);
    double began = seconds_now();
    unet_rest(job->sag->unet); /* the decoder's activations may be as large */
    job->pixels = job_take(job, each * (size_t)job->images * sizeof(float));
    if (!job->pixels) {
        return attn_fail(job->err, ATTN_NOMEM, "no memory for %lld pictures",
                         (long long)job->images);
    }
    attn_work *w = pass_real(job->sag->pass, NULL, job->err);
    attn_status status = w ? ATTN_OK : ATTN_NOMEM;
    for (int64_t i = 0; i < job->images && !status; i += batch) {
        status = images_decode(w, job, batch, job->start + (size_t)i * job->each,
                               (float *)job->pixels + (size_t)i * each);
    }
    if (!status) {
        status = job_check(job);
    }
    if (!status) {
        status = pixels_convert(job);
    }
    job->seconds_decode = seconds_now() - began;
    return status;
}

static attn_tensor pixels_tensor(const struct sag_job *job)
{
    const int64_t last[4] = {job->images, job->height, job->width, 3};
    const int64_t first[4] = {job->images, 3, job->height, job->width};
    attn_tensor t = host_f32(job->pixels, 4, job->wanted == OUTPUT_PT ? first : last);
    if (job->wanted == OUTPUT_PIL) {
        t.code = ATTN_CODE_UINT;
        t.bits = 8;
    }
    return t;
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
    *owned = (struct owned){job->start, job->masses, job->pixels, job->warning, job->nsfw};
    attn_sag_result r = {.size = result->size,
                         .n_images = (uint32_t)job->images,
                         .latents = host_f32(job->start, 4, latents),
                         .peak_bytes = compute_peak(job->sag->compute),
                         .seconds_encode = job->seconds_encode,
                         .seconds_steps = job->seconds_steps,
                         .seconds_decode = job->seconds_decode,
                         .warning = job->warning ? job->warning : "",
                         .nsfw = job->nsfw,
                         .owner = owned};
    if (job->attended) {
        r.key_mass = host_f32(job->masses, 3, masses);
    }
    if (job->pixels) {
        r.images = pixels_tensor(job);
    }
    memcpy(result, &r, result->size < sizeof r ? result->size : sizeof r);
    job->start = NULL;
    job->masses = NULL;
    job->pixels = NULL;
    job->warning = NULL;
    job->nsfw = NULL;
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
    if (!sag->unet) {
        return attn_fail(err, ATTN_INVALID, "%s: opened for prompts only, so it draws nothing",
                         sag->model);
    }
    atomic_store(&sag->cancelled, 0);
    attn_status status = job_begin(&job, sag, options, err);
    double began = seconds_now();
    const int begun = !status;
    if (!status) {
        status = job_plan(&job);
    }
    if (!status) {
        status = job_denoise(&job);
    }
    if (begun && status == ATTN_NOMEM) {
        fit_suggest(&job);
    }
    job.seconds_steps = seconds_now() - began;
    if (!status && job.wanted != OUTPUT_LATENT) {
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
    free(owned->nsfw);
    free(owned);
    *result = (attn_sag_result){.size = result->size, .warning = ""};
}
