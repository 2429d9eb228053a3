/* What the schedulers share: their class table, their noise schedule, and reading options. */
#ifndef ATTNPLUG_PIPELINE_SCHEDULER_PRIVATE_H
#define ATTNPLUG_PIPELINE_SCHEDULER_PRIVATE_H

#include <jansson.h>

#include "scheduler.h"

typedef enum { PREDICT_EPSILON, PREDICT_SAMPLE, PREDICT_V } prediction_type;
typedef enum { SPACING_LEADING, SPACING_LINSPACE, SPACING_TRAILING } timestep_spacing;

typedef struct {
    const char *name; /* the diffusers class */
    /* Reads the class's own options and makes `s->own`; the common ones have been read. */
    attn_status (*configure)(scheduler *s, json_t *config, attn_error *err);
    attn_status (*set_timesteps)(scheduler *s, int64_t steps, attn_error *err);
    attn_status (*step)(scheduler *s, const scheduler_call *call, float *out, attn_error *err);
    int (*wants_noise)(const scheduler *s, size_t index, float eta);
    void (*destroy)(scheduler *s); /* frees s->own; may be NULL */
} scheduler_class;

struct scheduler {
    const scheduler_class *class;
    void *own; /* the class's options and state */
    int64_t train_steps;
    prediction_type prediction;
    timestep_spacing spacing;
    int64_t steps_offset;
    float *alphas_cumprod; /* [train_steps] */
    float init_noise_sigma;
    int64_t steps; /* as asked for; 0 before scheduler_set_timesteps */
    int64_t *timesteps;
    size_t count;
};

/* An option by name, `fallback` where the file lacks it or says null; ATTN_INVALID for another
 * type. */
attn_status option_number(json_t *config, const char *name, double fallback, double *value,
                          attn_error *err);
attn_status option_flag(json_t *config, const char *name, int fallback, int *value,
                        attn_error *err);

/* The index of the option's text in `choices` (ends with NULL); ATTN_UNSUPPORTED lists them. */
attn_status option_choice(json_t *config, const char *name, const char *const *choices,
                          int fallback, int *value, attn_error *err);

/* Fills s->alphas_cumprod from the file's beta options, with torch's rounding. */
attn_status schedule_fill(scheduler *s, json_t *config, attn_error *err);

/* Timesteps evenly spaced as s->spacing says, numpy's rounding; into s->timesteps. */
attn_status timesteps_space(scheduler *s, int64_t steps, attn_error *err);

/* What one predicted value stands for, the sample being signal * x0 + spread * noise. */
static inline void prediction_split(prediction_type type, float signal, float spread, float output,
                                    float sample, float *x0, float *noise)
{
    switch (type) {
    case PREDICT_EPSILON:
        *x0 = (sample - spread * output) / signal;
        *noise = output;
        break;
    case PREDICT_SAMPLE:
        *x0 = output;
        *noise = (sample - signal * output) / spread;
        break;
    case PREDICT_V:
        *x0 = signal * sample - spread * output;
        *noise = signal * output + spread * sample;
        break;
    }
}

/* out = sqrt(alpha) x0 + sqrt(1 - alpha) noise, n each; out may be either input. */
void noise_mix(float alpha, const float *x0, const float *noise, float *out, size_t n);

extern const scheduler_class scheduler_ddim;

#endif
