/* sag_vae.c: pictures to latents. */
#include "sag_private.h"

#include <stdlib.h>
#include <string.h>

/* Everything that one call takes. */
struct encoding {
    attn_sag *sag;
    const attn_tensor *images;
    int64_t n, height, width, h, w, channels;
    struct pass *pass;
    float *picture; /* one, -1 to 1 */
    float *moments; /* of one */
    float *noise;   /* of all; NULL: none wanted */
    float *latents; /* of all */
    attn_error *err;
};

static attn_status encoder_load(attn_sag *sag, attn_error *err)
{
    struct model_source source;
    char *folder = NULL;
    attn_status status = ATTN_OK;
    if (!sag->vae) {
        return attn_fail(err, ATTN_INVALID, "%s: opened for prompts only, so it has no VAE",
                         sag->model);
    }
    if (!sag->encoder) {
        status = files_source(&sag->components->files, PART_VAE, &source, &folder, err);
    }
    if (!status && !sag->encoder) {
        status = vae_encoder_open(sag->compute, &source, sag->components->op, &sag->encoder, err);
    }
    free(folder);
    return status;
}

static attn_status images_check(struct encoding *e)
{
    const attn_tensor *t = e->images;
    if (!t || t->rank != 4 || !tensor_f32(t) || t->device_type != ATTN_DEVICE_CPU || !t->data ||
        !tensor_contiguous(t) || t->shape[3] != 3 || t->shape[0] < 1 || t->shape[0] > 65536 ||
        t->shape[1] > 65536 || t->shape[2] > 65536) {
        return attn_fail(e->err, ATTN_INVALID,
                         "images: %s, expected contiguous f32 [n, height, width, 3] in host memory",
                         t ? tensor_describe(t).text : "none");
    }
    e->n = t->shape[0];
    e->height = t->shape[1];
    e->width = t->shape[2];
    e->h = vae_encoder_side(e->sag->encoder, e->height);
    e->w = vae_encoder_side(e->sag->encoder, e->width);
    e->channels = vae_encoder_latent_channels(e->sag->encoder);
    if (e->h < 1 || e->w < 1) {
        return attn_fail(e->err, ATTN_INVALID,
                         "images: %lld x %lld, expected sides of %lld or more", (long long)e->width,
                         (long long)e->height, (long long)vae_factor(e->sag->vae));
    }
    return ATTN_OK;
}

static attn_status arrays_take(struct encoding *e, const uint64_t *seed)
{
    const size_t each = (size_t)(e->channels * e->h * e->w);
    const size_t all = (size_t)e->n * each;
    e->picture = malloc((size_t)(e->height * e->width * 3) * sizeof *e->picture);
    e->moments = malloc(2 * each * sizeof *e->moments);
    e->latents = malloc(all * sizeof *e->latents);
    e->noise = seed ? malloc(all * sizeof *e->noise) : NULL;
    if (!e->picture || !e->moments || !e->latents || (seed && !e->noise)) {
        return attn_fail(e->err, ATTN_NOMEM, "no memory for %lld pictures", (long long)e->n);
    }
    if (seed) {
        random_generator generator;
        random_seed(&generator, *seed);
        random_normal(&generator, e->noise, all);
    }
    return ATTN_OK;
}

static attn_status one_run(attn_work *w, struct encoding *e)
{
    const struct compute_api *api = e->sag->compute->api;
    const int64_t from[4] = {1, e->height, e->width, 3};
    const int64_t to[4] = {1, e->h, e->w, 2 * e->channels};
    const attn_tensor picture = host_f32(e->picture, 4, from);
    const attn_tensor moments = host_f32(e->moments, 4, to);
    const uint64_t mark = work_mark(w);
    const attn_tensor x = work_take(w, NULL, 4, from);
    const attn_tensor y = work_take(w, NULL, 4, to);
    api->write(w, &picture, &x);
    vae_encode(w, e->sag->encoder, &x, &y);
    api->read(w, &y, &moments);
    api->synchronize(w);
    work_reset(w, mark);
    return w->status;
}

/* One at a time, as pictures are decoded: that bounds memory. */
static attn_status all_run(struct encoding *e)
{
    const float factor = vae_scaling_factor(e->sag->vae);
    const size_t values = (size_t)(e->height * e->width * 3);
    const size_t each = (size_t)(e->channels * e->h * e->w);
    attn_status status = pass_create(e->sag->compute, &e->pass, e->err);
    if (!status) {
        status = one_run(pass_dry(e->pass, e->err), e);
    }
    attn_work *w = status ? NULL : pass_real(e->pass, NULL, e->err);
    for (int64_t i = 0; i < e->n && !status; i++) {
        const float *image = (const float *)e->images->data + (size_t)i * values;
        for (size_t k = 0; k < values; k++) {
            e->picture[k] = 2 * image[k] - 1;
        }
        status = w ? one_run(w, e) : ATTN_NOMEM;
        if (!status) {
            vae_latents(e->moments, e->channels, e->h * e->w,
                        e->noise ? e->noise + (size_t)i * each : NULL,
                        e->latents + (size_t)i * each);
        }
    }
    for (size_t i = 0; i < (size_t)e->n * each && !status; i++) {
        e->latents[i] *= factor;
    }
    return status;
}

attn_status attn_sag_vae_encode(attn_sag *sag, const attn_tensor *images, const uint64_t *seed,
                                attn_tensor *latents, attn_error *err)
{
    struct encoding e = {.sag = sag, .images = images, .err = err};
    if (!sag || !latents) {
        return attn_fail(err, ATTN_INVALID,
                         "attn_sag_vae_encode: expected a pipeline and where to put latents");
    }
    *latents = (attn_tensor){0};
    attn_status status = encoder_load(sag, err);
    if (!status) {
        status = images_check(&e);
    }
    if (!status) {
        status = arrays_take(&e, seed);
    }
    if (!status) {
        status = all_run(&e);
    }
    if (!status) {
        const int64_t shape[4] = {e.n, e.channels, e.h, e.w};
        *latents = host_f32(e.latents, 4, shape);
        e.latents = NULL;
    }
    pass_destroy(e.pass);
    free(e.latents);
    free(e.noise);
    free(e.moments);
    free(e.picture);
    return status;
}
