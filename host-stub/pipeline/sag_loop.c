/* sag_loop.c: the denoising loop with classifier-free and self-attention guidance, step by step as
 * diffusers v0.26.3 has it (pipeline_stable_diffusion_sag.py, __call__ and sag_masking). */
#include "sag.h"
#include "sag_private.h"

#include <math.h>
#include <string.h>

/* Whole steps in the first `calls` calls of the model: some schedulers take two for each step but
 * the last. */
static size_t steps_done(const struct sag_job *job, size_t calls)
{
    size_t order = scheduler_order(job->sag->scheduler);
    return calls == job->steps ? (calls + order - 1) / order : calls / order;
}

attn_status cancel_check(const struct sag_job *job, size_t calls)
{
    if (atomic_load(&job->sag->cancelled)) {
        return attn_fail(job->err, ATTN_CANCELLED, "stopped after %zu of %zu steps",
                         steps_done(job, calls), steps_done(job, job->steps));
    }
    return ATTN_OK;
}

static void times_fill(struct sag_job *job, size_t step)
{
    for (int64_t i = 0; i < 2 * job->images; i++) {
        job->times[i] = job->timesteps[step];
    }
}

/* The guided prediction into job->predicted, the one that self-attention guidance refers to (the
 * unconditional one where there is one) into job->reference. */
static attn_status step_predict(attn_work *w, struct sag_job *job, size_t step)
{
    scheduler *s = job->sag->scheduler;
    int64_t batch = job->images * (job->guided ? 2 : 1);
    scheduler_scale_model_input(s, step, job->start, job->predicted, job->all);
    for (int64_t b = 0; b < batch; b += job->images) {
        channels_last(job, job->predicted, job->input + (size_t)b * job->each, job->images);
    }
    attn_status status = unet_predict(w, job, batch, &job->encoder, job->attended, step > 0);
    if (status) {
        return status;
    }
    memcpy(job->reference, job->output, job->all * sizeof *job->reference);
    if (job->guided) {
        guidance_combine(job->output, job->output + job->all, job->guidance_scale, job->predicted,
                         job->all);
    } else {
        memcpy(job->predicted, job->output, job->all * sizeof *job->predicted);
    }
    return ATTN_OK;
}

/* One image's x0 blurred where its mask is set. */
static void image_degrade(struct sag_job *job, size_t step, size_t image)
{
    size_t cells = (size_t)(job->mid_h * job->mid_w);
    const float *x0 = job->clean + image * job->each;
    float *out = job->degraded + image * job->each;
    const uint8_t *mask = job->mask;
    if (job->o.sag_masks) {
        mask =
            (const uint8_t *)job->o.sag_masks->data + (step * (size_t)job->images + image) * cells;
    } else {
        sag_mask(job->mass + image * cells, job->mask, cells);
    }
    sag_blur(x0, out, job->scratch, (size_t)job->channels, (size_t)job->h, (size_t)job->w);
    sag_blend(x0, out, mask, out, (size_t)job->channels, (size_t)job->h, (size_t)job->w,
              (size_t)job->mid_h, (size_t)job->mid_w);
}

/* Moves job->predicted away from what the model says of degraded latents. */
static attn_status step_attend(attn_work *w, struct sag_job *job, size_t step)
{
    scheduler *s = job->sag->scheduler;
    size_t cells = (size_t)(job->mid_h * job->mid_w);
    size_t all_cells = (size_t)job->images * cells;
    memcpy(job->masses + step * all_cells, job->mass, all_cells * sizeof *job->masses);
    scheduler_predict(s, step, job->reference, job->start, job->clean, job->noise, job->all);
    for (size_t image = 0; image < (size_t)job->images; image++) {
        image_degrade(job, step, image);
    }
    scheduler_add_noise(s, step, job->degraded, job->noise, job->degraded, job->all);
    scheduler_scale_model_input(s, step, job->degraded, job->degraded, job->all);
    channels_last(job, job->degraded, job->input, job->images);
    /* Without classifier-free guidance both predictions read the same embeddings, so they are what
     * they were from the first degraded one on; with it this shape's first has to project them. */
    attn_status status = unet_predict(w, job, job->images, &job->encoder_sag, 0, step > 0);
    if (!status) {
        sag_combine(job->reference, job->output, job->sag_scale, job->predicted, job->all);
    }
    return status;
}

static attn_status step_finish(struct sag_job *job, size_t step)
{
    scheduler *s = job->sag->scheduler;
    scheduler_call call = {.index = step,
                           .model_output = job->predicted,
                           .sample = job->start,
                           .eta = job->eta,
                           .n = job->all,
                           .each = job->each};
    if (scheduler_wants_noise(s, step, job->eta)) {
        noise_draw(job, job->noise);
        call.noise = job->noise;
    }
    return scheduler_step(s, &call, job->start, job->err);
}

/* A NaN spreads to the whole picture; a run that made one has failed and says when. */
attn_status latents_check(const struct sag_job *job, size_t step)
{
    for (size_t i = 0; i < job->all; i++) {
        if (!isfinite(job->start[i])) {
            return attn_fail(job->err, ATTN_INTERNAL,
                             "step %zu of %zu: the latents are no longer finite numbers; the"
                             " scales may be too large for this model",
                             steps_done(job, step) + 1, steps_done(job, job->steps));
        }
    }
    return ATTN_OK;
}

/* By diffusers' rule: after calls that complete a step, where the call's number is a multiple of
 * callback_steps. */
attn_status callback_tell(const struct sag_job *job, size_t call)
{
    const scheduler *s = job->sag->scheduler;
    uint32_t every = job->o.callback_steps ? job->o.callback_steps : 1;
    size_t step = call / scheduler_order(s);
    size_t steps = steps_done(job, job->steps);
    const int64_t shape[4] = {job->images, job->channels, job->h, job->w};
    attn_tensor latents = host_f32(job->start, 4, shape);
    if (job->o.callback && scheduler_completes_step(s, call) && call % every == 0 &&
        job->o.callback(job->o.callback_ctx, (uint32_t)step, (uint32_t)steps, job->timesteps[call],
                        &latents)) {
        return attn_fail(job->err, ATTN_CANCELLED, "stopped after %zu of %zu steps", step + 1,
                         steps);
    }
    return cancel_check(job, call + 1);
}

attn_status job_denoise(struct sag_job *job)
{
    attn_work *w = pass_real(job->sag->pass, NULL, job->err);
    attn_status status = w ? cancel_check(job, 0) : ATTN_NOMEM;
    if (!status && job->linear) {
        return device_loop(w, job);
    }
    for (size_t step = 0; step < job->steps && !status; step++) {
        times_fill(job, step);
        status = step_predict(w, job, step);
        if (!status && job->attended) {
            status = cancel_check(job, step);
        }
        if (!status && job->attended) {
            status = step_attend(w, job, step);
        }
        if (!status) {
            status = step_finish(job, step);
        }
        if (!status) {
            status = latents_check(job, step);
        }
        if (!status) {
            status = callback_tell(job, step);
        }
    }
    return status;
}
