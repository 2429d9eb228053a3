#include "scheduler_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json_file.h"

static const scheduler_class *const classes[] = {&scheduler_ddim, NULL};

static const char *const prediction_names[] = {"epsilon", "sample", "v_prediction", NULL};
static const char *const spacing_names[] = {"leading", "linspace", "trailing", NULL};

static const scheduler_class *class_find(const char *name)
{
    for (int i = 0; classes[i]; i++) {
        if (strcmp(classes[i]->name, name) == 0) {
            return classes[i];
        }
    }
    return NULL;
}

static attn_status class_choose(scheduler *s, json_t *config, const char *name, attn_error *err)
{
    char known[256] = "";
    if (!name) {
        name = json_string_value(json_object_get(config, "_class_name"));
    }
    if (!name) {
        return attn_fail(err, ATTN_INVALID, "_class_name: missing, expected a scheduler's class");
    }
    s->class = class_find(name);
    if (s->class) {
        return ATTN_OK;
    }
    for (int i = 0; classes[i]; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", classes[i]->name);
    }
    return attn_fail(err, ATTN_UNSUPPORTED, "scheduler %s is not supported; there is: %s", name,
                     known);
}

static attn_status common_configure(scheduler *s, json_t *config, attn_error *err)
{
    double train_steps = 0;
    double offset = 0;
    int prediction = 0;
    int spacing = 0;
    attn_status status = option_number(config, "num_train_timesteps", 1000, &train_steps, err);
    if (!status) {
        status = option_number(config, "steps_offset", 0, &offset, err);
    }
    if (!status) {
        status = option_choice(config, "prediction_type", prediction_names, 0, &prediction, err);
    }
    if (!status) {
        status = option_choice(config, "timestep_spacing", spacing_names, 0, &spacing, err);
    }
    if (status) {
        return status;
    }
    if (!(train_steps >= 1 && train_steps <= 1e6) || train_steps != floor(train_steps)) {
        return attn_fail(err, ATTN_INVALID,
                         "num_train_timesteps: %g, expected a whole number from 1 to 1000000",
                         train_steps);
    }
    if (!(fabs(offset) <= train_steps) || offset != floor(offset)) {
        return attn_fail(err, ATTN_INVALID,
                         "steps_offset: %g, expected a whole number of at most %g", offset,
                         train_steps);
    }
    s->train_steps = (int64_t)train_steps;
    s->steps_offset = (int64_t)offset;
    s->prediction = (prediction_type)prediction;
    s->spacing = (timestep_spacing)spacing;
    s->init_noise_sigma = 1.0f;
    return schedule_fill(s, config, err);
}

static attn_status scheduler_make(scheduler *s, json_t *config, const char *name, attn_error *err)
{
    attn_status status = class_choose(s, config, name, err);
    if (!s->class) {
        return status;
    }
    status = common_configure(s, config, err);
    return status ? status : s->class->configure(s, config, err);
}

attn_status scheduler_open(const char *path, const char *class_name, scheduler **out,
                           attn_error *err)
{
    ATTN_ERROR_ON(inner, 512);
    json_t *config = NULL;
    *out = NULL;
    attn_status status = json_file_read(path, &config, err);
    if (status) {
        return status;
    }
    scheduler *s = calloc(1, sizeof *s);
    status = s ? scheduler_make(s, config, class_name, &inner)
               : attn_fail(&inner, ATTN_NOMEM, "no memory for a scheduler");
    json_decref(config);
    if (status) {
        scheduler_close(s);
        return attn_fail(err, status, "%s: %s", path, inner.text);
    }
    *out = s;
    return ATTN_OK;
}

void scheduler_close(scheduler *s)
{
    if (!s) {
        return;
    }
    if (s->class && s->class->destroy) {
        s->class->destroy(s);
    }
    free(s->alphas_cumprod);
    free(s->timesteps);
    free(s);
}

const char *scheduler_name(const scheduler *s)
{
    return s->class->name;
}

attn_status scheduler_set_timesteps(scheduler *s, int64_t steps, attn_error *err)
{
    if (steps < 1 || steps > s->train_steps) {
        return attn_fail(err, ATTN_INVALID,
                         "num_inference_steps: %lld, expected 1 to the model's %lld training steps",
                         (long long)steps, (long long)s->train_steps);
    }
    return s->class->set_timesteps(s, steps, err);
}

const int64_t *scheduler_timesteps(const scheduler *s, size_t *count)
{
    *count = s->count;
    return s->timesteps;
}

float scheduler_init_noise_sigma(const scheduler *s)
{
    return s->init_noise_sigma;
}

void scheduler_scale_model_input(const scheduler *s, size_t index, const float *sample, float *out,
                                 size_t n)
{
    (void)s;
    (void)index;
    if (out != sample) {
        memcpy(out, sample, n * sizeof *out);
    }
}

int scheduler_wants_noise(const scheduler *s, size_t index, float eta)
{
    return s->class->wants_noise(s, index, eta);
}

attn_status scheduler_step(scheduler *s, const scheduler_call *call, float *out, attn_error *err)
{
    if (call->index >= s->count) {
        return attn_fail(err, ATTN_INVALID, "scheduler step %zu of %zu", call->index, s->count);
    }
    if (!call->noise && scheduler_wants_noise(s, call->index, call->eta)) {
        return attn_fail(err, ATTN_INVALID, "scheduler step %zu: eta %g needs noise", call->index,
                         (double)call->eta);
    }
    return s->class->step(s, call, out, err);
}

void scheduler_predict(const scheduler *s, size_t index, const float *model_output,
                       const float *sample, float *x0, float *noise, size_t n)
{
    float alpha = s->alphas_cumprod[s->timesteps[index]];
    float signal = sqrtf(alpha);
    float spread = sqrtf(1.0f - alpha);
    for (size_t i = 0; i < n; i++) {
        float clean = 0;
        float added = 0;
        prediction_split(s->prediction, signal, spread, model_output[i], sample[i], &clean, &added);
        if (x0) {
            x0[i] = clean;
        }
        if (noise) {
            noise[i] = added;
        }
    }
}

void noise_mix(float alpha, const float *x0, const float *noise, float *out, size_t n)
{
    float signal = sqrtf(alpha);
    float spread = sqrtf(1.0f - alpha);
    for (size_t i = 0; i < n; i++) {
        out[i] = signal * x0[i] + spread * noise[i];
    }
}

void scheduler_add_noise(const scheduler *s, size_t index, const float *x0, const float *noise,
                         float *out, size_t n)
{
    noise_mix(s->alphas_cumprod[s->timesteps[index]], x0, noise, out, n);
}
