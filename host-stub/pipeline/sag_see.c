/* sag_see.c: the pictures of a run, as the tokens that cross-attention layers read beside the
 * text's.
 *
 * The guided pass gets negative and positive tokens, as it does for the text; the degraded pass of
 * self-attention guidance the first of them.  Upstream's SAG pipeline gives the guided pass one
 * half alone (diffusers v0.26.3, pipeline_stable_diffusion_sag.py). */
#include "sag_image_prompts.h"
#include "tensor.h"

#include <stdlib.h>
#include <string.h>

/* What an adapter's encoder says of its pictures: [negative, positive][pictures][tokens][width]. */
struct seen {
    int64_t pictures, tokens, width;
    float *values;
};

static attn_status no_memory(const struct sag_job *job)
{
    return attn_fail(job->err, ATTN_NOMEM, "no memory for image prompts");
}

static size_t half_of(const struct seen *s)
{
    return (size_t)(s->pictures * s->tokens * s->width);
}

/* -- pictures ---------------------------------------------------------------------------------- */

static attn_status pixels_check(const struct sag_job *job, const attn_tensor *t, uint32_t index)
{
    if (t->rank != 3 || t->shape[2] != 3 || t->bits != 8 || !t->data || t->shape[0] < 1 ||
        t->shape[1] < 1 || !tensor_contiguous(t)) {
        return attn_fail(job->err, ATTN_INVALID,
                         "ip_adapter_image %u: %s, expected contiguous bytes [height, width, 3]",
                         index, tensor_describe(t).text);
    }
    return ATTN_OK;
}

/* One picture as the encoder takes it, into planes. */
static attn_status picture_prepare(const struct sag_job *job, uint32_t index, float *planes,
                                   size_t n)
{
    const attn_sag_image_prompt *given = &job->o.ip_adapter_image[index];
    const struct image_prompts *p = job->sag->components->pictures;
    struct picture read = {0};
    float *made = NULL;
    size_t height;
    size_t width;
    attn_status status;
    if (!given->file == !given->pixels) {
        return attn_fail(job->err, ATTN_INVALID,
                         "ip_adapter_image %u: expected either a file or pixels", index);
    }
    struct picture picture;
    if (given->file) {
        status = picture_read(given->file, &read, job->err);
        picture = read;
    } else {
        const attn_tensor *t = given->pixels;
        status = pixels_check(job, t, index);
        picture = (struct picture){t->data, (size_t)t->shape[0], (size_t)t->shape[1]};
    }
    if (!status) {
        status = image_process(&p->processor, &picture, &made, &height, &width, job->err);
    }
    if (!status) {
        memcpy(planes, made, n * sizeof *planes); /* its size was checked with the encoder's */
    }
    picture_clear(&read);
    free(made);
    return status;
}

static attn_status encode(const struct sag_job *job, const float *planes, int64_t n, int states,
                          float *out)
{
    struct sag_components *m = job->sag->components;
    pthread_mutex_lock(&m->encoders_lock);
    attn_status status = image_encoder_run(m->pictures->encoder, n, planes, states ? NULL : out,
                                           states ? out : NULL, job->err);
    pthread_mutex_unlock(&m->encoders_lock);
    return status;
}

/* The pictures of one adapter.  What stands for none is the encoding of zeros where the adapter
 * reads hidden states, else zeros. */
static attn_status pictures_see(const struct sag_job *job, uint32_t adapter, struct seen *s)
{
    const struct image_prompts *p = job->sag->components->pictures;
    const int states = ip_adapter_wants_states(p->adapters[adapter]);
    const int64_t side = image_encoder_size(p->encoder);
    const size_t each = (size_t)(3 * side * side);
    s->tokens = states ? image_encoder_tokens(p->encoder) : 1;
    s->width = ip_adapter_width(p->adapters[adapter]);
    float *planes = calloc((size_t)s->pictures + 1, each * sizeof *planes);
    s->values = calloc(2 * half_of(s), sizeof *s->values);
    attn_status status = planes && s->values ? ATTN_OK : no_memory(job);
    size_t n = 0;
    for (uint32_t i = 0; i < job->o.n_ip_adapter_image && !status; i++) {
        if (job->o.ip_adapter_image[i].adapter == adapter) {
            status = picture_prepare(job, i, planes + each * n++, each);
        }
    }
    if (!status) {
        status = encode(job, planes, s->pictures, states, s->values + half_of(s));
    }
    if (!status && states && job->guided) {
        status = encode(job, planes + each * n, 1, states, s->values);
        const size_t one = half_of(s) / (size_t)s->pictures;
        for (size_t i = 1; i < (size_t)s->pictures; i++) {
            memcpy(s->values + i * one, s->values, one * sizeof *s->values);
        }
    }
    free(planes);
    return status;
}

/* -- embeddings in their place ----------------------------------------------------------------- */

static attn_status embeds_see(const struct sag_job *job, uint32_t adapter, struct seen *s)
{
    const struct ip_adapter *a = job->sag->components->pictures->adapters[adapter];
    const attn_tensor *t = &job->o.ip_adapter_image_embeds[adapter];
    const int states = ip_adapter_wants_states(a);
    const uint32_t rank = states ? 4 : 3;
    const int enough =
        t->rank == rank && (t->shape[0] == 2 || (t->shape[0] == 1 && (!states || !job->guided)));
    if (!enough || !tensor_f32(t) || !t->data || !tensor_contiguous(t) || t->shape[1] < 1 ||
        t->shape[2] < 1 || tensor_last(t) != ip_adapter_width(a)) {
        return attn_fail(job->err, ATTN_INVALID,
                         "ip_adapter_image_embeds %u: %s, expected contiguous f32 [%s, pictures,"
                         "%s %lld] for %s",
                         adapter, tensor_describe(t).text,
                         !job->guided ? "1 or 2"
                         : states     ? "2"
                                      : "1 or 2",
                         states ? " tokens," : "", (long long)ip_adapter_width(a),
                         ip_adapter_path(a));
    }
    s->pictures = t->shape[1];
    s->tokens = states ? t->shape[2] : 1;
    s->width = tensor_last(t);
    const size_t half = half_of(s);
    s->values = calloc(2 * half, sizeof *s->values);
    if (!s->values) {
        return no_memory(job);
    }
    memcpy(s->values + (t->shape[0] == 2 ? 0 : half), t->data,
           (size_t)t->shape[0] * half * sizeof *s->values);
    return ATTN_OK;
}

/* -- tokens ------------------------------------------------------------------------------------ */

static attn_status project(struct sag_job *job, uint32_t adapter, const struct seen *s)
{
    struct sag_components *m = job->sag->components;
    struct ip_adapter *a = m->pictures->adapters[adapter];
    const int64_t tokens = ip_adapter_tokens(a, s->tokens);
    const int64_t cross = ip_adapter_cross(a);
    const int64_t halves = job->guided ? 2 : 1;
    const size_t half = (size_t)(s->pictures * tokens * cross);
    const int64_t shape[4] = {halves * job->images, s->pictures, tokens, cross};
    float *both = job_take(job, 2 * half * sizeof *both);
    float *all = job_take(job, (size_t)(halves * job->images) * half * sizeof *all);
    attn_status status = both && all ? ATTN_OK : no_memory(job);
    if (!status) {
        pthread_mutex_lock(&m->encoders_lock);
        status = ip_adapter_project(a, 2 * s->pictures, s->tokens, s->values, both, job->err);
        pthread_mutex_unlock(&m->encoders_lock);
    }
    for (int64_t i = 0; i < halves * job->images && !status; i++) {
        const int positive = !job->guided || i >= job->images;
        memcpy(all + (size_t)i * half, both + (positive ? half : 0), half * sizeof *all);
    }
    free(both);
    if (status) {
        free(all);
        return status;
    }
    job->pictures[adapter] = host_f32(all, 4, shape);
    job->n_pictures = adapter + 1;
    return ATTN_OK;
}

/* -- what was asked ---------------------------------------------------------------------------- */

static attn_status given_check(const struct sag_job *job)
{
    const attn_sag_run_options *o = &job->o;
    const struct image_prompts *p = job->sag->components->pictures;
    const uint32_t n = p ? p->n : 0;
    if ((o->n_ip_adapter_image && !o->ip_adapter_image) ||
        (o->n_ip_adapter_image_embeds && !o->ip_adapter_image_embeds)) {
        return attn_fail(job->err, ATTN_INVALID, "%s: none given, expected %u",
                         o->ip_adapter_image ? "ip_adapter_image_embeds" : "ip_adapter_image",
                         o->ip_adapter_image ? o->n_ip_adapter_image_embeds
                                             : o->n_ip_adapter_image);
    }
    if (!n && (o->n_ip_adapter_image || o->n_ip_adapter_image_embeds)) {
        return attn_fail(job->err, ATTN_INVALID,
                         "ip_adapter_image: given, but the pipeline was opened without an"
                         " IP-Adapter");
    }
    if (o->n_ip_adapter_image && o->n_ip_adapter_image_embeds) {
        return attn_fail(job->err, ATTN_INVALID,
                         "ip_adapter_image and ip_adapter_image_embeds: both given, expected one"
                         " of them");
    }
    if (o->n_ip_adapter_image_embeds && o->n_ip_adapter_image_embeds != n) {
        return attn_fail(job->err, ATTN_INVALID,
                         "ip_adapter_image_embeds: %u given, expected %u, one for each IP-Adapter",
                         o->n_ip_adapter_image_embeds, n);
    }
    if (o->n_ip_adapter_image && !p->encoder) {
        return attn_fail(job->err, ATTN_NOT_FOUND,
                         "%s/image_encoder: no such folder, none beside the IP-Adapter and none"
                         " named, so pictures cannot be encoded; ip_adapter_image_embeds can be"
                         " given instead",
                         job->sag->model);
    }
    return ATTN_OK;
}

/* How many pictures each adapter has: at least one. */
static attn_status pictures_count(const struct sag_job *job, int64_t *counts)
{
    const attn_sag_run_options *o = &job->o;
    const uint32_t n = job->sag->components->pictures->n;
    for (uint32_t i = 0; i < o->n_ip_adapter_image; i++) {
        if (o->ip_adapter_image[i].adapter >= n) {
            return attn_fail(job->err, ATTN_INVALID,
                             "ip_adapter_image %u: for IP-Adapter %u, expected 0 to %u", i,
                             o->ip_adapter_image[i].adapter, n - 1);
        }
        counts[o->ip_adapter_image[i].adapter]++;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (!counts[i] && !o->n_ip_adapter_image_embeds) {
            return attn_fail(job->err, ATTN_INVALID,
                             "ip_adapter_image: no picture for IP-Adapter %u, %s", i,
                             ip_adapter_path(job->sag->components->pictures->adapters[i]));
        }
    }
    return ATTN_OK;
}

attn_status job_see(struct sag_job *job)
{
    const struct image_prompts *p = job->sag->components->pictures;
    int64_t counts[IMAGE_PROMPTS] = {0};
    attn_status status = given_check(job);
    if (status || !p) {
        return status;
    }
    status = pictures_count(job, counts);
    for (uint32_t i = 0; i < p->n && !status; i++) {
        struct seen s = {.pictures = counts[i]};
        status =
            job->o.n_ip_adapter_image_embeds ? embeds_see(job, i, &s) : pictures_see(job, i, &s);
        if (!status) {
            status = project(job, i, &s);
        }
        free(s.values);
    }
    return status;
}
