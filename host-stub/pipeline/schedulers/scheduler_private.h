/* What the schedulers share: their class table, noise levels, timesteps and sigmas, and reading
 * options. */
#ifndef ATTNPLUG_PIPELINE_SCHEDULER_PRIVATE_H
#define ATTNPLUG_PIPELINE_SCHEDULER_PRIVATE_H

#include <jansson.h>

#include "scheduler.h"

/* Bits, so that a class can say which it takes. */
typedef enum { PREDICT_EPSILON = 1, PREDICT_SAMPLE = 2, PREDICT_V = 4 } prediction_type;
enum { PREDICT_ANY = PREDICT_EPSILON | PREDICT_SAMPLE | PREDICT_V };
typedef enum { SPACING_LEADING, SPACING_LINSPACE, SPACING_TRAILING } timestep_spacing;
enum {
    BETAS_LINEAR = 1,
    BETAS_SCALED_LINEAR = 2,
    BETAS_SQUARED_COSINE = 4,
    BETAS_SIGMOID = 8,
    BETAS_EXP = 16,
    BETAS_COMMON = BETAS_LINEAR | BETAS_SCALED_LINEAR | BETAS_SQUARED_COSINE
};

/* Options that only some classes have. */
enum {
    TAKES_ZERO_SNR = 1,  /* rescale_betas_zero_snr */
    TAKES_THRESHOLD = 2, /* thresholding, dynamic_thresholding_ratio, sample_max_value */
    TAKES_CLIP = 4,      /* clip_sample, clip_sample_range */
    CLIPS_UNLESS_TOLD = 8,
    TAKES_SPACING = 16, /* timestep_spacing, steps_offset */
    TAKES_KARRAS = 32,  /* use_karras_sigmas, sigma_min, sigma_max */
    TAKES_ONE = 64,     /* set_alpha_to_one */
    ONE_UNLESS_TOLD = 128,
    /* alphas_cumprod ends at 2^-24 rather than at 0, whose sigma would be infinite. */
    TINY_LAST_ALPHA = 256
};

/* The latents of a call are signal * x0 + spread * noise; the UNet is shown them over `stretch`.
 * signal / stretch and spread / stretch are always a point of the unit circle. */
typedef struct {
    float signal, spread, stretch;
} noise_level;

typedef struct {
    const char *name; /* the diffusers class */
    size_t order;     /* calls of the model in an ordinary step */
    size_t own_size;  /* of what s->own points to */
    unsigned takes, betas, predictions;
    double beta_start, beta_end;
    timestep_spacing spacing;
    /* Reads the class's own options into s->own, which is zeroed, and sets s->arrays; the common
     * ones have been read. */
    attn_status (*configure)(scheduler *s, json_t *config, attn_error *err);
    /* Fills timesteps and levels (run_begin), and init_noise_sigma. */
    attn_status (*set_timesteps)(scheduler *s, int64_t steps, attn_error *err);
    attn_status (*step)(scheduler *s, const scheduler_call *call, float *out, attn_error *err);
    int (*wants_noise)(const scheduler *s, size_t index, float eta); /* NULL: never */
} scheduler_class;

struct scheduler {
    const scheduler_class *class;
    void *own; /* the class's options and state */
    char *warning;
    int64_t train_steps;
    prediction_type prediction;
    timestep_spacing spacing;
    int64_t steps_offset;
    int thresholding, clip, karras;
    float threshold_ratio, threshold_most, clip_range;
    double sigma_min, sigma_max; /* NaN: what the schedule has */
    float *alphas_cumprod;       /* [train_steps] */
    float final_alpha;           /* what stands for alphas_cumprod before timestep 0 */
    float *train_sigmas;         /* [train_steps] sqrt((1 - alpha) / alpha) */
    float init_noise_sigma;

    int64_t steps; /* as asked for; 0 before scheduler_set_timesteps */
    size_t count;  /* calls */
    float *timesteps;
    noise_level *levels;
    float *sigmas; /* [count + 1]: each call's, then where the last one ends */

    size_t arrays; /* of n floats, that the class keeps between calls or works in */
    float *state;  /* [arrays + 1][n]; the last is x0_limit's */
    size_t n;
    size_t next; /* the index that the next step must have */
};

/* ---- options.c: an option by name, `fallback` where the file lacks it or says null. Errors name
 * the key, its value and what was expected. ---- */

typedef struct {
    const char *text; /* NULL ends a list */
    int value;
} option_name;

/* A number from low to high. */
attn_status option_number(json_t *config, const char *name, double fallback, double low,
                          double high, double *value, attn_error *err);
attn_status option_whole(json_t *config, const char *name, int64_t fallback, int64_t low,
                         int64_t high, int64_t *value, attn_error *err);
attn_status option_flag(json_t *config, const char *name, int fallback, int *value,
                        attn_error *err);
/* One of `names` whose value is among the bits of `allowed` (0: any). ATTN_UNSUPPORTED lists them.
 */
attn_status option_choice(json_t *config, const char *name, const option_name *names, int allowed,
                          int fallback, int *value, attn_error *err);
/* The text "KEY: VALUE, expected EXPECTED" for a value that cannot be. */
attn_status option_fail(const char *name, const json_t *value, const char *expected,
                        attn_error *err);
/* Drops what the file says was not said (`_use_default_values`); *warning names unknown keys, NULL
 * for none; the caller's to free. */
attn_status options_clean(json_t *config, char **warning, attn_error *err);

/* ---- betas.c: fills alphas_cumprod, final_alpha and train_sigmas, with torch's rounding. ---- */
attn_status betas_fill(scheduler *s, json_t *config, attn_error *err);

/* ---- timesteps.c ---- */

/* Takes memory for `count` calls of a run of `steps` steps. */
attn_status run_begin(scheduler *s, int64_t steps, size_t count, attn_error *err);
/* How many timesteps a spacing that starts from `last` (train_steps unless clipped) gives. */
size_t timesteps_count(const scheduler *s, int64_t steps, int64_t last);
/* Timestep `i` of those, numpy's arithmetic. extra 1: spaced as if there were one step more, the
 * last of which is left out. */
double timestep_at(const scheduler *s, int64_t steps, int64_t last, int64_t extra, int64_t i);
/* For schedulers that look alphas up by timestep: fills timesteps and levels from `list` [count].
 * ATTN_INVALID where one lies outside of training. */
attn_status timesteps_alphas(scheduler *s, int64_t steps, const int64_t *list, size_t count,
                             attn_error *err);
/* set_timesteps of DDIM and DDPM. */
attn_status timesteps_plain(scheduler *s, int64_t steps, attn_error *err);

/* ---- sigmas.c ---- */

/* numpy.interp of the training sigmas at t. */
double sigma_at(const scheduler *s, double t);
/* The timestep, whole or not, whose sigma this is: log-linear between training sigmas. */
double sigma_timestep(const scheduler *s, double sigma);
/* Karras et al. 2022, arXiv 2206.00364, formula 5 with rho 7: `n` sigmas from high to low; the
 * options sigma_min and sigma_max go before `low` and `high`. */
void sigmas_karras(const scheduler *s, double high, double low, double *out, size_t n);
/* levels and init_noise_sigma from s->sigmas, the latents growing with sigma. */
void levels_exploding(scheduler *s);
/* levels from s->sigmas, the latents keeping their variance. */
void levels_preserving(scheduler *s);
/* A run's sigmas and their timesteps, before they are laid over its calls. */
typedef struct {
    double *sigmas, *timesteps;
} sigma_lists;

/* Begins a run of `count` calls of the schedulers whose latents grow, with its sigmas: spaced and
 * interpolated, or Karras'. Lists of `room` places, of which the first `steps` are filled; Karras'
 * timesteps are left between whole numbers unless `rounded`. `whole_range`: his sigmas go over all
 * of training rather than from the first spaced one to the last. sigma_lists_free follows, after a
 * failure too. */
attn_status sigmas_begin(scheduler *s, int64_t steps, size_t count, size_t room, int rounded,
                         int whole_range, sigma_lists *lists, attn_error *err);
void sigma_lists_free(sigma_lists *lists);
/* set_timesteps of those with one call a step that end at no noise. */
attn_status sigmas_set(scheduler *s, int64_t steps, attn_error *err);

/* An ancestral step from one sigma to another goes down to `down` and adds noise of `up`. */
typedef struct {
    float down, up;
} ancestral_split;
ancestral_split ancestral_at(float from, float to);

/* ---- prediction.c ---- */

/* x0 as the options thresholding and clip_sample want it, n floats in pictures of call->each. */
void x0_limit(const scheduler *s, const scheduler_call *call, float *x0);
/* scheduler_predict at the call's index with x0 limited, the noise that which leaves; either may be
 * NULL. */
void prediction_limited(const scheduler *s, const scheduler_call *call, float *x0, float *noise);
/* Where latents grow with sigma: their derivative by it, which is the noise, by way of x0 and with
 * its rounding as diffusers has it. */
void derivative_fill(const scheduler *s, const scheduler_call *call, float *out);
/* The k-th of the class's arrays. */
static inline float *state_array(const scheduler *s, size_t k)
{
    return s->state + k * s->n;
}

extern const scheduler_class scheduler_ddim, scheduler_ddpm, scheduler_pndm,
    scheduler_dpm_multistep, scheduler_dpm_singlestep, scheduler_deis, scheduler_unipc,
    scheduler_lms, scheduler_euler, scheduler_euler_ancestral, scheduler_heun, scheduler_kdpm2,
    scheduler_kdpm2_ancestral;

#endif
