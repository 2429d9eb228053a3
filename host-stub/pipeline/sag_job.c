/* sag_job.c: one run's arrays: embeddings, start latents, and room for every step. */
#include "sag_image_prompts.h"

#include <stdlib.h>
#include <string.h>

void *job_take(struct sag_job *job, size_t bytes)
{
    void *memory = malloc(bytes + 1); /* so that NULL is a failure */
    if (memory && job->sag->compute->device.type == ATTN_DEVICE_CPU) { /* a GPU counts its own */
        job->bytes += bytes;
        compute_took(job->sag->compute, bytes);
    }
    return memory;
}

static float *floats(struct sag_job *job, size_t n)
{
    return job_take(job, n * sizeof(float));
}

static attn_status arrays_take(struct sag_job *job)
{
    size_t cells = (size_t)(job->mid_h * job->mid_w);
    size_t images = (size_t)job->images;
    job->start = floats(job, job->all);
    job->input = floats(job, 2 * job->all);
    job->output = floats(job, 2 * job->all);
    job->predicted = floats(job, job->all);
    job->clean = floats(job, job->all);
    job->noise = floats(job, job->all);
    job->degraded = floats(job, job->all);
    job->reference = floats(job, job->all);
    job->scratch = floats(job, (size_t)(job->h * job->w));
    job->mass = floats(job, 2 * images * cells);
    job->masses = floats(job, job->attended ? job->steps * images * cells : 1);
    job->times = floats(job, 2 * images);
    job->mask = job_take(job, cells);
    job->embeds =
        floats(job, (size_t)(job->guided ? 2 : 1) * images * (size_t)(job->tokens * job->dim));
    job->nsfw = calloc(images + 1, 1);
    job->n_generators = job->o.n_seeds > 1 ? job->o.n_seeds : 1;
    job->generators = calloc(job->n_generators, sizeof *job->generators);
    if (!job->start || !job->input || !job->output || !job->predicted || !job->clean ||
        !job->noise || !job->degraded || !job->reference || !job->scratch || !job->mass ||
        !job->masses || !job->times || !job->mask || !job->embeds || !job->generators ||
        !job->nsfw) {
        return attn_fail(job->err, ATTN_NOMEM, "no memory for %lld pictures of %lld x %lld",
                         (long long)job->images, (long long)job->width, (long long)job->height);
    }
    return ATTN_OK;
}

/* Spreads [prompts] embeddings over [images] in place: each prompt's pictures stand together. */
static void embeds_repeat(const struct sag_job *job, float *embeds)
{
    size_t n = (size_t)(job->tokens * job->dim);
    for (int64_t i = job->images - 1; i >= 0; i--) {
        memmove(embeds + (size_t)i * n, embeds + (size_t)(i / job->per_prompt) * n,
                n * sizeof *embeds);
    }
}

/* Any strides to packed ones. */
static void embeds_copy(const attn_tensor *t, float *out)
{
    const float *data = t->data;
    for (int64_t i = 0; i < t->shape[0]; i++) {
        for (int64_t j = 0; j < t->shape[1]; j++) {
            for (int64_t k = 0; k < t->shape[2]; k++) {
                *out++ = data[i * t->stride[0] + j * t->stride[1] + k * t->stride[2]];
            }
        }
    }
}

static attn_status negative_encode(struct sag_job *job, float *out)
{
    const attn_sag_run_options *o = &job->o;
    uint32_t n = o->n_negative ? o->n_negative : 1;
    const char *const empty[] = {""};
    char *unsaid = NULL; /* diffusers warns of cut prompts, not of cut negative ones */
    attn_status status = prompts_encode(job->sag, o->n_negative ? o->negative_prompts : empty, n, 0,
                                        job->lora_scale, out, &unsaid, job->err);
    free(unsaid);
    size_t floats_each = (size_t)(job->tokens * job->dim);
    for (int64_t i = n; i < job->prompts && !status; i++) {
        memcpy(out + (size_t)i * floats_each, out, floats_each * sizeof *out);
    }
    return status;
}

static attn_status embeds_fill(struct sag_job *job)
{
    const attn_sag_run_options *o = &job->o;
    attn_status status = ATTN_OK;
    size_t half = (size_t)job->images * (size_t)(job->tokens * job->dim);
    float *positive = job->embeds + (job->guided ? half : 0);
    if (o->prompt_embeds) {
        embeds_copy(o->prompt_embeds, positive);
    } else {
        status = prompts_encode(job->sag, o->prompts, o->n_prompts, o->clip_skip, job->lora_scale,
                                positive, &job->warning, job->err);
    }
    if (!status) {
        embeds_repeat(job, positive);
    }
    if (!status && job->guided) {
        if (o->negative_prompt_embeds) {
            embeds_copy(o->negative_prompt_embeds, job->embeds);
        } else {
            status = negative_encode(job, job->embeds);
        }
        embeds_repeat(job, job->embeds);
    }
    return status;
}

void noise_draw(struct sag_job *job, float *out)
{
    if (job->n_generators == 1) {
        random_normal(&job->generators[0], out, job->all);
        return;
    }
    for (uint32_t i = 0; i < job->n_generators; i++) {
        random_normal(&job->generators[i], out + i * job->each, job->each);
    }
}

static void start_fill(struct sag_job *job)
{
    float sigma = scheduler_init_noise_sigma(job->sag->scheduler);
    for (uint32_t i = 0; i < job->n_generators; i++) {
        random_seed(&job->generators[i], job->o.n_seeds ? job->o.seeds[i] : 0);
    }
    const attn_tensor *t = job->o.latents;
    if (t) {
        float *out = job->start;
        const int64_t *s = t->stride;
        for (int64_t i = 0; i < t->shape[0] * t->shape[1]; i++) {
            const float *plane =
                (const float *)t->data + i / t->shape[1] * s[0] + i % t->shape[1] * s[1];
            for (int64_t k = 0; k < job->h * job->w; k++) {
                *out++ = plane[k / job->w * s[2] + k % job->w * s[3]];
            }
        }
    } else {
        noise_draw(job, job->start);
    }
    for (size_t i = 0; i < job->all; i++) {
        job->start[i] *= sigma;
    }
}

attn_status job_begin(struct sag_job *job, attn_sag *sag, const attn_sag_run_options *options,
                      attn_error *err)
{
    double began = seconds_now();
    *job = (struct sag_job){.sag = sag, .err = err};
    memcpy(&job->o, options, options->size < sizeof job->o ? options->size : sizeof job->o);
    attn_status status = job_read(job);
    if (!status) {
        status = arrays_take(job);
    }
    if (!status) {
        status = embeds_fill(job);
    }
    if (!status && sag->text) {
        text_encoder_rest(sag->text); /* not needed again in this run */
    }
    if (!status) {
        status = job_see(job);
    }
    if (!status) {
        start_fill(job);
        job->seconds_encode = seconds_now() - began;
    }
    return status;
}

void job_end(struct sag_job *job)
{
    struct compute *c = job->sag->compute;
    c->api->unload(c, &job->encoder);
    for (uint32_t i = 0; i < job->n_pictures; i++) {
        c->api->unload(c, &job->picture_embeds[i]);
        free(job->pictures[i].data);
    }
    compute_gave(c, job->bytes);
    if (job->linear) {
        linear_free(job->linear);
        free(job->linear);
    }
    void *arrays[] = {job->embeds,     job->start,   job->input,    job->output,    job->predicted,
                      job->clean,      job->noise,   job->degraded, job->reference, job->scratch,
                      job->mass,       job->masses,  job->times,    job->mask,      job->pixels,
                      job->generators, job->warning, job->nsfw};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        free(arrays[i]);
    }
}
