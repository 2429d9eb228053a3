/* What a prediction stands for: noise-free latents and noise. */
#include "scheduler_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void split(prediction_type type, noise_level at, float output, float sample, float *x0,
                  float *noise)
{
    switch (type) {
    case PREDICT_EPSILON:
        *x0 = (sample - at.spread * output) / at.signal;
        *noise = output;
        break;
    case PREDICT_SAMPLE:
        *x0 = output;
        *noise = (sample - at.signal * output) / at.spread;
        break;
    case PREDICT_V: {
        /* Velocity is defined on the unit circle (Salimans and Ho 2022, arXiv 2202.00512). */
        float signal = at.signal / at.stretch;
        float spread = at.spread / at.stretch;
        float shown = sample / at.stretch;
        *x0 = signal * shown - spread * output;
        *noise = signal * output + spread * shown;
        break;
    }
    }
}

void scheduler_predict(const scheduler *s, size_t index, const float *model_output,
                       const float *sample, float *x0, float *noise, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float clean = 0;
        float added = 0;
        split(s->prediction, s->levels[index], model_output[i], sample[i], &clean, &added);
        if (x0) {
            x0[i] = clean;
        }
        if (noise) {
            noise[i] = added;
        }
    }
}

void scheduler_add_noise(const scheduler *s, size_t index, const float *x0, const float *noise,
                         float *out, size_t n)
{
    noise_level at = s->levels[index];
    for (size_t i = 0; i < n; i++) {
        out[i] = at.signal * x0[i] + at.spread * noise[i];
    }
}

void scheduler_scale_model_input(const scheduler *s, size_t index, const float *sample, float *out,
                                 size_t n)
{
    float stretch = s->levels[index].stretch;
    for (size_t i = 0; i < n; i++) {
        out[i] = sample[i] / stretch;
    }
}

static int float_order(const void *a, const void *b)
{
    float x = *(const float *)a;
    float y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Comparisons rather than fmin: a NaN has to stay one. */
static float clamped(float x, float most)
{
    return x > most ? most : x < -most ? -most : x;
}

/* Dynamic thresholding (Saharia et al. 2022, arXiv 2205.11487, section 2.3): a quantile of the
 * magnitudes, between 1 and sample_max_value, becomes 1. torch.quantile's linear interpolation. */
static void threshold(const scheduler *s, float *x0, float *sorted, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        sorted[i] = fabsf(x0[i]);
        if (isnan(sorted[i])) {
            return;
        }
    }
    qsort(sorted, n, sizeof *sorted, float_order);
    float rank = s->threshold_ratio * (float)(n - 1);
    size_t below = (size_t)rank;
    size_t above = (size_t)ceilf(rank);
    float share = rank - (float)below;
    float most = sorted[below] + share * (sorted[above] - sorted[below]);
    most = most < 1 ? 1 : most;
    most = most > s->threshold_most ? s->threshold_most : most;
    for (size_t i = 0; i < n; i++) {
        x0[i] = clamped(x0[i], most) / most;
    }
}

void x0_limit(const scheduler *s, const scheduler_call *call, float *x0)
{
    if (s->thresholding) {
        size_t each = call->each ? call->each : call->n;
        for (size_t at = 0; at + each <= call->n; at += each) {
            threshold(s, x0 + at, state_array(s, s->arrays), each);
        }
    } else if (s->clip) {
        for (size_t i = 0; i < call->n; i++) {
            x0[i] = clamped(x0[i], s->clip_range);
        }
    }
}

void prediction_limited(const scheduler *s, const scheduler_call *call, float *x0, float *noise)
{
    noise_level at = s->levels[call->index];
    scheduler_predict(s, call->index, call->model_output, call->sample, x0, noise, call->n);
    if (!x0 || (!s->thresholding && !s->clip)) {
        return;
    }
    x0_limit(s, call, x0);
    for (size_t i = 0; noise && i < call->n; i++) {
        noise[i] = (call->sample[i] - at.signal * x0[i]) / at.spread;
    }
}

void derivative_fill(const scheduler *s, const scheduler_call *call, float *out)
{
    float sigma = s->levels[call->index].spread;
    scheduler_predict(s, call->index, call->model_output, call->sample, out, NULL, call->n);
    x0_limit(s, call, out);
    for (size_t i = 0; i < call->n; i++) {
        out[i] = (call->sample[i] - out[i]) / sigma;
    }
}
