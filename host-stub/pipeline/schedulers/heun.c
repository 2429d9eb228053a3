/* Heun's method over sigma: algorithm 1 of Karras et al. 2022, arXiv 2206.00364, as in diffusers
 * v0.26.3 src/diffusers/schedulers/scheduling_heun_discrete.py.
 *
 * Every step but the last takes two calls: to the next sigma, and back to the start to go there
 * with the mean of the derivatives at both ends. */
#include "scheduler_private.h"

#include <string.h>

enum { DERIVATIVE, BASE, FIRST, ARRAYS };

static attn_status heun_configure(scheduler *s, json_t *config, attn_error *err)
{
    (void)config;
    (void)err;
    s->arrays = ARRAYS;
    return ATTN_OK;
}

static attn_status heun_set_timesteps(scheduler *s, int64_t steps, attn_error *err)
{
    size_t count = 2 * (size_t)steps - 1;
    sigma_lists lists;
    attn_status status = sigmas_begin(s, steps, count, (size_t)steps, 0, 0, &lists, err);
    for (size_t i = 0; i < count && !status; i++) {
        s->sigmas[i] = (float)lists.sigmas[(i + 1) / 2];
        s->timesteps[i] = (float)lists.timesteps[(i + 1) / 2];
    }
    if (!status) {
        levels_exploding(s);
    }
    sigma_lists_free(&lists);
    return status;
}

static attn_status heun_step(scheduler *s, const scheduler_call *call, float *out, attn_error *err)
{
    size_t index = call->index;
    size_t bytes = call->n * sizeof(float);
    float *derivative = state_array(s, DERIVATIVE);
    float *base = state_array(s, BASE);
    float *first = state_array(s, FIRST);
    (void)err;
    derivative_fill(s, call, derivative);
    if (index % 2 == 0) {
        float distance = s->sigmas[index + 1] - s->sigmas[index];
        memcpy(base, call->sample, bytes);
        memcpy(first, derivative, bytes);
        for (size_t i = 0; i < call->n; i++) {
            out[i] = base[i] + first[i] * distance;
        }
        return ATTN_OK;
    }
    float distance = s->sigmas[index] - s->sigmas[index - 1];
    for (size_t i = 0; i < call->n; i++) {
        out[i] = base[i] + (first[i] + derivative[i]) / 2 * distance;
    }
    return ATTN_OK;
}

const scheduler_class scheduler_heun = {
    .name = "HeunDiscreteScheduler",
    .order = 2,
    .takes = TAKES_SPACING | TAKES_KARRAS | TAKES_CLIP,
    .betas = BETAS_COMMON | BETAS_EXP,
    .predictions = PREDICT_ANY,
    .beta_start = 0.00085,
    .beta_end = 0.012,
    .spacing = SPACING_LINSPACE,
    .configure = heun_configure,
    .set_timesteps = heun_set_timesteps,
    .step = heun_step,
};
