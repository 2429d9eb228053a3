/* Sigmas: the standard deviation of the noise over the scale of the signal. */
#include "scheduler_private.h"

#include <math.h>
#include <stdlib.h>

double sigma_at(const scheduler *s, double t)
{
    double last = (double)(s->train_steps - 1);
    if (!(t > 0)) {
        return s->train_sigmas[0];
    }
    if (t >= last) {
        return s->train_sigmas[s->train_steps - 1];
    }
    int64_t low = (int64_t)t;
    double from = s->train_sigmas[low];
    return ((double)s->train_sigmas[low + 1] - from) * (t - (double)low) + from;
}

/* The last training step whose sigma is not above this one; they rise. */
static int64_t step_below(const scheduler *s, double log_sigma)
{
    int64_t low = 0;
    int64_t high = s->train_steps;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if ((double)logf(s->train_sigmas[middle]) <= log_sigma) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

double sigma_timestep(const scheduler *s, double sigma)
{
    double log_sigma = log(fmax(sigma, 1e-10));
    if (s->train_steps < 2) {
        return 0;
    }
    int64_t low = step_below(s, log_sigma);
    low = low < s->train_steps - 2 ? low : s->train_steps - 2;
    double from = (double)logf(s->train_sigmas[low]);
    double to = (double)logf(s->train_sigmas[low + 1]);
    double share = (from - log_sigma) / (from - to);
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    return (1 - share) * (double)low + share * (double)(low + 1);
}

void sigmas_karras(const scheduler *s, double high, double low, double *out, size_t n)
{
    const double rho = 7;
    double from = pow(isnan(s->sigma_max) ? high : s->sigma_max, 1 / rho);
    double to = pow(isnan(s->sigma_min) ? low : s->sigma_min, 1 / rho);
    for (size_t i = 0; i < n; i++) {
        double ramp = n > 1 ? (double)i / (double)(n - 1) : 0;
        out[i] = pow(from + ramp * (to - from), rho);
    }
}

static attn_status lists_fill(const scheduler *s, int64_t steps, int rounded, int whole_range,
                              double *sigmas, double *timesteps, attn_error *err)
{
    for (int64_t i = 0; i < steps; i++) {
        timesteps[i] = (float)timestep_at(s, steps, s->train_steps, 0, i);
        sigmas[i] = sigma_at(s, timesteps[i]);
    }
    if (s->karras) {
        double high = whole_range ? s->train_sigmas[s->train_steps - 1] : sigmas[0];
        double low = whole_range ? s->train_sigmas[0] : sigmas[steps - 1];
        sigmas_karras(s, high, low, sigmas, (size_t)steps);
        for (int64_t i = 0; i < steps; i++) {
            timesteps[i] = sigma_timestep(s, sigmas[i]);
            timesteps[i] = rounded ? rint(timesteps[i]) : timesteps[i];
        }
    }
    for (int64_t i = 0; i < steps; i++) {
        if (!(sigmas[i] > 0 && isfinite(sigmas[i]))) {
            return attn_fail(err, ATTN_INVALID,
                             "step %lld of %lld: sigma is %g, expected a positive number; the"
                             " betas are too small or too large",
                             (long long)i, (long long)steps, sigmas[i]);
        }
    }
    return ATTN_OK;
}

attn_status sigmas_begin(scheduler *s, int64_t steps, size_t count, size_t room, int rounded,
                         int whole_range, sigma_lists *lists, attn_error *err)
{
    *lists = (sigma_lists){malloc(room * sizeof(double)), malloc(room * sizeof(double))};
    if (!lists->sigmas || !lists->timesteps) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %lld sigmas", (long long)steps);
    }
    attn_status status = run_begin(s, steps, count, err);
    return status
               ? status
               : lists_fill(s, steps, rounded, whole_range, lists->sigmas, lists->timesteps, err);
}

void sigma_lists_free(sigma_lists *lists)
{
    free(lists->sigmas);
    free(lists->timesteps);
}

void levels_exploding(scheduler *s)
{
    float most = 0;
    for (size_t i = 0; i < s->count; i++) {
        float sigma = s->sigmas[i];
        s->levels[i] = (noise_level){1.0f, sigma, sqrtf(sigma * sigma + 1.0f)};
        most = sigma > most ? sigma : most;
    }
    s->init_noise_sigma = s->spacing == SPACING_LEADING ? sqrtf(most * most + 1.0f) : most;
}

void levels_preserving(scheduler *s)
{
    for (size_t i = 0; i < s->count; i++) {
        float sigma = s->sigmas[i];
        float alpha = 1.0f / sqrtf(sigma * sigma + 1.0f);
        s->levels[i] = (noise_level){alpha, sigma * alpha, 1.0f};
    }
    s->init_noise_sigma = 1.0f;
}

attn_status sigmas_set(scheduler *s, int64_t steps, attn_error *err)
{
    sigma_lists lists;
    const size_t count = (size_t)steps;
    attn_status status = sigmas_begin(s, steps, count, count, 0, 0, &lists, err);
    for (size_t i = 0; i < count && !status; i++) {
        s->sigmas[i] = (float)lists.sigmas[i];
        s->timesteps[i] = (float)lists.timesteps[i];
    }
    if (!status) {
        levels_exploding(s);
    }
    sigma_lists_free(&lists);
    return status;
}

ancestral_split ancestral_at(float from, float to)
{
    float up = sqrtf(to * to * (from * from - to * to) / (from * from));
    return (ancestral_split){sqrtf(to * to - up * up), up};
}
