/* sag_device_loop.c: the denoising loop at a device: both predictions, mask, blur, guidance and
 * scheduler of a step are queued without waiting for the host, and from the second step on are one
 * recording that is replayed.
 *
 * The scheduler is a table of coefficients by then (sag_linear.h); the step's number lies at the
 * device.  Latents are [images, h, w, channels] in fp32.  The host waits for a step where somebody
 * is told of it, and else after every MOST_AHEAD steps, so that a cancelled run ends soon. */
#include "pass.h"
#include "sag_linear.h"
#include "sag_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_AHEAD = 8, MOST_SCALES = 16 };

static const attn_tensor f32_type = {.code = ATTN_CODE_FLOAT, .bits = 32, .lanes = 1};
static const attn_tensor i32_type = {.code = ATTN_CODE_INT, .bits = 32, .lanes = 1};
static const attn_tensor u8_type = {.code = ATTN_CODE_UINT, .bits = 8, .lanes = 1};

/* What a loop has in the arena, and what a step of it queues. */
struct loop {
    struct sag_job *job;
    struct linear_run run;
    int32_t same;     /* keys of the embeddings are kept already */
    attn_tensor step; /* int32 [1] */
    attn_tensor timesteps, scale, middle, renoise, attend,
        next_table;                               /* fp32, a row for each step */
    attn_tensor sample, sample_sag, out, out_sag; /* of the UNet */
    attn_tensor time, time_sag;
    attn_tensor x[LINEAR_LAGS],
        m[LINEAR_LAGS]; /* latents and predictions of this call and before */
    attn_tensor next, noise, reference, clean, epsilon, degraded;
    attn_tensor key_mass, masses; /* [.., cells], [steps, images, cells] */
    attn_tensor masks; /* [steps, images, cells] bytes: in place of the model's; or absent */
    attn_tensor mask;  /* this step's */
};

/* -- memory ------------------------------------------------------------------------------------ */

static attn_tensor take(attn_work *w, const attn_tensor *type, int64_t a, int64_t b, int64_t c)
{
    const int64_t shape[] = {a, b, c};
    return work_take(w, type, b == 0 ? 1 : c == 0 ? 2 : 3, shape);
}

/* Outputs and inputs of the mixture between the passes: predicted, x0, epsilon of the UNet's
 * answers and the latents. */
static int64_t middle_inputs(const struct sag_job *job)
{
    return job->guided ? 3 : 2;
}

static void loop_take(attn_work *w, struct loop *l)
{
    const struct sag_job *job = l->job;
    const int64_t b = job->images, s = (int64_t)job->steps, batch = b * (job->guided ? 2 : 1);
    const int64_t cells = job->mid_h * job->mid_w;
    const int64_t latents[4] = {b, job->h, job->w, job->channels};
    const int64_t shown[4] = {batch, job->h, job->w, job->channels};
    attn_tensor *const f32[] = {&l->next, &l->noise, &l->clean, &l->epsilon, &l->degraded};
    l->step = take(w, &i32_type, 1, 0, 0);
    l->timesteps = take(w, &f32_type, s, 0, 0);
    l->scale = take(w, &f32_type, s, job->guided ? 2 : 1, 1);
    l->middle = take(w, &f32_type, s, job->attended ? 3 : 1, middle_inputs(job));
    l->renoise = take(w, &f32_type, s, 1, 2);
    l->attend = take(w, &f32_type, s, 1, 3);
    l->next_table = take(w, &f32_type, s, 1, (int64_t)l->run.n_inputs);
    l->sample = work_take(w, NULL, 4, shown);
    l->out = work_take(w, NULL, 4, shown);
    l->time = take(w, &f32_type, batch, 0, 0);
    l->sample_sag = work_take(w, NULL, 4, latents);
    l->out_sag = work_take(w, NULL, 4, latents);
    l->time_sag = take(w, &f32_type, b, 0, 0);
    for (size_t i = 0; i < sizeof f32 / sizeof *f32; i++) {
        *f32[i] = work_take(w, &f32_type, 4, latents);
    }
    for (size_t i = 0; i <= l->run.lags; i++) {
        l->x[i] = work_take(w, &f32_type, 4, latents);
        l->m[i] = work_take(w, &f32_type, 4, latents);
    }
    l->key_mass = take(w, &f32_type, batch, cells, 0);
    l->masses = take(w, &f32_type, s, b, cells);
    if (job->o.sag_masks) {
        l->masks = take(w, &u8_type, s, b, cells);
    }
}

/* -- tables ------------------------------------------------------------------------------------ */

static void table_write(attn_work *w, const attn_tensor *table, const float *values)
{
    const attn_tensor host = host_f32(values, table->rank, table->shape);
    work_compute(w)->api->write(w, &host, table);
}

/* The mixture between the passes, of (uncond, cond, latents) or (prediction, latents). */
static void middle_fill(const struct loop *l, float *rows)
{
    const struct sag_job *job = l->job;
    const size_t n = (size_t)middle_inputs(job);
    for (size_t i = 0; i < job->steps; i++) {
        const float *predict = &l->run.predict[4 * i];
        float row[3][3] = {{1, 0, 0}, {predict[0], 0, 0}, {predict[2], 0, 0}};
        if (job->guided) {
            row[0][0] = 1 - job->guidance_scale;
            row[0][1] = job->guidance_scale;
        }
        row[1][n - 1] = predict[1];
        row[2][n - 1] = predict[3];
        for (size_t o = 0; o < (job->attended ? 3u : 1u); o++) {
            memcpy(rows, row[o], n * sizeof *rows);
            rows += n;
        }
    }
}

/* Latents, step 0 and everything that the steps read, to the device. */
static attn_status tables_write(attn_work *w, const struct loop *l)
{
    const struct sag_job *job = l->job;
    const int32_t zero = 0;
    const attn_tensor first = host_tensor(&zero, ATTN_CODE_INT, 32, 1, (const int64_t[]){1});
    float *rows = malloc(job->steps * 9 * sizeof *rows);
    if (!rows) {
        return work_fail(w, ATTN_NOMEM, "no memory for %zu steps", job->steps);
    }
    work_compute(w)->api->write(w, &first, &l->step);
    table_write(w, &l->timesteps, job->timesteps);
    for (size_t i = 0; i < job->steps; i++) {
        rows[i * (size_t)l->scale.shape[1]] = l->run.scale[i];
        rows[(i + 1) * (size_t)l->scale.shape[1] - 1] = l->run.scale[i];
    }
    table_write(w, &l->scale, rows);
    middle_fill(l, rows);
    table_write(w, &l->middle, rows);
    for (size_t i = 0; i < job->steps; i++) { /* degraded latents are shown as latents are */
        rows[2 * i] = l->run.scale[i] * l->run.renoise[2 * i];
        rows[2 * i + 1] = l->run.scale[i] * l->run.renoise[2 * i + 1];
    }
    table_write(w, &l->renoise, rows);
    for (size_t i = 0; i < job->steps; i++) { /* of (predicted, reference, degraded prediction) */
        rows[3 * i] = 1;
        rows[3 * i + 1] = job->sag_scale;
        rows[3 * i + 2] = -job->sag_scale;
    }
    table_write(w, &l->attend, rows);
    table_write(w, &l->next_table, l->run.next);
    channels_last(job, job->start, job->input, job->images);
    table_write(w, &l->x[0], job->input);
    free(rows);
    return w->status;
}

/* -- a step ------------------------------------------------------------------------------------ */

/* Images [first, first + n) of a batch. */
static attn_tensor part(const attn_tensor *t, int64_t first, int64_t n)
{
    attn_tensor p = *t;
    p.shape[0] = n;
    if (t->data) {
        p.data = (char *)t->data + first * t->stride[0] * (t->bits / 8);
    }
    p.align = 0;
    return p;
}

static void predict(attn_work *w, const struct loop *l, const attn_tensor *sample,
                    const attn_tensor *time, const attn_tensor *encoder,
                    const attn_tensor *key_mass, const attn_tensor *out)
{
    const struct sag_job *job = l->job;
    attn_tensor pictures[IMAGE_PROMPTS];
    job_pictures(job, sample->shape[0], pictures);
    struct unet_call call = {.sample = *sample,
                             .timestep = *time,
                             .encoder = *encoder,
                             .out = *out,
                             .same_encoder = l->same,
                             .params = job->o.cross_attention_kwargs,
                             .n_params = job->o.n_cross_attention_kwargs,
                             .scales = job->lora_scales,
                             .n_scales = lora_set_count(job->sag->components->loras),
                             .images = pictures,
                             .n_images = job->n_pictures};
    if (key_mass) {
        call.key_mass = *key_mass;
    }
    work_compute(w)->api->pick(w, &l->timesteps, &l->step, time);
    unet_forward(w, job->sag->unet, &call);
}

/* Predicted noise without self-attention guidance into m[0], what that guidance starts from into
 * clean and epsilon. */
static void queue_guided(attn_work *w, const struct loop *l)
{
    const struct sag_job *job = l->job;
    const int64_t b = job->images;
    const struct compute_api *api = work_compute(w)->api;
    const attn_tensor low = part(&l->sample, 0, b), high = part(&l->sample, b, b);
    const attn_tensor uncond = part(&l->out, 0, b), cond = part(&l->out, b, b);
    const attn_tensor *shown[] = {&low, &high}, *latents[] = {&l->x[0]};
    const attn_tensor *made[] = {&l->m[0], &l->clean, &l->epsilon};
    const attn_tensor *with[] = {&uncond, &cond, &l->x[0]}, *without[] = {&uncond, &l->x[0]};
    api->mix(w, job->guided ? 2 : 1, shown, 1, latents, &l->scale, &l->step);
    predict(w, l, &l->sample, &l->time, &job->encoder, job->attended ? &l->key_mass : NULL,
            &l->out);
    api->mix(w, job->attended ? 3 : 1, made, (uint32_t)middle_inputs(job),
             job->guided ? with : without, &l->middle, &l->step);
}

/* m[0] moved away from what the model says of degraded latents. */
static void queue_attended(attn_work *w, const struct loop *l)
{
    const struct sag_job *job = l->job;
    const struct compute_api *api = work_compute(w)->api;
    const attn_tensor reference = part(&l->out, 0, job->images);
    const attn_tensor mass = part(&l->key_mass, 0, job->images);
    const attn_tensor *shown[] = {&l->sample_sag}, *of[] = {&l->degraded, &l->epsilon};
    const attn_tensor *predicted[] = {&l->m[0]}, *from[] = {&l->m[0], &reference, &l->out_sag};
    api->sag_degrade(w, &mass, job->mid_h, job->mid_w, l->mask.rank ? &l->mask : NULL, &l->clean,
                     &l->degraded);
    api->mix(w, 1, shown, 2, of, &l->renoise, &l->step);
    predict(w, l, &l->sample_sag, &l->time_sag, &job->encoder_sag, NULL, &l->out_sag);
    api->mix(w, 1, predicted, 3, from, &l->attend, &l->step);
}

static const attn_tensor *input_of(const struct loop *l, const struct linear_input *in)
{
    return in->kind == LINEAR_NOISE ? &l->noise
                                    : (in->kind == LINEAR_SAMPLE ? l->x : l->m) + in->lag;
}

static void queue_next(attn_work *w, const struct loop *l)
{
    const struct compute_api *api = work_compute(w)->api;
    const attn_compute *math = &work_compute(w)->plugin;
    const attn_tensor *next[] = {l->run.lags ? &l->next : &l->x[0]}, *inputs[LINEAR_INPUTS];
    for (size_t i = 0; i < l->run.n_inputs; i++) {
        inputs[i] = input_of(l, &l->run.inputs[i]);
    }
    api->mix(w, 1, next, (uint32_t)l->run.n_inputs, inputs, &l->next_table, &l->step);
    for (size_t i = l->run.lags; i > 0; i--) {
        math->copy(w, &l->x[i - 1], &l->x[i]);
        math->copy(w, &l->m[i - 1], &l->m[i]);
    }
    if (l->run.lags) {
        math->copy(w, &l->next, &l->x[0]);
    }
    api->advance(w, &l->step);
}

static attn_status queue_step(attn_work *w, void *arg)
{
    const struct loop *l = arg;
    queue_guided(w, l);
    if (l->job->attended) {
        queue_attended(w, l);
    }
    queue_next(w, l);
    return w->status;
}

/* What a recording of a step depends on besides the arena. */
struct step_key {
    const void *unet, *encoder;
    uint64_t steps, inputs, lags, settings;
    struct linear_input input[LINEAR_INPUTS];
    float scales[MOST_SCALES]; /* of LoRAs */
    struct picture_key pictures;
};

static attn_status step_run(attn_work *w, struct loop *l, size_t step)
{
    const struct sag_job *job = l->job;
    const int64_t cells = job->mid_h * job->mid_w;
    struct step_key key;
    memset(&key, 0, sizeof key); /* padding too: its bytes are compared */
    key.unet = job->sag->unet;
    key.encoder = job->encoder.data;
    key.steps = job->steps;
    key.inputs = l->run.n_inputs;
    key.lags = l->run.lags;
    pictures_key(job->picture_embeds, job->n_pictures, &key.pictures);
    key.settings = (uint64_t)job->attended | (uint64_t)job->guided << 1;
    for (size_t i = 0; i < l->run.n_inputs; i++) {
        key.input[i].kind = l->run.inputs[i].kind;
        key.input[i].lag = l->run.inputs[i].lag;
    }
    l->same = step > 0;
    if (l->masks.rank) {
        l->mask = part(&l->masks, (int64_t)step, 1);
        l->mask.rank = 2;
        l->mask.shape[0] = job->images;
        l->mask.shape[1] = cells;
        l->mask.stride[0] = cells;
        l->mask.stride[1] = 1;
    }
    /* Runtime values of processors and given masks are read when the work is queued. */
    const uint32_t n_scales = lora_set_count(job->sag->components->loras);
    const int plain = !l->masks.rank && !job->o.n_cross_attention_kwargs && n_scales <= MOST_SCALES;
    for (uint32_t i = 0; plain && i < n_scales; i++) {
        key.scales[i] = job->lora_scales[i];
    }
    if (plain && (work_dry(w) || step > 0)) {
        return work_compute(w)->api->replay(w, "step", &key, sizeof key, queue_step, l);
    }
    return queue_step(w, l);
}

/* -- the loop ---------------------------------------------------------------------------------- */

attn_status device_loop_plan(attn_work *w, struct sag_job *job)
{
    struct loop l = {.job = job, .run = *job->linear};
    const uint64_t mark = work_mark(w);
    loop_take(w, &l);
    step_run(w, &l, 0);
    work_reset(w, mark);
    return w->status;
}

static attn_status latents_read(attn_work *w, const struct loop *l)
{
    const struct sag_job *job = l->job;
    const attn_tensor host = host_f32(job->input, 4, l->x[0].shape);
    work_compute(w)->api->read(w, &l->x[0], &host);
    work_compute(w)->api->synchronize(w);
    if (w->status == ATTN_OK) {
        channels_first(job, job->input, job->start, job->images);
    }
    return w->status;
}

static void noise_write(attn_work *w, const struct loop *l)
{
    struct sag_job *job = l->job;
    noise_draw(job, job->noise);
    channels_last(job, job->noise, job->input, job->images);
    table_write(w, &l->noise, job->input);
}

/* The masses of this step's mask, for the result. */
static void masses_keep(attn_work *w, const struct loop *l, size_t step)
{
    const attn_tensor from = part(&l->key_mass, 0, l->job->images);
    attn_tensor to = part(&l->masses, (int64_t)step, 1);
    to.rank = 2;
    to.shape[0] = from.shape[0];
    to.shape[1] = from.shape[1];
    to.stride[0] = from.shape[1];
    to.stride[1] = 1;
    work_compute(w)->plugin.copy(w, &from, &to);
}

static attn_status loop_run(attn_work *w, struct loop *l)
{
    struct sag_job *job = l->job;
    scheduler *s = job->sag->scheduler;
    const uint32_t every = job->o.callback_steps ? job->o.callback_steps : 1;
    for (size_t step = 0; step < job->steps && w->status == ATTN_OK; step++) {
        attn_status status = cancel_check(job, step);
        if (status) {
            return status;
        }
        if (scheduler_wants_noise(s, step, job->eta)) {
            noise_write(w, l);
        }
        step_run(w, l, step);
        if (job->attended) {
            masses_keep(w, l, step);
        }
        if (job->o.callback && scheduler_completes_step(s, step) && step % every == 0) {
            status = latents_read(w, l) ? w->status : latents_check(job, step);
            status = status ? status : callback_tell(job, step);
            if (status) {
                return status;
            }
        } else if (step % MOST_AHEAD == MOST_AHEAD - 1) {
            work_compute(w)->api->synchronize(w);
        }
    }
    return w->status;
}

attn_status device_loop(attn_work *w, struct sag_job *job)
{
    struct loop l = {.job = job, .run = *job->linear};
    const int64_t cells = job->mid_h * job->mid_w;
    const int64_t shape[3] = {(int64_t)job->steps, job->images, cells};
    const uint64_t mark = work_mark(w);
    loop_take(w, &l);
    if (tables_write(w, &l) != ATTN_OK) {
        return w->status;
    }
    if (l.masks.rank) {
        const attn_tensor host = host_tensor(job->o.sag_masks->data, ATTN_CODE_UINT, 8, 3, shape);
        work_compute(w)->api->write(w, &host, &l.masks);
    }
    attn_status status = loop_run(w, &l);
    if (!status && job->attended) {
        const attn_tensor host = host_f32(job->masses, 3, shape);
        work_compute(w)->api->read(w, &l.masses, &host);
    }
    if (!status) {
        status = latents_read(w, &l);
    }
    work_reset(w, mark);
    return status ? status : latents_check(job, job->steps - 1);
}
