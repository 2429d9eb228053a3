/* Noise schedulers: which timesteps are run, and how a prediction turns latents into less noisy
 * ones.
 *
 * A scheduler is named by its diffusers class and made from a model's scheduler_config.json. What
 * the classes do is that of diffusers v0.26.3 src/diffusers/schedulers/; README.md lists where not.
 * A run is a number of calls of the model, `index` counting them from 0; some schedulers make more
 * calls than steps. A scheduler is used by one thread at a time. */
#ifndef ATTNPLUG_PIPELINE_SCHEDULER_H
#define ATTNPLUG_PIPELINE_SCHEDULER_H

#include <stddef.h>
#include <stdint.h>

#include "json_file.h"

typedef struct scheduler scheduler;

/* What one step reads. `n` floats each, in the caller's layout. */
typedef struct {
    size_t index;              /* into scheduler_timesteps */
    const float *model_output; /* the UNet's prediction, after every guidance */
    const float *sample;       /* the latents that the prediction is for */
    const float *noise;        /* normal; NULL unless scheduler_wants_noise says so */
    float eta;                 /* DDIM's; schedulers without it ignore it */
    size_t n;
    size_t each; /* floats of one picture, of which n is a multiple; 0: n */
} scheduler_call;

/* Reads a scheduler_config.json. `class_name` overrides the file's `_class_name` (NULL: the file
 * decides), as diffusers' from_config does: options that both classes know keep the file's values.
 * It may lack the "Scheduler" at its end. ATTN_UNSUPPORTED names an unknown class, with those there
 * are, or a value that is none of an option's; ATTN_INVALID a file or value that cannot be. */
attn_status scheduler_open(const char *path, const char *class_name, scheduler **out,
                           attn_error *err);

/* A scheduler_config.json as it is, with the Infinity that Python writes and JSON has not as a very
 * large number; statuses as json_file_read's. The caller's to json_decref. */
attn_status scheduler_config_read(const char *path, json_t **out, attn_error *err);

/* The same of what such a file says, which is changed; errors begin with `where`. */
attn_status scheduler_open_config(json_t *config, const char *where, const char *class_name,
                                  scheduler **out, attn_error *err);

/* NULL is fine. */
void scheduler_close(scheduler *s);

/* The diffusers class. */
const char *scheduler_name(const scheduler *s);

/* The classes there are, NULL past the last. */
const char *scheduler_class_name(size_t index);

/* "" or one line: keys of the file that no scheduler knows. Lives as long as the scheduler. */
const char *scheduler_warning(const scheduler *s);

/* Starts a run of `steps` steps: must precede all below. ATTN_INVALID where the training schedule
 * has fewer steps or the spacing leaves it. */
attn_status scheduler_set_timesteps(scheduler *s, int64_t steps, attn_error *err);

/* The timestep of each call, largest first but for schedulers that look ahead; whole numbers or
 * not. They live until the next scheduler_set_timesteps. */
const float *scheduler_timesteps(const scheduler *s, size_t *count);

/* Whether call `index` completes a step (diffusers' rule for its progress callback), and how many
 * calls an ordinary step takes. */
int scheduler_completes_step(const scheduler *s, size_t index);
size_t scheduler_order(const scheduler *s);

/* What normal numbers are multiplied by to become start latents. */
float scheduler_init_noise_sigma(const scheduler *s);

/* out = what the UNet is shown for `sample` [n] at call `index`; out may be sample. */
void scheduler_scale_model_input(const scheduler *s, size_t index, const float *sample, float *out,
                                 size_t n);

/* Whether call `index` with this eta draws noise, for which call.noise must then hold n numbers. */
int scheduler_wants_noise(const scheduler *s, size_t index, float eta);

/* out = the latents of the next call; out may be call->sample. Calls go in order, each with the
 * same n; index 0 starts again. */
attn_status scheduler_step(scheduler *s, const scheduler_call *call, float *out, attn_error *err);

/* The noise-free latents and the noise that a prediction stands for, [n] each, in the scheduler's
 * own parametrisation and before any clipping; what self-attention guidance degrades and puts back.
 * Either may be NULL; neither may be an input. */
void scheduler_predict(const scheduler *s, size_t index, const float *model_output,
                       const float *sample, float *x0, float *noise, size_t n);

/* out = `x0` brought to the noise level of call `index` with `noise`, [n] each; out may be x0. The
 * inverse of scheduler_predict. */
void scheduler_add_noise(const scheduler *s, size_t index, const float *x0, const float *noise,
                         float *out, size_t n);

#endif
