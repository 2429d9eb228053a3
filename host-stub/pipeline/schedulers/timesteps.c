/* Timestep spacings, numpy's arithmetic, so that a run here visits the timesteps that it visits
 * there. */
#include "scheduler_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

attn_status run_begin(scheduler *s, int64_t steps, size_t count, attn_error *err)
{
    float *timesteps = malloc(count * sizeof *timesteps);
    noise_level *levels = malloc(count * sizeof *levels);
    float *sigmas = calloc(count + 1, sizeof *sigmas);
    if (!timesteps || !levels || !sigmas) {
        free(timesteps);
        free(levels);
        free(sigmas);
        return attn_fail(err, ATTN_NOMEM, "no memory for %lld timesteps", (long long)steps);
    }
    free(s->timesteps);
    free(s->levels);
    free(s->sigmas);
    s->timesteps = timesteps;
    s->levels = levels;
    s->sigmas = sigmas;
    s->steps = steps;
    s->count = count;
    s->next = 0;
    return ATTN_OK;
}

/* numpy.linspace(0, end, count)[i] */
static double linspace(int64_t end, int64_t count, int64_t i)
{
    if (i == count - 1) {
        return count == 1 ? 0 : (double)end;
    }
    return (double)i * ((double)end / (double)(count - 1));
}

/* numpy.arange(start, 0, -step)[i]: a rounded step, but for the first. */
static double arange_down(double start, double step, int64_t i)
{
    double second = start - step;
    return i == 0 ? start : i == 1 ? second : start + (double)i * (second - start);
}

/* For some step counts (61 of 1000) numpy.arange rounds its trailing list one entry longer and
 * diffusers runs a last step at timestep -1; here the count is exact. */
size_t timesteps_count(const scheduler *s, int64_t steps, int64_t last)
{
    if (s->spacing != SPACING_TRAILING) {
        return (size_t)steps;
    }
    int64_t count = (last * steps + s->train_steps - 1) / s->train_steps;
    return (size_t)(count > 1 ? count : 1);
}

double timestep_at(const scheduler *s, int64_t steps, int64_t last, int64_t extra, int64_t i)
{
    int64_t from_end = steps - 1 + extra - i;
    if (s->spacing == SPACING_LEADING) {
        int64_t stride = last / (steps + extra);
        return (double)(from_end * stride + s->steps_offset);
    }
    if (s->spacing == SPACING_LINSPACE) {
        return linspace(last - 1, steps + extra, from_end);
    }
    return rint(arange_down((double)last, (double)s->train_steps / (double)steps, i)) - 1;
}

attn_status timesteps_alphas(scheduler *s, int64_t steps, const int64_t *list, size_t count,
                             attn_error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (list[i] < 0 || list[i] >= s->train_steps) {
            return attn_fail(
                err, ATTN_INVALID,
                "num_inference_steps: %lld with steps_offset %lld leaves the %lld training"
                " steps at step %lld",
                (long long)steps, (long long)s->steps_offset, (long long)s->train_steps,
                (long long)list[i]);
        }
    }
    attn_status status = run_begin(s, steps, count, err);
    if (status) {
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        float alpha = s->alphas_cumprod[list[i]];
        s->timesteps[i] = (float)list[i];
        s->levels[i] = (noise_level){sqrtf(alpha), sqrtf(1.0f - alpha), 1.0f};
    }
    s->init_noise_sigma = 1.0f;
    return ATTN_OK;
}

attn_status timesteps_plain(scheduler *s, int64_t steps, attn_error *err)
{
    int64_t *list = malloc((size_t)steps * sizeof *list);
    if (!list) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %lld timesteps", (long long)steps);
    }
    for (int64_t i = 0; i < steps; i++) {
        list[i] = (int64_t)rint(timestep_at(s, steps, s->train_steps, 0, i));
    }
    attn_status status = timesteps_alphas(s, steps, list, (size_t)steps, err);
    free(list);
    return status;
}
