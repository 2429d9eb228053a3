/* DPM-Solver-2 over sigma: algorithm 2 of Karras et al. 2022, arXiv 2206.00364, with the midpoint
 * in the logarithm, as in diffusers v0.26.3
 * src/diffusers/schedulers/scheduling_k_dpm_2_discrete.py; and the ancestral one,
 * scheduling_k_dpm_2_ancestral_discrete.py.
 *
 * Every step but the last takes two calls: to the point between, and from the start with the
 * derivative there. */
#include "scheduler_private.h"

#include <math.h>
#include <string.h>

enum { DERIVATIVE, BASE, ARRAYS };

static attn_status kdpm2_configure(scheduler *s, json_t *config, attn_error *err)
{
    (void)config;
    (void)err;
    s->arrays = ARRAYS;
    return ATTN_OK;
}

/* Where the second call of the step between two sigmas is made. */
static float sigma_between(float from, float to)
{
    return expf((logf(from) + logf(to)) / 2);
}

/* The sigma that a step goes down to: the ancestral one puts noise back from there. */
static float sigma_down(const scheduler *s, float from, float to)
{
    return s->class == &scheduler_kdpm2_ancestral ? ancestral_at(from, to).down : to;
}

/* Calls are at sigma 0, between 0 and 1, sigma 1, ..., the last sigma. */
static attn_status kdpm2_set_timesteps(scheduler *s, int64_t steps, attn_error *err)
{
    size_t count = 2 * (size_t)steps - 1;
    sigma_lists lists;
    attn_status status = sigmas_begin(s, steps, count, (size_t)steps, 1, 0, &lists, err);
    for (size_t i = 0; i < count && !status; i++) {
        if (i % 2 == 0) {
            s->sigmas[i] = (float)lists.sigmas[i / 2];
            s->timesteps[i] = (float)lists.timesteps[i / 2];
        } else {
            float from = (float)lists.sigmas[i / 2];
            float to = (float)lists.sigmas[i / 2 + 1];
            s->sigmas[i] = sigma_between(from, sigma_down(s, from, to));
            s->timesteps[i] = (float)sigma_timestep(s, s->sigmas[i]);
        }
    }
    if (!status) {
        levels_exploding(s);
    }
    sigma_lists_free(&lists);
    return status;
}

/* Both calls draw, as diffusers' do, so that a seed means the same; the second one's is used. */
static int ancestral_wants_noise(const scheduler *s, size_t index, float eta)
{
    (void)s;
    (void)index;
    (void)eta;
    return 1;
}

static attn_status kdpm2_step(scheduler *s, const scheduler_call *call, float *out, attn_error *err)
{
    size_t index = call->index;
    int second = index % 2 == 1;
    float *derivative = state_array(s, DERIVATIVE);
    float *base = state_array(s, BASE);
    float from = s->sigmas[second ? index - 1 : index];
    float to = s->sigmas[index + 1];
    float up = 0;
    (void)err;
    derivative_fill(s, call, derivative);
    if (!second) {
        memcpy(base, call->sample, call->n * sizeof *base);
    } else if (s->class == &scheduler_kdpm2_ancestral) {
        up = ancestral_at(from, to).up;
        to = ancestral_at(from, to).down;
    }
    for (size_t i = 0; i < call->n; i++) {
        float moved = base[i] + derivative[i] * (to - from);
        out[i] = up > 0 ? moved + call->noise[i] * up : moved;
    }
    return ATTN_OK;
}

const scheduler_class scheduler_kdpm2 = {
    .name = "KDPM2DiscreteScheduler",
    .order = 2,
    .takes = TAKES_SPACING | TAKES_KARRAS,
    .betas = BETAS_COMMON,
    .predictions = PREDICT_EPSILON | PREDICT_V,
    .beta_start = 0.00085,
    .beta_end = 0.012,
    .spacing = SPACING_LINSPACE,
    .configure = kdpm2_configure,
    .set_timesteps = kdpm2_set_timesteps,
    .step = kdpm2_step,
};

const scheduler_class scheduler_kdpm2_ancestral = {
    .name = "KDPM2AncestralDiscreteScheduler",
    .order = 2,
    .takes = TAKES_SPACING | TAKES_KARRAS,
    .betas = BETAS_COMMON,
    .predictions = PREDICT_EPSILON | PREDICT_V,
    .beta_start = 0.00085,
    .beta_end = 0.012,
    .spacing = SPACING_LINSPACE,
    .configure = kdpm2_configure,
    .set_timesteps = kdpm2_set_timesteps,
    .step = kdpm2_step,
    .wants_noise = ancestral_wants_noise,
};
