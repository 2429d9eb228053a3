#include "scheduler_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const scheduler_class *const classes[] = {
    &scheduler_ddim,           &scheduler_ddpm,
    &scheduler_pndm,           &scheduler_dpm_multistep,
    &scheduler_dpm_singlestep, &scheduler_deis,
    &scheduler_unipc,          &scheduler_lms,
    &scheduler_euler,          &scheduler_euler_ancestral,
    &scheduler_heun,           &scheduler_kdpm2,
    &scheduler_kdpm2_ancestral};
enum { CLASSES = sizeof classes / sizeof *classes };

static const option_name prediction_names[] = {{"epsilon", PREDICT_EPSILON},
                                               {"sample", PREDICT_SAMPLE},
                                               {"v_prediction", PREDICT_V},
                                               {NULL, 0}};
static const option_name spacing_names[] = {{"leading", SPACING_LEADING},
                                            {"linspace", SPACING_LINSPACE},
                                            {"trailing", SPACING_TRAILING},
                                            {NULL, 0}};

const char *scheduler_class_name(size_t index)
{
    return index < CLASSES ? classes[index]->name : NULL;
}

/* "Euler..." is "Euler...Scheduler". */
static const scheduler_class *class_find(const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < CLASSES; i++) {
        const char *full = classes[i]->name;
        if (strncmp(full, name, length) == 0 &&
            (full[length] == 0 || strcmp(full + length, "Scheduler") == 0)) {
            return classes[i];
        }
    }
    return NULL;
}

static attn_status class_choose(scheduler *s, json_t *config, const char *name, attn_error *err)
{
    char known[512] = "";
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
    for (size_t i = 0; i < CLASSES; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", classes[i]->name);
    }
    return attn_fail(err, ATTN_UNSUPPORTED, "scheduler %.60s is not supported; there is: %s", name,
                     known);
}

static attn_status spacing_configure(scheduler *s, json_t *config, attn_error *err)
{
    int spacing = 0;
    attn_status status = ATTN_OK;
    s->spacing = s->class->spacing;
    if (s->class->takes & TAKES_SPACING) {
        status = option_choice(config, "timestep_spacing", spacing_names, 0, (int)s->class->spacing,
                               &spacing, err);
        s->spacing = (timestep_spacing)spacing;
        if (!status) {
            status = option_whole(config, "steps_offset", 0, -s->train_steps, s->train_steps,
                                  &s->steps_offset, err);
        }
    }
    if (!status && s->class->takes & TAKES_KARRAS) {
        status = option_flag(config, "use_karras_sigmas", 0, &s->karras, err);
        if (!status) {
            status = option_number(config, "sigma_min", NAN, 1e-6, 1e6, &s->sigma_min, err);
        }
        if (!status) {
            status = option_number(config, "sigma_max", NAN, 1e-6, 1e6, &s->sigma_max, err);
        }
    }
    return status;
}

static attn_status limits_configure(scheduler *s, json_t *config, attn_error *err)
{
    unsigned takes = s->class->takes;
    double ratio = 0;
    double most = 0;
    double range = 0;
    attn_status status = ATTN_OK;
    if (takes & TAKES_THRESHOLD) {
        status = option_flag(config, "thresholding", 0, &s->thresholding, err);
        if (!status) {
            status = option_number(config, "dynamic_thresholding_ratio", 0.995, 0, 1, &ratio, err);
        }
        if (!status) {
            status = option_number(config, "sample_max_value", 1, 1e-6, 1e30, &most, err);
        }
    }
    if (!status && takes & TAKES_CLIP) {
        status = option_flag(config, "clip_sample", takes & CLIPS_UNLESS_TOLD, &s->clip, err);
        if (!status) {
            status = option_number(config, "clip_sample_range", 1, 0, 1e30, &range, err);
        }
    }
    s->threshold_ratio = (float)ratio;
    s->threshold_most = (float)most;
    s->clip_range = (float)range;
    return status;
}

static attn_status common_configure(scheduler *s, json_t *config, attn_error *err)
{
    int prediction = 0;
    int to_one = 0;
    attn_status status =
        option_whole(config, "num_train_timesteps", 1000, 1, 1000000, &s->train_steps, err);
    if (!status) {
        status = option_choice(config, "prediction_type", prediction_names,
                               (int)s->class->predictions, PREDICT_EPSILON, &prediction, err);
    }
    if (!status) {
        status = spacing_configure(s, config, err);
    }
    if (!status) {
        status = limits_configure(s, config, err);
    }
    if (!status && s->class->takes & TAKES_ONE) {
        status = option_flag(config, "set_alpha_to_one", s->class->takes & ONE_UNLESS_TOLD, &to_one,
                             err);
    }
    if (!status) {
        status = betas_fill(s, config, err);
    }
    if (!status) {
        s->prediction = (prediction_type)prediction;
        s->final_alpha = to_one ? 1.0f : s->alphas_cumprod[0];
    }
    return status;
}

static attn_status scheduler_make(scheduler *s, json_t *config, const char *name, attn_error *err)
{
    s->sigma_min = NAN;
    s->sigma_max = NAN;
    attn_status status = class_choose(s, config, name, err);
    if (!status) {
        status = options_clean(config, &s->warning, err);
    }
    if (!status && !(s->own = calloc(1, s->class->own_size + 1))) {
        status = attn_fail(err, ATTN_NOMEM, "no memory for a scheduler");
    }
    if (!status) {
        status = common_configure(s, config, err);
    }
    return status ? status : s->class->configure(s, config, err);
}

attn_status scheduler_open_config(json_t *config, const char *where, const char *class_name,
                                  scheduler **out, attn_error *err)
{
    ATTN_ERROR_ON(inner, 1024);
    *out = NULL;
    scheduler *s = calloc(1, sizeof *s);
    attn_status status = s ? scheduler_make(s, config, class_name, &inner)
                           : attn_fail(&inner, ATTN_NOMEM, "no memory for a scheduler");
    if (status) {
        scheduler_close(s);
        return attn_fail(err, status, "%s: %s", where, inner.text);
    }
    *out = s;
    return ATTN_OK;
}

attn_status scheduler_open(const char *path, const char *class_name, scheduler **out,
                           attn_error *err)
{
    json_t *config = NULL;
    *out = NULL;
    attn_status status = scheduler_config_read(path, &config, err);
    if (!status) {
        status = scheduler_open_config(config, path, class_name, out, err);
    }
    json_decref(config);
    return status;
}

void scheduler_close(scheduler *s)
{
    if (!s) {
        return;
    }
    void *owned[] = {s->own,       s->warning, s->alphas_cumprod, s->train_sigmas,
                     s->timesteps, s->levels,  s->sigmas,         s->state};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        free(owned[i]);
    }
    free(s);
}

const char *scheduler_name(const scheduler *s)
{
    return s->class->name;
}

const char *scheduler_warning(const scheduler *s)
{
    return s->warning ? s->warning : "";
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

const float *scheduler_timesteps(const scheduler *s, size_t *count)
{
    *count = s->count;
    return s->timesteps;
}

size_t scheduler_order(const scheduler *s)
{
    return s->class->order;
}

int scheduler_completes_step(const scheduler *s, size_t index)
{
    size_t order = s->class->order;
    size_t steps = (size_t)s->steps * order;
    size_t warm_up = s->count > steps ? s->count - steps : 0;
    return index + 1 == s->count || (index + 1 > warm_up && (index + 1) % order == 0);
}

float scheduler_init_noise_sigma(const scheduler *s)
{
    return s->init_noise_sigma;
}

int scheduler_wants_noise(const scheduler *s, size_t index, float eta)
{
    return s->class->wants_noise && s->class->wants_noise(s, index, eta);
}

static attn_status call_check(const scheduler *s, const scheduler_call *call, attn_error *err)
{
    if (call->index >= s->count) {
        return attn_fail(err, ATTN_INVALID, "scheduler step %zu of %zu", call->index, s->count);
    }
    if (call->index && (call->index != s->next || call->n != s->n)) {
        return attn_fail(err, ATTN_INVALID,
                         "scheduler step %zu of %zu numbers: expected step %zu of %zu", call->index,
                         call->n, s->next, s->n);
    }
    if (call->each && call->n % call->each) {
        return attn_fail(err, ATTN_INVALID, "scheduler step: %zu numbers in pictures of %zu",
                         call->n, call->each);
    }
    if (!call->noise && scheduler_wants_noise(s, call->index, call->eta)) {
        return attn_fail(err, ATTN_INVALID, "scheduler step %zu: eta %g needs noise", call->index,
                         (double)call->eta);
    }
    return ATTN_OK;
}

attn_status scheduler_step(scheduler *s, const scheduler_call *call, float *out, attn_error *err)
{
    attn_status status = call_check(s, call, err);
    if (status) {
        return status;
    }
    if (call->index == 0 && (call->n != s->n || !s->state)) {
        free(s->state);
        s->n = call->n;
        s->state = calloc((s->arrays + 1) * (s->n + 1), sizeof *s->state);
        if (!s->state) {
            return attn_fail(err, ATTN_NOMEM, "no memory for a step of %zu numbers", call->n);
        }
    }
    status = s->class->step(s, call, out, err);
    s->next = status ? s->next : call->index + 1;
    return status;
}
