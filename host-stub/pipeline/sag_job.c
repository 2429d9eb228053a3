/* sag_job.c: what a run was asked to do, checked against the model before anything is computed. */
#include "sag.h"
#include "sag_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* 512 k pixels a side is no picture; it keeps every product of sizes within 64 bits. */
#define LONGEST_SIDE 524288
#define MOST_IMAGES  65536

static attn_status number_check(struct sag_job *job, const char *name, double value, double low,
                                double high)
{
    if (!isfinite(value) || value < low || value > high) {
        return attn_fail(job->err, ATTN_INVALID, "%s: %g, expected a number from %g to %g", name,
                         value, low, high);
    }
    return ATTN_OK;
}

static attn_status scales_read(struct sag_job *job)
{
    const attn_sag_run_options *o = &job->o;
    double guidance = o->flags & ATTN_SAG_SET_GUIDANCE ? o->guidance_scale : 7.5;
    double attention = o->flags & ATTN_SAG_SET_SAG ? o->sag_scale : 0.75;
    attn_status status = number_check(job, "guidance_scale", guidance, -1e6, 1e6);
    if (!status) {
        status = number_check(job, "sag_scale", attention, -1e6, 1e6);
    }
    if (!status) {
        status = number_check(job, "eta", o->eta, 0, 1);
    }
    job->guidance_scale = (float)guidance;
    job->sag_scale = (float)attention;
    job->eta = (float)o->eta;
    job->guided = guidance > 1;
    job->attended = attention > 0;
    return status;
}

static attn_status output_read(struct sag_job *job)
{
    static const char *const names[] = {"np", "pt", "pil", "latent"}; /* enum output_type */
    const char *wanted = job->o.output_type ? job->o.output_type : "np";
    for (int i = 0; i <= OUTPUT_LATENT; i++) {
        if (strcmp(names[i], wanted) == 0) {
            job->wanted = i;
            return ATTN_OK;
        }
    }
    return attn_fail(job->err, ATTN_INVALID, "output_type: \"%s\", expected np, pt, pil or latent",
                     wanted);
}

/* An optional host tensor of fp32 and this rank. */
static attn_status tensor_check(struct sag_job *job, const char *name, const attn_tensor *t,
                                uint32_t rank)
{
    if (t->rank != rank || !tensor_f32(t) || t->device_type != ATTN_DEVICE_CPU || !t->data) {
        return attn_fail(job->err, ATTN_INVALID, "%s: %s, expected rank %u and f32 in host memory",
                         name, tensor_describe(t).text, rank);
    }
    return ATTN_OK;
}

static attn_status embeds_check(struct sag_job *job)
{
    const attn_tensor *p = job->o.prompt_embeds;
    const attn_tensor *n = job->o.negative_prompt_embeds;
    attn_status status = p ? tensor_check(job, "prompt_embeds", p, 3) : ATTN_OK;
    if (!status && n) {
        status = tensor_check(job, "negative_prompt_embeds", n, 3);
    }
    if (status) {
        return status;
    }
    if (p &&
        (p->shape[0] < 1 || p->shape[1] < 1 || p->shape[2] != unet_cross_dim(job->sag->unet))) {
        return attn_fail(job->err, ATTN_INVALID,
                         "prompt_embeds: %s, expected [prompts, tokens, %lld]",
                         tensor_describe(p).text, (long long)unet_cross_dim(job->sag->unet));
    }
    if (n &&
        (n->shape[0] != job->prompts || n->shape[1] != job->tokens || n->shape[2] != job->dim)) {
        return attn_fail(
            job->err, ATTN_INVALID,
            "negative_prompt_embeds: %s, expected [%lld, %lld, %lld] as the prompt has",
            tensor_describe(n).text, (long long)job->prompts, (long long)job->tokens,
            (long long)job->dim);
    }
    return ATTN_OK;
}

static attn_status prompts_check(struct sag_job *job)
{
    const attn_sag_run_options *o = &job->o;
    if (o->prompt_embeds && (o->prompts || o->n_prompts)) {
        return attn_fail(job->err, ATTN_INVALID,
                         "prompt and prompt_embeds: both given, expected one of them");
    }
    if (o->negative_prompt_embeds && o->n_negative) {
        return attn_fail(
            job->err, ATTN_INVALID,
            "negative_prompt and negative_prompt_embeds: both given, expected one of them");
    }
    if (!o->prompt_embeds && (!o->prompts || !o->n_prompts)) {
        return attn_fail(job->err, ATTN_INVALID,
                         "prompt: none given, expected at least one or prompt_embeds");
    }
    attn_status status = ATTN_OK;
    if (o->prompt_embeds) {
        job->prompts = o->prompt_embeds->shape[0];
        job->tokens = o->prompt_embeds->shape[1];
        job->dim = o->prompt_embeds->shape[2];
    } else {
        status = prompts_possible(job->sag, job->err);
        if (status) {
            return status;
        }
        job->prompts = o->n_prompts;
        job->tokens = text_encoder_tokens(job->sag->text);
        job->dim = text_encoder_width(job->sag->text);
    }
    if (job->guided && !o->negative_prompt_embeds) {
        status = prompts_possible(job->sag, job->err);
    }
    if (!status && (o->n_negative > 1 && o->n_negative != job->prompts)) {
        status =
            attn_fail(job->err, ATTN_INVALID,
                      "negative_prompt: %u given, expected none, 1 or %lld, one for each prompt",
                      o->n_negative, (long long)job->prompts);
    }
    if (!status && o->n_negative && !o->negative_prompts) {
        status = attn_fail(job->err, ATTN_INVALID, "negative_prompt: none given, expected %u",
                           o->n_negative);
    }
    return status ? status : embeds_check(job);
}

static attn_status images_count(struct sag_job *job)
{
    job->per_prompt = job->o.num_images_per_prompt ? job->o.num_images_per_prompt : 1;
    job->images = job->prompts * job->per_prompt;
    if (job->prompts > MOST_IMAGES || job->per_prompt > MOST_IMAGES || job->images > MOST_IMAGES) {
        return attn_fail(
            job->err, ATTN_INVALID,
            "%lld prompts with num_images_per_prompt %lld: expected at most %d pictures",
            (long long)job->prompts, (long long)job->per_prompt, MOST_IMAGES);
    }
    if (job->o.n_seeds > 1 && job->o.n_seeds != job->images) {
        return attn_fail(job->err, ATTN_INVALID,
                         "seed: %u given, expected 1 or %lld, one for each picture", job->o.n_seeds,
                         (long long)job->images);
    }
    if (job->o.n_seeds && !job->o.seeds) {
        return attn_fail(job->err, ATTN_INVALID, "seed: none given, expected %u", job->o.n_seeds);
    }
    return ATTN_OK;
}

/* One side in pixels: as asked, else as the latents have it, else the model's own. */
static attn_status side_read(struct sag_job *job, const char *name, uint32_t asked, int64_t given,
                             int64_t *pixels, int64_t *latents)
{
    int64_t factor = vae_factor(job->sag->vae);
    int64_t side = asked ? asked : (given ? given : unet_sample_size(job->sag->unet)) * factor;
    if (side < 1 || side > LONGEST_SIDE || side % factor) {
        return attn_fail(job->err, ATTN_INVALID,
                         "%s: %lld, expected a multiple of %lld, the model's factor, up to %d",
                         name, (long long)side, (long long)factor, LONGEST_SIDE);
    }
    int64_t least = SAG_LEAST_SIDE * factor;
    *pixels = side;
    *latents = side / factor;
    if (job->attended && *latents < SAG_LEAST_SIDE) {
        return attn_fail(job->err, ATTN_INVALID,
                         "%s: %lld is %lld latents, too few for self-attention guidance's blur:"
                         " expected at least %lld, or sag_scale 0",
                         name, (long long)side, (long long)*latents, (long long)least);
    }
    return ATTN_OK;
}

static attn_status sizes_read(struct sag_job *job)
{
    const attn_tensor *given = job->o.latents;
    attn_status status = given ? tensor_check(job, "latents", given, 4) : ATTN_OK;
    if (!status) {
        status = side_read(job, "height", job->o.height, given ? given->shape[2] : 0, &job->height,
                           &job->h);
    }
    if (!status) {
        status = side_read(job, "width", job->o.width, given ? given->shape[3] : 0, &job->width,
                           &job->w);
    }
    if (status) {
        return status;
    }
    job->channels = unet_in_channels(job->sag->unet);
    job->each = (size_t)(job->channels * job->h * job->w);
    job->all = job->each * (size_t)job->images;
    unet_mid_size(job->sag->unet, job->h, job->w, &job->mid_h, &job->mid_w);
    const int64_t want[4] = {job->images, job->channels, job->h, job->w};
    if (given && memcmp(given->shape, want, sizeof want) != 0) {
        return attn_fail(job->err, ATTN_INVALID,
                         "latents: %s, expected [%lld, %lld, %lld, %lld] for %lld x %lld pixels",
                         tensor_describe(given).text, (long long)want[0], (long long)want[1],
                         (long long)want[2], (long long)want[3], (long long)job->width,
                         (long long)job->height);
    }
    return ATTN_OK;
}

static attn_status steps_read(struct sag_job *job)
{
    int64_t steps = job->o.num_inference_steps ? job->o.num_inference_steps : 50;
    attn_status status = scheduler_set_timesteps(job->sag->scheduler, steps, job->err);
    job->timesteps = scheduler_timesteps(job->sag->scheduler, &job->steps);
    const attn_tensor *m = job->o.sag_masks;
    if (!status && m) {
        const int64_t want[3] = {(int64_t)job->steps, job->images, job->mid_h * job->mid_w};
        if (m->rank != 3 || m->bits != 8 || !m->data || memcmp(m->shape, want, sizeof want) != 0 ||
            !tensor_contiguous(m)) {
            status = attn_fail(job->err, ATTN_INVALID,
                               "sag_masks: %s, expected contiguous bytes [%lld, %lld, %lld]",
                               tensor_describe(m).text, (long long)want[0], (long long)want[1],
                               (long long)want[2]);
        }
    }
    return status;
}

/* n floats and one more, so that NULL is a failure. */
static float *floats(size_t n)
{
    return malloc((n + 1) * sizeof(float));
}

static attn_status arrays_take(struct sag_job *job)
{
    size_t cells = (size_t)(job->mid_h * job->mid_w);
    size_t images = (size_t)job->images;
    job->start = floats(job->all);
    job->input = floats(2 * job->all);
    job->output = floats(2 * job->all);
    job->predicted = floats(job->all);
    job->clean = floats(job->all);
    job->noise = floats(job->all);
    job->degraded = floats(job->all);
    job->reference = floats(job->all);
    job->scratch = floats((size_t)(job->h * job->w));
    job->mass = floats(2 * images * cells);
    job->masses = floats(job->attended ? job->steps * images * cells : 1);
    job->times = floats(2 * images);
    job->mask = malloc(cells + 1);
    job->embeds = floats((size_t)(job->guided ? 2 : 1) * images * (size_t)(job->tokens * job->dim));
    job->n_generators = job->o.n_seeds > 1 ? job->o.n_seeds : 1;
    job->generators = calloc(job->n_generators, sizeof *job->generators);
    if (!job->start || !job->input || !job->output || !job->predicted || !job->clean ||
        !job->noise || !job->degraded || !job->reference || !job->scratch || !job->mass ||
        !job->masses || !job->times || !job->mask || !job->embeds || !job->generators) {
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
                                        out, &unsaid, job->err);
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
        status = prompts_encode(job->sag, o->prompts, o->n_prompts, o->clip_skip, positive,
                                &job->warning, job->err);
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
    attn_status status = scales_read(job);
    if (!status) {
        status = output_read(job);
    }
    if (!status) {
        status = prompts_check(job);
    }
    if (!status) {
        status = images_count(job);
    }
    if (!status) {
        status = sizes_read(job);
    }
    if (!status) {
        status = steps_read(job);
    }
    if (!status) {
        status = arrays_take(job);
    }
    if (!status) {
        status = embeds_fill(job);
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
    void *arrays[] = {job->embeds,     job->start,  job->input,    job->output,    job->predicted,
                      job->clean,      job->noise,  job->degraded, job->reference, job->scratch,
                      job->mass,       job->masses, job->times,    job->mask,      job->pixels,
                      job->generators, job->warning};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        free(arrays[i]);
    }
}
