/* Noise schedules and timestep spacings, rounded where torch and numpy round, so that a run here
 * visits the same timesteps with the same coefficients. */
#include "scheduler_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const beta_names[] = {"linear", "scaled_linear", "squaredcos_cap_v2", NULL};
enum { BETA_LINEAR, BETA_SCALED_LINEAR, BETA_SQUARED_COSINE };

attn_status option_number(json_t *config, const char *name, double fallback, double *value,
                          attn_error *err)
{
    json_t *found = json_object_get(config, name);
    if (!found || json_is_null(found)) {
        *value = fallback;
        return ATTN_OK;
    }
    if (!json_is_number(found)) {
        return attn_fail(err, ATTN_INVALID, "%s: expected a number", name);
    }
    *value = json_number_value(found);
    return ATTN_OK;
}

attn_status option_flag(json_t *config, const char *name, int fallback, int *value, attn_error *err)
{
    json_t *found = json_object_get(config, name);
    if (!found || json_is_null(found)) {
        *value = fallback;
        return ATTN_OK;
    }
    if (!json_is_boolean(found)) {
        return attn_fail(err, ATTN_INVALID, "%s: expected true or false", name);
    }
    *value = json_is_true(found);
    return ATTN_OK;
}

attn_status option_choice(json_t *config, const char *name, const char *const *choices,
                          int fallback, int *value, attn_error *err)
{
    char known[256] = "";
    json_t *found = json_object_get(config, name);
    if (!found || json_is_null(found)) {
        *value = fallback;
        return ATTN_OK;
    }
    if (!json_is_string(found)) {
        return attn_fail(err, ATTN_INVALID, "%s: expected a text", name);
    }
    for (int i = 0; choices[i]; i++) {
        size_t used = strlen(known);
        if (strcmp(choices[i], json_string_value(found)) == 0) {
            *value = i;
            return ATTN_OK;
        }
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", choices[i]);
    }
    return attn_fail(err, ATTN_UNSUPPORTED, "%s: %s is not supported; there is: %s", name,
                     json_string_value(found), known);
}

/* torch.linspace in fp32: from both ends to the middle, the step rounded once. */
static float linspace(float start, float end, int64_t count, int64_t i)
{
    float step = count > 1 ? (end - start) / (float)(count - 1) : 0.0f;
    return i < count / 2 || count == 1 ? start + step * (float)i
                                       : end - step * (float)(count - 1 - i);
}

static double cosine_alpha(double t)
{
    double c = cos((t + 0.008) / 1.008 * 3.14159265358979323846 / 2);
    return c * c;
}

static float beta_at(int kind, double start, double end, int64_t count, int64_t i)
{
    if (kind == BETA_SQUARED_COSINE) {
        double now = cosine_alpha((double)i / (double)count);
        double next = cosine_alpha((double)(i + 1) / (double)count);
        return (float)fmin(1 - next / now, 0.999);
    }
    if (kind == BETA_SCALED_LINEAR) {
        float root = linspace((float)sqrt(start), (float)sqrt(end), count, i);
        return root * root;
    }
    return linspace((float)start, (float)end, count, i);
}

static attn_status betas_read(json_t *config, int *kind, double *start, double *end,
                              attn_error *err)
{
    json_t *trained = json_object_get(config, "trained_betas");
    if (trained && !json_is_null(trained)) {
        return attn_fail(err, ATTN_UNSUPPORTED, "trained_betas is not supported, expected null");
    }
    attn_status status = option_choice(config, "beta_schedule", beta_names, BETA_LINEAR, kind, err);
    if (!status) {
        status = option_number(config, "beta_start", 0.0001, start, err);
    }
    if (!status) {
        status = option_number(config, "beta_end", 0.02, end, err);
    }
    if (!status && !(*start > 0 && *start < 1 && *end > 0 && *end < 1)) {
        status =
            attn_fail(err, ATTN_INVALID,
                      "beta_start %g, beta_end %g: expected both between 0 and 1", *start, *end);
    }
    return status;
}

attn_status schedule_fill(scheduler *s, json_t *config, attn_error *err)
{
    int kind = 0;
    double start = 0;
    double end = 0;
    attn_status status = betas_read(config, &kind, &start, &end, err);
    if (status) {
        return status;
    }
    s->alphas_cumprod = malloc((size_t)s->train_steps * sizeof *s->alphas_cumprod);
    if (!s->alphas_cumprod) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %lld training steps",
                         (long long)s->train_steps);
    }
    /* torch.cumprod multiplies fp32 factors in double and rounds what it stores. */
    double product = 1;
    for (int64_t i = 0; i < s->train_steps; i++) {
        product *= 1.0f - beta_at(kind, start, end, s->train_steps, i);
        s->alphas_cumprod[i] = (float)product;
    }
    return ATTN_OK;
}

/* numpy.linspace(0, train - 1, steps).round() */
static double spaced_linspace(int64_t train, int64_t steps, int64_t i)
{
    if (steps == 1) {
        return 0;
    }
    double step = (double)(train - 1) / (double)(steps - 1);
    return i == steps - 1 ? (double)(train - 1) : rint((double)i * step);
}

/* For some step counts (61 of 1000) numpy.arange rounds its trailing list one entry longer and
 * diffusers runs a last step at timestep -1; here a run has as many steps as were asked for. */
attn_status timesteps_space(scheduler *s, int64_t steps, attn_error *err)
{
    double ratio = (double)s->train_steps / (double)steps;
    int64_t *list = malloc((size_t)steps * sizeof *list);
    if (!list) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %lld timesteps", (long long)steps);
    }
    for (int64_t i = 0; i < steps; i++) {
        int64_t from_end = steps - 1 - i;
        if (s->spacing == SPACING_LEADING) {
            list[i] = from_end * (s->train_steps / steps) + s->steps_offset;
        } else if (s->spacing == SPACING_LINSPACE) {
            list[i] = (int64_t)spaced_linspace(s->train_steps, steps, from_end);
        } else {
            list[i] = (int64_t)rint((double)s->train_steps - (double)i * ratio) - 1;
        }
        if (list[i] < 0 || list[i] >= s->train_steps) {
            attn_fail(err, ATTN_INVALID,
                      "num_inference_steps: %lld with steps_offset %lld leaves the %lld training"
                      " steps at step %lld",
                      (long long)steps, (long long)s->steps_offset, (long long)s->train_steps,
                      (long long)list[i]);
            free(list);
            return ATTN_INVALID;
        }
    }
    free(s->timesteps);
    s->timesteps = list;
    s->count = (size_t)steps;
    s->steps = steps;
    return ATTN_OK;
}
