/* LMS: linear multistep over sigma, as in diffusers v0.26.3
 * src/diffusers/schedulers/scheduling_lms_discrete.py, after Karras et al. 2022, arXiv 2206.00364.
 */
#include "scheduler_private.h"

#include <math.h>

enum { KEPT = 4, ARRAYS = KEPT };

static attn_status lms_configure(scheduler *s, json_t *config, attn_error *err)
{
    s->arrays = ARRAYS;
    /* This one of diffusers' does not look at sigma_min and sigma_max. */
    return option_flag(config, "use_karras_sigmas", 0, &s->karras, err);
}

/* Lagrange's polynomial that is 1 at sigma[current] and 0 at the other ones. */
static double lagrange(const double *sigma, size_t order, size_t current, double at)
{
    double product = 1;
    for (size_t k = 0; k < order; k++) {
        product *= k == current ? 1 : (at - sigma[k]) / (sigma[current] - sigma[k]);
    }
    return product;
}

/* Its integral from sigma[0] to `end`. Three points of Gauss and Legendre are exact up to the fifth
 * degree; this has the third at most. */
static double coefficient(const double *sigma, size_t order, size_t current, double end)
{
    double middle = (sigma[0] + end) / 2;
    double half = (end - sigma[0]) / 2;
    double reach = half * sqrt(0.6);
    return half *
           (5 * lagrange(sigma, order, current, middle - reach) +
            8 * lagrange(sigma, order, current, middle) +
            5 * lagrange(sigma, order, current, middle + reach)) /
           9;
}

static attn_status lms_step(scheduler *s, const scheduler_call *call, float *out, attn_error *err)
{
    size_t index = call->index;
    size_t order = index + 1 < KEPT ? index + 1 : KEPT;
    double sigma[KEPT];
    double weights[KEPT];
    const float *derivatives[KEPT];
    (void)err;
    derivative_fill(s, call, state_array(s, index % KEPT));
    for (size_t k = 0; k < order; k++) {
        sigma[k] = s->sigmas[index - k];
        derivatives[k] = state_array(s, (index - k) % KEPT);
    }
    for (size_t k = 0; k < order; k++) {
        weights[k] = coefficient(sigma, order, k, s->sigmas[index + 1]);
    }
    for (size_t i = 0; i < call->n; i++) {
        double sum = call->sample[i];
        for (size_t k = 0; k < order; k++) {
            sum += weights[k] * (double)derivatives[k][i];
        }
        out[i] = (float)sum;
    }
    return ATTN_OK;
}

const scheduler_class scheduler_lms = {
    .name = "LMSDiscreteScheduler",
    .order = 1,
    .takes = TAKES_SPACING,
    .betas = BETAS_COMMON,
    .predictions = PREDICT_ANY,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .spacing = SPACING_LINSPACE,
    .configure = lms_configure,
    .set_timesteps = sigmas_set,
    .step = lms_step,
};
