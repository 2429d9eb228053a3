/* PNDM: Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", arXiv 2202.09778,
 * formulas 9 to 13, as in diffusers v0.26.3 src/diffusers/schedulers/scheduling_pndm.py.
 *
 * Three steps of Runge-Kutta, four calls each, make the outputs that linear multistep goes on from;
 * with skip_prk_steps (Stable Diffusion) one call is repeated instead. */
#include "scheduler_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RUNGE_KUTTA_CALLS = 12, RUNGE_KUTTA_STEPS = 4, KEPT = 4 };
enum { OUTPUTS, SUM = KEPT, SAMPLE, COMBINED, ARRAYS };

typedef struct {
    int skip_prk;
} pndm;

static attn_status pndm_configure(scheduler *s, json_t *config, attn_error *err)
{
    pndm *own = s->own;
    s->arrays = ARRAYS;
    return option_flag(config, "skip_prk_steps", 0, &own->skip_prk, err);
}

/* Timestep `i` of the run's steps, smallest first. */
static int64_t spaced(const scheduler *s, int64_t steps, int64_t i)
{
    return (int64_t)rint(timestep_at(s, steps, s->train_steps, 0, steps - 1 - i));
}

/* The last four, each with the one half a step further, all but the ends twice; largest first. */
static void runge_kutta_fill(const scheduler *s, int64_t steps, int64_t *list)
{
    int64_t half = s->train_steps / steps / 2;
    for (int64_t k = 0; k < RUNGE_KUTTA_CALLS; k++) {
        int64_t from_low = (RUNGE_KUTTA_CALLS - k) / 2;
        list[k] = spaced(s, steps, steps - RUNGE_KUTTA_STEPS + from_low / 2) + from_low % 2 * half;
    }
}

static attn_status pndm_set_timesteps(scheduler *s, int64_t steps, attn_error *err)
{
    const pndm *own = s->own;
    size_t first = own->skip_prk ? 0 : RUNGE_KUTTA_CALLS;
    size_t count = own->skip_prk ? (size_t)steps + (steps > 1)
                                 : (size_t)(steps + RUNGE_KUTTA_CALLS - RUNGE_KUTTA_STEPS + 1);
    if (!own->skip_prk && steps < RUNGE_KUTTA_STEPS) {
        return attn_fail(err, ATTN_INVALID,
                         "num_inference_steps: %lld, expected at least %d for PNDMScheduler without"
                         " skip_prk_steps",
                         (long long)steps, RUNGE_KUTTA_STEPS);
    }
    int64_t *list = malloc(count * sizeof *list);
    if (!list) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %lld timesteps", (long long)steps);
    }
    if (!own->skip_prk) {
        runge_kutta_fill(s, steps, list);
    }
    for (size_t k = first; k < count; k++) {
        int64_t step = (int64_t)k;
        if (own->skip_prk) {
            step -= k > 1; /* the second one is run twice */
        } else {
            step -= RUNGE_KUTTA_CALLS - RUNGE_KUTTA_STEPS + 1;
        }
        list[k] = spaced(s, steps, steps - 1 - step);
    }
    attn_status status = timesteps_alphas(s, steps, list, count, err);
    free(list);
    return status;
}

/* out = the sample at timestep `to` that `output`, predicted at `from`, leads to (formula 9). */
static attn_status transfer(const scheduler *s, const float *sample, int64_t from, int64_t to,
                            const float *output, float *out, size_t n, attn_error *err)
{
    if (from < 0 || from >= s->train_steps || to >= s->train_steps) {
        return attn_fail(err, ATTN_INVALID,
                         "timestep %lld to %lld: expected both within the %lld training steps",
                         (long long)from, (long long)to, (long long)s->train_steps);
    }
    float alpha = s->alphas_cumprod[from];
    float alpha_to = to >= 0 ? s->alphas_cumprod[to] : s->final_alpha;
    float beta = 1.0f - alpha;
    float keep = sqrtf(alpha_to / alpha);
    float below = alpha * sqrtf(1.0f - alpha_to) + sqrtf(alpha * beta * alpha_to);
    float move = (alpha_to - alpha) / below;
    for (size_t i = 0; i < n; i++) {
        float noise = s->prediction == PREDICT_V
                          ? sqrtf(alpha) * output[i] + sqrtf(beta) * sample[i]
                          : output[i];
        out[i] = keep * sample[i] - move * noise;
    }
    return ATTN_OK;
}

/* Call k of four: the output moves the step's first sample; the fourth time the weighted mean of
 * all does. */
static attn_status runge_kutta_step(scheduler *s, const scheduler_call *call, float *out,
                                    attn_error *err)
{
    static const float weights[4] = {1 / 6.f, 1 / 3.f, 1 / 3.f, 1 / 6.f};
    size_t index = call->index;
    size_t bytes = call->n * sizeof(float);
    float *sum = state_array(s, SUM);
    const float *output = call->model_output;
    int64_t half = s->train_steps / s->steps / 2;
    int64_t to = (int64_t)s->timesteps[index] - (index % 2 ? 0 : half);
    if (index % 4 == 0) {
        memset(sum, 0, bytes);
        memcpy(state_array(s, OUTPUTS + index / 4), output, bytes);
        memcpy(state_array(s, SAMPLE), call->sample, bytes);
    }
    for (size_t i = 0; i < call->n; i++) {
        sum[i] += weights[index % 4] * output[i];
    }
    return transfer(s, state_array(s, SAMPLE), (int64_t)s->timesteps[index / 4 * 4], to,
                    index % 4 == 3 ? sum : output, out, call->n, err);
}

/* Adams-Bashforth of the last `kept` outputs, the newest in ring slot `newest`. */
static void outputs_combine(const scheduler *s, size_t newest, size_t kept, float *out, size_t n)
{
    static const float weights[KEPT][KEPT] = {
        {1},
        {3 / 2.f, -1 / 2.f},
        {23 / 12.f, -16 / 12.f, 5 / 12.f},
        {55 / 24.f, -59 / 24.f, 37 / 24.f, -9 / 24.f},
    };
    memset(out, 0, n * sizeof *out);
    for (size_t k = 0; k < kept; k++) {
        const float *output = state_array(s, OUTPUTS + (newest + KEPT - k) % KEPT);
        for (size_t i = 0; i < n; i++) {
            out[i] += weights[kept - 1][k] * output[i];
        }
    }
}

static attn_status pndm_step(scheduler *s, const scheduler_call *call, float *out, attn_error *err)
{
    const pndm *own = s->own;
    size_t index = call->index;
    size_t bytes = call->n * sizeof(float);
    float *combined = state_array(s, COMBINED);
    const float *sample = call->sample;
    int64_t stride = s->train_steps / s->steps;
    int64_t from = (int64_t)s->timesteps[index];
    int64_t to = from - stride;
    if (!own->skip_prk && index < RUNGE_KUTTA_CALLS) {
        return runge_kutta_step(s, call, out, err);
    }
    if (own->skip_prk && index == 1) {
        /* The first step once more, with the mean of the outputs at both its ends. */
        to = from;
        from += stride;
        sample = state_array(s, SAMPLE);
        for (size_t i = 0; i < call->n; i++) {
            combined[i] = (call->model_output[i] + state_array(s, OUTPUTS)[i]) / 2;
        }
    } else {
        size_t newest = own->skip_prk ? index - (index > 0) : index - RUNGE_KUTTA_CALLS + 3;
        memcpy(state_array(s, OUTPUTS + newest % KEPT), call->model_output, bytes);
        if (index == 0) {
            memcpy(state_array(s, SAMPLE), call->sample, bytes);
        }
        outputs_combine(s, newest, newest + 1 < KEPT ? newest + 1 : KEPT, combined, call->n);
    }
    return transfer(s, sample, from, to, combined, out, call->n, err);
}

const scheduler_class scheduler_pndm = {
    .name = "PNDMScheduler",
    .order = 1,
    .own_size = sizeof(pndm),
    .takes = TAKES_SPACING | TAKES_ONE,
    .betas = BETAS_COMMON,
    .predictions = PREDICT_EPSILON | PREDICT_V,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .spacing = SPACING_LEADING,
    .configure = pndm_configure,
    .set_timesteps = pndm_set_timesteps,
    .step = pndm_step,
};
