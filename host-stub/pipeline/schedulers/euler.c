/* Euler's method over sigma: algorithm 2 of Karras et al. 2022, arXiv 2206.00364, without churn, as
 * in diffusers v0.26.3 src/diffusers/schedulers/scheduling_euler_discrete.py; and the ancestral
 * one, which takes more noise out and puts some back, scheduling_euler_ancestral_discrete.py. */
#include "scheduler_private.h"

#include <math.h>

enum { DERIVATIVE, ARRAYS };

typedef struct {
    int log_linear, continuous;
} euler;

static const option_name interpolation_names[] = {{"linear", 0}, {"log_linear", 1}, {NULL, 0}};
static const option_name type_names[] = {{"discrete", 0}, {"continuous", 1}, {NULL, 0}};

static attn_status euler_configure(scheduler *s, json_t *config, attn_error *err)
{
    euler *own = s->own;
    s->arrays = ARRAYS;
    attn_status status = option_choice(config, "interpolation_type", interpolation_names, 0, 0,
                                       &own->log_linear, err);
    return status ? status
                  : option_choice(config, "timestep_type", type_names, 0, 0, &own->continuous, err);
}

/* Sigmas evenly spaced in their logarithm, with both ends of training. diffusers makes one more
 * than there are steps, so the last step ends at the least sigma rather than at none. */
static void sigmas_log_linear(const scheduler *s, double *sigmas, size_t count)
{
    float from = logf(s->train_sigmas[s->train_steps - 1]);
    float to = logf(s->train_sigmas[0]);
    for (size_t i = 0; i < count; i++) {
        double ramp = count > 1 ? (double)i / (double)(count - 1) : 0;
        sigmas[i] = exp((double)from + ramp * ((double)to - (double)from));
    }
}

static attn_status euler_set_timesteps(scheduler *s, int64_t steps, attn_error *err)
{
    const euler *own = s->own;
    int longer = own->log_linear && !s->karras;
    int continuous = own->continuous && s->prediction == PREDICT_V;
    size_t n_sigmas = (size_t)steps + (longer ? 1 : 0);
    size_t count = continuous ? n_sigmas : (size_t)steps;
    sigma_lists lists;
    attn_status status = sigmas_begin(s, steps, count, n_sigmas, 0, own->log_linear, &lists, err);
    if (!status && longer) {
        sigmas_log_linear(s, lists.sigmas, n_sigmas);
    }
    for (size_t i = 0; i < count && !status; i++) {
        s->sigmas[i] = (float)lists.sigmas[i];
        s->timesteps[i] = continuous ? 0.25f * logf(s->sigmas[i]) : (float)lists.timesteps[i];
    }
    if (!status) {
        s->sigmas[count] = count < n_sigmas ? (float)lists.sigmas[count] : 0;
        levels_exploding(s);
    }
    sigma_lists_free(&lists);
    return status;
}

static attn_status euler_step(scheduler *s, const scheduler_call *call, float *out, attn_error *err)
{
    float *derivative = state_array(s, DERIVATIVE);
    float distance = s->sigmas[call->index + 1] - s->sigmas[call->index];
    (void)err;
    derivative_fill(s, call, derivative);
    for (size_t i = 0; i < call->n; i++) {
        out[i] = call->sample[i] + derivative[i] * distance;
    }
    return ATTN_OK;
}

static attn_status ancestral_configure(scheduler *s, json_t *config, attn_error *err)
{
    (void)config;
    (void)err;
    s->arrays = ARRAYS;
    return ATTN_OK;
}

static int ancestral_wants_noise(const scheduler *s, size_t index, float eta)
{
    (void)s;
    (void)index;
    (void)eta;
    return 1;
}

static attn_status ancestral_step(scheduler *s, const scheduler_call *call, float *out,
                                  attn_error *err)
{
    float *derivative = state_array(s, DERIVATIVE);
    float from = s->sigmas[call->index];
    ancestral_split split = ancestral_at(from, s->sigmas[call->index + 1]);
    float distance = split.down - from;
    (void)err;
    derivative_fill(s, call, derivative);
    for (size_t i = 0; i < call->n; i++) {
        out[i] = call->sample[i] + derivative[i] * distance + call->noise[i] * split.up;
    }
    return ATTN_OK;
}

const scheduler_class scheduler_euler = {
    .name = "EulerDiscreteScheduler",
    .order = 1,
    .own_size = sizeof(euler),
    .takes = TAKES_SPACING | TAKES_KARRAS | TAKES_ZERO_SNR | TINY_LAST_ALPHA,
    .betas = BETAS_COMMON,
    .predictions = PREDICT_ANY,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .spacing = SPACING_LINSPACE,
    .configure = euler_configure,
    .set_timesteps = euler_set_timesteps,
    .step = euler_step,
};

const scheduler_class scheduler_euler_ancestral = {
    .name = "EulerAncestralDiscreteScheduler",
    .order = 1,
    .takes = TAKES_SPACING | TAKES_ZERO_SNR | TINY_LAST_ALPHA,
    .betas = BETAS_COMMON,
    .predictions = PREDICT_EPSILON | PREDICT_V,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .spacing = SPACING_LINSPACE,
    .configure = ancestral_configure,
    .set_timesteps = sigmas_set,
    .step = ancestral_step,
    .wants_noise = ancestral_wants_noise,
};
