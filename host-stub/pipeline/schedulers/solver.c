#include "solver.h"

#include <math.h>
#include <stdlib.h>

enum { FEW_CALLS = 15 }; /* below, the last orders are lowered */

solver_point solver_point_at(const scheduler *s, size_t index)
{
    double sigma = s->sigmas[index];
    double alpha = 1 / sqrt(sigma * sigma + 1);
    return (solver_point){alpha, sigma * alpha, -log(sigma)};
}

/* Training steps whose lambda is below the option's are left out. */
static int64_t last_timestep(const scheduler *s, const solver *o)
{
    int64_t last = s->train_steps;
    while (last > 1 &&
           (double)(logf(sqrtf(s->alphas_cumprod[last - 1])) -
                    logf(sqrtf(1.0f - s->alphas_cumprod[last - 1]))) < o->lambda_min_clipped) {
        last--;
    }
    return last;
}

/* Sigmas of the caller's kind in place of those at the spaced timesteps. Lu et al. 2022, arXiv
 * 2206.00927: lambdas evenly spaced. */
static void sigmas_replace(const scheduler *s, const solver *o, double *sigmas, size_t count)
{
    double high = s->train_sigmas[s->train_steps - 1];
    double low = s->train_sigmas[0];
    if (s->karras) {
        sigmas_karras(s, high, low, sigmas, count);
        return;
    }
    double from = (double)logf((float)high);
    double to = (double)logf((float)low);
    for (size_t i = 0; o->lu && i < count; i++) {
        double ramp = count > 1 ? (double)i / (double)(count - 1) : 0;
        sigmas[i] = exp(from + ramp * (to - from));
    }
}

/* Solvers of order 2 and more divide by the distance of one point from the next. */
static attn_status distances_check(const scheduler *s, const solver *o, attn_error *err)
{
    for (size_t i = 0; i < s->count; i++) {
        if (!(s->sigmas[i] > 0 && isfinite(s->sigmas[i])) ||
            (o->order > 1 && i > 0 && !(s->sigmas[i] < s->sigmas[i - 1]))) {
            return attn_fail(err, ATTN_INVALID,
                             "num_inference_steps: %lld: step %zu has sigma %g after %g, expected"
                             " sigmas that fall; fewer steps may do",
                             (long long)s->steps, i, (double)s->sigmas[i],
                             i ? (double)s->sigmas[i - 1] : INFINITY);
        }
    }
    return ATTN_OK;
}

attn_status solver_set_timesteps(scheduler *s, const solver *o, int64_t steps, attn_error *err)
{
    int64_t last = last_timestep(s, o);
    int replaced = s->karras || o->lu;
    size_t count = replaced ? (size_t)steps : timesteps_count(s, steps, last);
    attn_status status = run_begin(s, steps, count, err);
    double *sigmas = malloc(count * sizeof *sigmas);
    if (!status && !sigmas) {
        status = attn_fail(err, ATTN_NOMEM, "no memory for %zu sigmas", count);
    }
    for (size_t i = 0; i < count && !status; i++) {
        s->timesteps[i] = (float)rint(timestep_at(s, steps, last, 1, (int64_t)i));
        sigmas[i] = sigma_at(s, s->timesteps[i]);
    }
    if (!status) {
        sigmas_replace(s, o, sigmas, count);
        for (size_t i = 0; i < count; i++) {
            s->sigmas[i] = (float)sigmas[i];
            if (replaced) {
                s->timesteps[i] = (float)rint(sigma_timestep(s, sigmas[i]));
            }
        }
        s->sigmas[count] = o->ends_at_zero                       ? 0
                           : s->karras && o->repeats_last_karras ? s->sigmas[count - 1]
                                                                 : s->train_sigmas[0];
        levels_preserving(s);
        status = distances_check(s, o, err);
    }
    free(sigmas);
    return status;
}

void solver_convert(scheduler *s, const scheduler_call *call, int data, int limited, size_t slot)
{
    float *out = state_array(s, slot);
    if (data) {
        prediction_limited(s, call, out, NULL);
    } else {
        prediction_limited(s, call, limited ? state_array(s, s->arrays - 1) : NULL, out);
    }
}

void solver_apply(const scheduler *s, const solver_move *move, const float *sample, size_t newest,
                  size_t kept, const float *noise, float *out, size_t n)
{
    const float *outputs[SOLVER_KEPT];
    for (size_t k = 0; k < SOLVER_KEPT; k++) {
        outputs[k] = state_array(s, (newest + kept - k % kept) % kept);
    }
    for (size_t i = 0; i < n; i++) {
        double sum = move->sample * (double)sample[i];
        for (size_t k = 0; k < SOLVER_KEPT; k++) {
            sum += move->output[k] != 0 ? move->output[k] * (double)outputs[k][i] : 0;
        }
        out[i] = (float)(noise ? sum + move->noise * (double)noise[i] : sum);
    }
}

int64_t solver_order_at(const scheduler *s, const solver *o, size_t index)
{
    int few = o->lower_order_final && s->count < FEW_CALLS;
    int64_t order = o->order;
    if (index + 1 == s->count && (o->euler_at_final || few || o->ends_at_zero)) {
        return 1;
    }
    if (index + 2 == s->count && few && order > 2) {
        order = 2;
    }
    return order < (int64_t)index + 1 ? order : (int64_t)index + 1;
}
