/* Noise schedulers: which timesteps are run, and how a prediction turns latents into less noisy
 * ones.
 *
 * A scheduler is named by its diffusers class and made from a model's scheduler_config.json. Adding
 * one: a file that defines a `const scheduler_class` and one word in the list in scheduler.c.
 * Arithmetic is fp32 where diffusers' is. A scheduler is used by one thread at a time. */
#ifndef ATTNPLUG_PIPELINE_SCHEDULER_H
#define ATTNPLUG_PIPELINE_SCHEDULER_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

typedef struct scheduler scheduler;

/* What one step reads. `n` floats each, in the caller's layout. */
typedef struct {
    size_t index;              /* into scheduler_timesteps */
    const float *model_output; /* the UNet's prediction, after every guidance */
    const float *sample;       /* the latents that the prediction is for */
    const float *noise;        /* normal; NULL unless scheduler_wants_noise says so */
    float eta;                 /* DDIM's; schedulers without it ignore it */
    size_t n;
} scheduler_call;

/* Reads a scheduler_config.json. `class_name` overrides the file's `_class_name` (NULL: the file
 * decides), as diffusers' from_config does: options then keep the file's values. ATTN_UNSUPPORTED
 * names an unknown class, with those there are, or an option that the class lacks here;
 * ATTN_INVALID a file that does not hold what it must. */
attn_status scheduler_open(const char *path, const char *class_name, scheduler **out,
                           attn_error *err);

/* NULL is fine. */
void scheduler_close(scheduler *s);

/* The diffusers class. */
const char *scheduler_name(const scheduler *s);

/* Starts a run of `steps` steps: must precede all below. ATTN_INVALID where the training schedule
 * has fewer steps or the spacing leaves it. */
attn_status scheduler_set_timesteps(scheduler *s, int64_t steps, attn_error *err);

/* The timesteps of this run, largest first; there may be more than `steps` for schedulers that warm
 * up. They live until the next scheduler_set_timesteps. */
const int64_t *scheduler_timesteps(const scheduler *s, size_t *count);

/* What normal numbers are multiplied by to become start latents. */
float scheduler_init_noise_sigma(const scheduler *s);

/* out = what the UNet is shown for `sample` [n] at step `index`; out may be sample. */
void scheduler_scale_model_input(const scheduler *s, size_t index, const float *sample, float *out,
                                 size_t n);

/* Whether step `index` with this eta adds noise, for which call.noise must then hold n numbers. */
int scheduler_wants_noise(const scheduler *s, size_t index, float eta);

/* out = the latents of the next step; out may be call->sample. */
attn_status scheduler_step(scheduler *s, const scheduler_call *call, float *out, attn_error *err);

/* The noise-free latents and the noise that a prediction stands for, [n] each; what
 * self-attention guidance degrades and puts back. Either may be NULL; neither may be an input. */
void scheduler_predict(const scheduler *s, size_t index, const float *model_output,
                       const float *sample, float *x0, float *noise, size_t n);

/* out = `x0` brought to the noise level of step `index` with `noise`, [n] each; out may be x0. */
void scheduler_add_noise(const scheduler *s, size_t index, const float *x0, const float *noise,
                         float *out, size_t n);

#endif
