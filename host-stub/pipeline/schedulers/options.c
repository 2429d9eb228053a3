/* options.c: reading a scheduler_config.json. */
#include "scheduler_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "file_bytes.h"
#include "json_file.h"

enum { LONGEST_FILE = 64 << 20 };

/* Every option of the classes here, and of the other one that diffusers says they are compatible
 * with (DPMSolverSDEScheduler): a folder's file may hold those of another class. */
static const char *const known[] = {
    "algorithm_type",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "clip_sample",
    "clip_sample_range",
    "disable_corrector",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "final_sigmas_type",
    "interpolation_type",
    "lambda_min_clipped",
    "lower_order_final",
    "noise_sampler_seed",
    "num_train_timesteps",
    "predict_x0",
    "prediction_type",
    "rescale_betas_zero_snr",
    "sample_max_value",
    "set_alpha_to_one",
    "sigma_max",
    "sigma_min",
    "skip_prk_steps",
    "solver_order",
    "solver_p",
    "solver_type",
    "steps_offset",
    "thresholding",
    "timestep_spacing",
    "timestep_type",
    "trained_betas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
};

static int key_known(const char *key)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i], key) == 0) {
            return 1;
        }
    }
    return key[0] == '_';
}

static json_t *option_find(json_t *config, const char *name)
{
    json_t *found = json_object_get(config, name);
    return json_is_null(found) ? NULL : found;
}

attn_status option_fail(const char *name, const json_t *value, const char *expected,
                        attn_error *err)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    attn_fail(err, ATTN_INVALID, "%s: %.60s, expected %s", name, text ? text : "?", expected);
    free(text);
    return ATTN_INVALID;
}

attn_status option_number(json_t *config, const char *name, double fallback, double low,
                          double high, double *value, attn_error *err)
{
    char expected[96];
    json_t *found = option_find(config, name);
    *value = fallback;
    if (!found) {
        return ATTN_OK;
    }
    double number = json_number_value(found);
    if (!json_is_number(found) || !(number >= low && number <= high)) {
        snprintf(expected, sizeof expected, "a number from %g to %g", low, high);
        return option_fail(name, found, expected, err);
    }
    *value = number;
    return ATTN_OK;
}

attn_status option_whole(json_t *config, const char *name, int64_t fallback, int64_t low,
                         int64_t high, int64_t *value, attn_error *err)
{
    char expected[96];
    json_t *found = option_find(config, name);
    *value = fallback;
    if (!found) {
        return ATTN_OK;
    }
    double number = json_number_value(found);
    if (!json_is_number(found) || number != floor(number) ||
        !(number >= (double)low && number <= (double)high)) {
        snprintf(expected, sizeof expected, "a whole number from %lld to %lld", (long long)low,
                 (long long)high);
        return option_fail(name, found, expected, err);
    }
    *value = (int64_t)number;
    return ATTN_OK;
}

attn_status option_flag(json_t *config, const char *name, int fallback, int *value, attn_error *err)
{
    json_t *found = option_find(config, name);
    *value = fallback;
    if (!found) {
        return ATTN_OK;
    }
    if (!json_is_boolean(found)) {
        return option_fail(name, found, "true or false", err);
    }
    *value = json_is_true(found);
    return ATTN_OK;
}

attn_status option_choice(json_t *config, const char *name, const option_name *names, int allowed,
                          int fallback, int *value, attn_error *err)
{
    char list[256] = "";
    json_t *found = option_find(config, name);
    *value = fallback;
    if (!found) {
        return ATTN_OK;
    }
    if (!json_is_string(found)) {
        return option_fail(name, found, "a text", err);
    }
    for (const option_name *n = names; n->text; n++) {
        size_t used = strlen(list);
        if (allowed && !(n->value & allowed)) {
            continue;
        }
        if (strcmp(n->text, json_string_value(found)) == 0) {
            *value = n->value;
            return ATTN_OK;
        }
        snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "", n->text);
    }
    return attn_fail(err, ATTN_UNSUPPORTED, "%s: %.60s is not supported; there is: %s", name,
                     json_string_value(found), list);
}

/* One line of the keys that no class has, the first of them by name; *warning NULL for none. */
static attn_status unknown_tell(json_t *config, char **warning, attn_error *err)
{
    enum { NAMED = 16, KEY_BYTES = 64 };
    char list[NAMED * KEY_BYTES] = "";
    size_t used = 0;
    size_t count = 0;
    const char *key;
    json_t *value;
    json_object_foreach(config, key, value)
    {
        if (!key_known(key) && count++ < NAMED) {
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%.60s",
                                     count > 1 ? ", " : "", key);
        }
    }
    *warning = NULL;
    if (!count) {
        return ATTN_OK;
    }
    const int made =
        count > NAMED
            ? asprintf(warning, "unknown options are ignored: %s and %zu more", list, count - NAMED)
            : asprintf(warning, "unknown options are ignored: %s", list);
    if (made < 0) {
        *warning = NULL;
        return attn_fail(err, ATTN_NOMEM, "no memory for a warning");
    }
    return ATTN_OK;
}

attn_status options_clean(json_t *config, char **warning, attn_error *err)
{
    json_t *value;
    size_t i;
    json_array_foreach(json_object_get(config, "_use_default_values"), i, value)
    {
        if (json_is_string(value)) {
            json_object_del(config, json_string_value(value));
        }
    }
    return unknown_tell(config, warning, err);
}

/* Python's json writes Infinity, which is not JSON: diffusers' own configs have it for
 * lambda_min_clipped. Any number that large means the same. */
static void infinities_replace(char *text, size_t size)
{
    static const char word[] = "Infinity", number[] = "1.7e+308";
    int quoted = 0;
    for (size_t i = 0; i + sizeof word - 1 <= size; i++) {
        if (quoted && text[i] == '\\') {
            i++;
        } else if (text[i] == '"') {
            quoted = !quoted;
        } else if (!quoted && memcmp(text + i, word, sizeof word - 1) == 0) {
            memcpy(text + i, number, sizeof number - 1);
        }
    }
}

attn_status scheduler_config_read(const char *path, json_t **out, attn_error *err)
{
    ATTN_ERROR_ON(plain, 512);
    uint8_t *text = NULL;
    size_t size = 0;
    attn_status status = json_file_read(path, out, &plain);
    if (status != ATTN_INVALID) {
        return status ? attn_fail(err, status, "%s", plain.text) : ATTN_OK;
    }
    if (!file_bytes_read(path, LONGEST_FILE, "a scheduler's configuration", &text, &size, NULL)) {
        infinities_replace((char *)text, size);
        *out = json_loadb((char *)text, size, JSON_REJECT_DUPLICATES, NULL);
        free(text);
    }
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        return attn_fail(err, ATTN_INVALID, "%s", plain.text);
    }
    return ATTN_OK;
}
