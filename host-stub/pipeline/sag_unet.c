/* sag_unet.c: the models' forward passes on a run's host arrays. */
#include "pass.h"
#include "sag_private.h"
#include "vae_tiles.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const attn_tensor f32_type = {.code = ATTN_CODE_FLOAT, .bits = 32, .lanes = 1};

void channels_last(const struct sag_job *job, const float *in, float *out, int64_t batch)
{
    size_t cells = (size_t)(job->h * job->w);
    size_t channels = (size_t)job->channels;
    for (int64_t b = 0; b < batch; b++) {
        for (size_t i = 0; i < cells; i++) {
            for (size_t c = 0; c < channels; c++) {
                *out++ = in[c * cells + i];
            }
        }
        in += job->each;
    }
}

void channels_first(const struct sag_job *job, const float *in, float *out, int64_t batch)
{
    size_t cells = (size_t)(job->h * job->w);
    size_t channels = (size_t)job->channels;
    for (int64_t b = 0; b < batch; b++) {
        for (size_t c = 0; c < channels; c++) {
            for (size_t i = 0; i < cells; i++) {
                *out++ = in[i * channels + c];
            }
        }
        in += job->each;
    }
}

enum { MOST_SCALES = 12 }; /* that a recording is known by */

/* What is queued again at each step. */
struct prediction {
    struct unet *unet;
    struct unet_call call;
};

static attn_status prediction_queue(attn_work *w, void *arg)
{
    const struct prediction *p = arg;
    return unet_forward(w, p->unet, &p->call);
}

void job_pictures(const struct sag_job *job, int64_t batch, attn_tensor *pictures)
{
    for (uint32_t i = 0; i < job->n_pictures; i++) {
        pictures[i] = job->picture_embeds[i];
        pictures[i].shape[0] = batch; /* negative ones come first, as in job->encoder */
    }
}

void pictures_key(const attn_tensor *pictures, uint32_t n, struct picture_key *key)
{
    memset(key, 0, sizeof *key);
    for (uint32_t i = 0; i < n; i++) {
        key->data[i] = pictures[i].data;
        key->tokens[i] = pictures[i].shape[1] * pictures[i].shape[2];
    }
}

/* Once keys and values of the embeddings are kept, a prediction is the same work at each step.  Not
 * with runtime values for processors: what those make of them is read when the work is queued. */
static attn_status prediction_run(attn_work *w, struct prediction *p)
{
    const struct compute_api *api = work_compute(w)->api;
    struct {
        const void *unet, *encoder;
        double scales[MOST_SCALES];
        struct picture_key pictures;
    } key = {p->unet, p->call.encoder.data, {0}, {{0}, {0}}};
    char name[64];
    if (!api->replay || (!work_dry(w) && !p->call.same_encoder) || p->call.n_params ||
        p->call.n_scales > MOST_SCALES) {
        return prediction_queue(w, p);
    }
    pictures_key(p->call.images, p->call.n_images, &key.pictures);
    for (uint32_t i = 0; i < p->call.n_scales; i++) {
        key.scales[i] = p->call.scales[i];
    }
    (void)snprintf(name, sizeof name, "unet, %lld samples%s", (long long)p->call.sample.shape[0],
                   p->call.key_mass.rank ? " with key mass" : "");
    return api->replay(w, name, &key, sizeof key, prediction_queue, p);
}

attn_status unet_predict(attn_work *w, struct sag_job *job, int64_t batch,
                         const attn_tensor *encoder, int32_t mass, int32_t same)
{
    const struct compute_api *api = job->sag->compute->api;
    const int64_t shape[4] = {batch, job->h, job->w, job->channels};
    const int64_t cells[2] = {batch, job->mid_h * job->mid_w};
    uint64_t mark = work_mark(w);
    attn_tensor pictures[IMAGE_PROMPTS];
    job_pictures(job, batch, pictures);
    struct prediction p = {.unet = job->sag->unet,
                           .call = {
                               .sample = work_take(w, NULL, 4, shape),
                               .timestep = work_take(w, &f32_type, 1, shape),
                               .encoder = *encoder,
                               .out = work_take(w, NULL, 4, shape),
                               .same_encoder = same,
                               .params = job->o.cross_attention_kwargs,
                               .n_params = job->o.n_cross_attention_kwargs,
                               .scales = job->lora_scales,
                               .n_scales = lora_set_count(job->sag->components->loras),
                               .images = pictures,
                               .n_images = job->n_pictures,
                           }};
    attn_tensor input = host_f32(job->input, 4, shape);
    attn_tensor times = host_f32(job->times, 1, shape);
    attn_tensor masses = host_f32(job->mass, 2, cells);
    if (mass) {
        p.call.key_mass = work_take(w, &f32_type, 2, cells);
    }
    api->write(w, &input, &p.call.sample);
    api->write(w, &times, &p.call.timestep);
    prediction_run(w, &p);
    /* The input has been read by now, so its memory takes the answer. */
    api->read(w, &p.call.out, &input);
    if (mass) {
        api->read(w, &p.call.key_mass, &masses);
    }
    api->synchronize(w);
    work_reset(w, mark);
    if (w->status == ATTN_OK && !(w->flags & ATTN_WORK_DRY)) {
        channels_first(job, job->input, job->output, batch);
    }
    return w->status;
}

/* One picture of the batch after another, each in tiles; the latents are in job->input. */
static void images_tile(attn_work *w, struct sag_job *job, int64_t batch, float *pixels)
{
    const size_t each = (size_t)(job->height * job->width * 3);
    for (size_t b = 0; b < (size_t)batch; b++) {
        vae_decode_tiles(w, job->sag->vae, job->h, job->w, job->input + b * job->each,
                         pixels ? pixels + b * each : NULL);
    }
}

static void images_whole(attn_work *w, struct sag_job *job, int64_t batch, float *pixels)
{
    const struct compute_api *api = job->sag->compute->api;
    const int64_t from[4] = {batch, job->h, job->w, job->channels};
    const int64_t to[4] = {batch, job->height, job->width, 3};
    uint64_t mark = work_mark(w);
    attn_tensor x = work_take(w, NULL, 4, from);
    attn_tensor y = work_take(w, NULL, 4, to);
    attn_tensor input = host_f32(job->input, 4, from);
    attn_tensor picture = host_f32(pixels, 4, to);
    api->write(w, &input, &x);
    vae_decode(w, job->sag->vae, &x, &y);
    api->read(w, &y, &picture);
    api->synchronize(w);
    work_reset(w, mark);
}

/* Pixels of -1 to 1 as 0 to 1.  A decoder that runs out of its element type's range makes NaN. */
static attn_status pixels_scale(const struct sag_job *job, int64_t batch, float *pixels)
{
    const int64_t n = batch * job->height * job->width * 3;
    for (int64_t i = 0; i < n; i++) {
        float value = pixels[i] / 2 + 0.5f;
        if (isnan(value)) {
            return attn_fail(job->err, ATTN_INTERNAL,
                             "the decoder's pixels are not numbers; where dtype is f16, bf16 or"
                             " f32 may do");
        }
        pixels[i] = value < 0 ? 0 : value > 1 ? 1 : value;
    }
    return ATTN_OK;
}

attn_status images_decode(attn_work *w, struct sag_job *job, int64_t batch, const float *latents,
                          float *pixels)
{
    int real = latents && pixels && !(w->flags & ATTN_WORK_DRY);
    if (real) {
        float factor = vae_scaling_factor(job->sag->vae);
        channels_last(job, latents, job->input, batch);
        for (size_t i = 0; i < (size_t)batch * job->each; i++) {
            job->input[i] /= factor;
        }
    }
    if (job->o.flags & ATTN_SAG_VAE_TILING && vae_tiles_help(job->sag->vae, job->h, job->w)) {
        images_tile(w, job, batch, pixels);
    } else {
        images_whole(w, job, batch, pixels);
    }
    return real && w->status == ATTN_OK ? pixels_scale(job, batch, pixels) : w->status;
}

int64_t decode_batch(const struct sag_job *job)
{
    return job->o.flags & ATTN_SAG_VAE_SLICING ? 1 : job->images;
}

/* Plans are kept for the next run of the same shapes; those of other shapes would only hold
 * memory. */
static attn_status pass_renew(struct sag_job *job)
{
    attn_sag *sag = job->sag;
    const int64_t many = 16, steps = (int64_t)job->steps < many ? (int64_t)job->steps : many;
    const int64_t wanted[6] = {job->images, job->guided, job->h, job->w, job->tokens, steps};
    if (sag->pass && memcmp(wanted, sag->planned, sizeof wanted) == 0) {
        return ATTN_OK;
    }
    pass_destroy(sag->pass);
    sag->pass = NULL;
    memcpy(sag->planned, wanted, sizeof wanted);
    attn_status status = pass_create(sag->compute, &sag->pass, job->err);
    if (!status) {
        pass_expect(sag->pass, (uint32_t)steps);
    }
    return status;
}

/* Where the device has loops and the scheduler is linear. */
static attn_status linear_make(struct sag_job *job)
{
    if (!job->sag->compute->api->mix || job->linear) {
        return ATTN_OK;
    }
    job->linear = calloc(1, sizeof *job->linear);
    int found =
        job->linear ? linear_read(job->sag->scheduler, job->steps, job->eta, job->linear) : -1;
    if (found != 1) {
        free(job->linear);
        job->linear = NULL;
    }
    return found < 0 ? attn_fail(job->err, ATTN_NOMEM, "no memory for %zu steps", job->steps)
                     : ATTN_OK;
}

attn_status job_queue_dry(attn_work *w, struct sag_job *job)
{
    const int64_t batch = job->images * (job->guided ? 2 : 1);
    if (job->linear) {
        device_loop_plan(w, job);
    } else {
        unet_predict(w, job, batch, &job->encoder, job->attended, 0);
    }
    if (job->attended && !job->linear) {
        unet_predict(w, job, job->images, &job->encoder_sag, 0, 0);
    }
    if (job->wanted != OUTPUT_LATENT) {
        images_decode(w, job, decode_batch(job), NULL, NULL);
    }
    return w->status;
}

attn_status job_plan(struct sag_job *job)
{
    struct compute *c = job->sag->compute;
    int64_t batch = job->images * (job->guided ? 2 : 1);
    const int64_t shape[3] = {batch, job->tokens, job->dim};
    attn_tensor embeds = host_f32(job->embeds, 3, shape);
    attn_status status = pass_renew(job);
    if (!status) {
        status = linear_make(job);
    }
    if (!status) {
        status = c->api->upload(c, &embeds, NULL, &job->encoder, job->err);
    }
    for (uint32_t i = 0; i < job->n_pictures && !status; i++) {
        status = c->api->upload(c, &job->pictures[i], NULL, &job->picture_embeds[i], job->err);
    }
    if (status) {
        return status;
    }
    job->encoder_sag = job->encoder;
    job->encoder_sag.shape[0] = job->images;
    return job_queue_dry(pass_dry(job->sag->pass, job->err), job);
}
