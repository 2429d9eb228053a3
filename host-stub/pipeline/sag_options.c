/* sag_options.c: what a run was asked to do, checked against the model before anything is computed.
 */
#include "sag.h"
#include "sag_private.h"

#include <fnmatch.h>
#include <math.h>
#include <string.h>

/* 512 k pixels a side is no picture, and no machine holds as many latents or tokens: together they
 * keep every product of sizes within 64 bits. */
#define LONGEST_SIDE 524288
#define MOST_IMAGES  65536
#define MOST_TOKENS  (INT64_C(1) << 20)
#define MOST_LATENTS (INT64_C(1) << 40)

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
    if (p && (p->shape[0] < 1 || p->shape[1] < 1 || p->shape[1] > MOST_TOKENS ||
              p->shape[2] != unet_cross_dim(job->sag->unet))) {
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
    if (o->prompt_embeds && o->clip_skip) {
        return attn_fail(job->err, ATTN_INVALID,
                         "clip_skip and prompt_embeds: both given, but embeddings have left the"
                         " text encoder");
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

/* Runtime values that processors of this project take; another's may take more. */
static int kwarg_known(const char *name)
{
    static const char *const patterns[] = {"scale", "*.scale", "ip_adapter_scale.*"};
    int known = 0;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        known |= fnmatch(patterns[i], name, 0) == 0;
    }
    return known;
}

/* Processors pass over names that they do not know, so that one name can reach some layers only: a
 * misspelt one is told of here. */
static attn_status kwargs_check(struct sag_job *job)
{
    const attn_sag_run_options *o = &job->o;
    if (o->n_cross_attention_kwargs && !o->cross_attention_kwargs) {
        return attn_fail(job->err, ATTN_INVALID, "cross_attention_kwargs: none given, expected %u",
                         o->n_cross_attention_kwargs);
    }
    for (uint32_t i = 0; i < o->n_cross_attention_kwargs; i++) {
        const attn_param *p = &o->cross_attention_kwargs[i];
        if (!p->name || !*p->name) {
            return attn_fail(job->err, ATTN_INVALID,
                             "cross_attention_kwargs: value %u of %u has no name", i + 1,
                             o->n_cross_attention_kwargs);
        }
        for (uint32_t k = 0; k < i; k++) {
            if (strcmp(p->name, o->cross_attention_kwargs[k].name) == 0) {
                return attn_fail(job->err, ATTN_INVALID,
                                 "cross_attention_kwargs: %s is given twice", p->name);
            }
        }
        if (kwarg_known(p->name) && p->kind != ATTN_PARAM_INT &&
            (p->kind != ATTN_PARAM_FLOAT || !isfinite(p->f))) {
            return attn_fail(job->err, ATTN_INVALID,
                             "cross_attention_kwargs: %s is no finite number", p->name);
        }
        if (!kwarg_known(p->name) && job->sag->log) {
            char text[256];
            (void)snprintf(text, sizeof text,
                           "cross_attention_kwargs: %s is no name that the processors known here"
                           " take; there are: scale, ADAPTER.scale, ip_adapter_scale.N",
                           p->name);
            job->sag->log(job->sag->log_ctx, 1, text);
        }
    }
    return ATTN_OK;
}

/* LoRA's scale of the call: of the text encoder's terms as well. */
static attn_status lora_scale_read(struct sag_job *job)
{
    const attn_sag_run_options *o = &job->o;
    job->lora_scale = 1;
    for (uint32_t i = 0; i < o->n_cross_attention_kwargs; i++) {
        const attn_param *p = &o->cross_attention_kwargs[i];
        if (strcmp(p->name, "scale") == 0) {
            job->lora_scale = p->kind == ATTN_PARAM_INT ? (double)p->i : p->f;
        }
    }
    lora_set_scales(job->sag->components->loras, LORA_UNET, job->lora_scale, job->lora_scales);
    return ATTN_OK;
}

static attn_status images_count(struct sag_job *job)
{
    job->per_prompt = job->o.num_images_per_prompt ? job->o.num_images_per_prompt : 1;
    if (job->prompts > MOST_IMAGES || job->per_prompt > MOST_IMAGES / job->prompts) {
        return attn_fail(
            job->err, ATTN_INVALID,
            "%lld prompts with num_images_per_prompt %lld: expected at most %d pictures",
            (long long)job->prompts, (long long)job->per_prompt, MOST_IMAGES);
    }
    job->images = job->prompts * job->per_prompt;
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
    int64_t own = given ? given : unet_sample_size(job->sag->unet);
    int64_t side = asked ? asked : own > 0 && own < LONGEST_SIDE ? own * factor : own;
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
    if (job->channels * job->h * job->w > MOST_LATENTS / job->images) {
        return attn_fail(job->err, ATTN_INVALID,
                         "%lld pictures of %lld x %lld: more latents than can be held",
                         (long long)job->images, (long long)job->width, (long long)job->height);
    }
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

attn_status job_read(struct sag_job *job)
{
    static attn_status (*const parts[])(struct sag_job *) = {
        scales_read,     output_read,  prompts_check, kwargs_check,
        lora_scale_read, images_count, sizes_read,    steps_read};
    attn_status status = ATTN_OK;
    for (size_t i = 0; i < sizeof parts / sizeof *parts && !status; i++) {
        status = parts[i](job);
    }
    return status;
}
