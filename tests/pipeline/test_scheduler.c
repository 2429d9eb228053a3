/* Schedulers against diffusers' (tools/golden/schedulers.py).  Argument: the golden folder. */
#include "golden.h"

#include <jansson.h>
#include <unistd.h>

#include "scheduler_private.h"

static const char *golden_folder;
static char config_path[] = "/tmp/attnplug-scheduler-XXXXXX";

/* Writes the file that every test opens. */
static void config_put(const char *text)
{
    FILE *file = fopen(config_path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static attn_status config_open(json_t *config, const char *class_name, scheduler **s,
                               attn_error *err)
{
    json_t *whole = json_deep_copy(config);
    json_object_set_new(whole, "_class_name", json_string(class_name));
    char *text = json_dumps(whole, 0);
    config_put(text);
    free(text);
    json_decref(whole);
    return scheduler_open(config_path, NULL, s, err);
}

static void timesteps_agree(const scheduler *s, const safetensors_tensor *expected)
{
    size_t count;
    const int64_t *got = scheduler_timesteps(s, &count);
    const int32_t *want = expected->data;
    assert_int_equal(count, expected->shape[0]);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(got[i], want[i]);
    }
}

/* The whole loop on its own results, against the stored ones; returns the largest distance. */
static double loop_run(scheduler *s, const safetensors *golden, const char *name, float eta)
{
    const safetensors_tensor *outputs = golden_get(golden, "%s.model_output", name);
    const safetensors_tensor *x = golden_get(golden, "%s.x", name);
    const float *noise = eta > 0 ? golden_get(golden, "%s.variance_noise", name)->data : NULL;
    size_t steps = (size_t)outputs->shape[0];
    size_t n = (size_t)(outputs->bytes / sizeof(float)) / steps;
    float *sample = malloc(n * sizeof *sample);
    double worst = 0;
    assert_non_null(sample);
    memcpy(sample, x->data, n * sizeof *sample);
    for (size_t i = 0; i < steps; i++) {
        ATTN_ERROR_ON(err, 256);
        scheduler_call call = {.index = i,
                               .model_output = (const float *)outputs->data + i * n,
                               .sample = sample,
                               .noise = noise ? noise + i * n : NULL,
                               .eta = eta,
                               .n = n};
        assert_int_equal(scheduler_wants_noise(s, i, eta), eta > 0);
        if (scheduler_step(s, &call, sample, &err)) {
            fail_msg("%s step %zu: %s", name, i, err.text);
        }
        double distance = relative_l2(sample, (const float *)x->data + (i + 1) * n, n);
        worst = distance > worst || isnan(distance) ? distance : worst;
    }
    free(sample);
    return worst;
}

static double noising_run(const scheduler *s, const safetensors *golden, const char *name)
{
    const safetensors_tensor *at = golden_get(golden, "%s.noise_timesteps", name);
    const safetensors_tensor *noisy = golden_get(golden, "%s.noisy", name);
    const float *x = golden_get(golden, "%s.x", name)->data;
    const float *noise = golden_get(golden, "%s.model_output", name)->data;
    size_t count = (size_t)at->shape[0];
    size_t n = (size_t)(noisy->bytes / sizeof(float)) / count;
    float *got = malloc(n * sizeof *got);
    double worst = 0;
    assert_non_null(got);
    for (size_t i = 0; i < count; i++) {
        noise_mix(s->alphas_cumprod[((const int32_t *)at->data)[i]], x, noise, got, n);
        double distance = relative_l2(got, (const float *)noisy->data + i * n, n);
        worst = distance > worst || isnan(distance) ? distance : worst;
    }
    free(got);
    return worst;
}

static void cases_run(const char *file, const char *class_name, const char *const *refused)
{
    safetensors *golden = golden_open(golden_folder, file);
    json_t *cases = json_loads(safetensors_metadata(golden, "cases"), 0, NULL);
    const char *name;
    json_t *item;
    assert_true(json_object_size(cases) > 0);
    json_object_foreach(cases, name, item)
    {
        ATTN_ERROR_ON(err, 256);
        scheduler *s = NULL;
        float eta = (float)json_number_value(json_object_get(item, "eta"));
        attn_status status = config_open(json_object_get(item, "config"), class_name, &s, &err);
        int is_refused = 0;
        for (int i = 0; refused[i]; i++) {
            is_refused |= strcmp(refused[i], name) == 0;
        }
        if (is_refused) {
            assert_int_equal(status, ATTN_UNSUPPORTED);
            continue;
        }
        if (status) {
            fail_msg("%s: %s", name, err.text);
        }
        int64_t steps = json_integer_value(json_object_get(item, "num_inference_steps"));
        assert_int_equal(scheduler_set_timesteps(s, steps, &err), ATTN_OK);
        timesteps_agree(s, golden_get(golden, "%s.timesteps", name));
        assert_float_equal(scheduler_init_noise_sigma(s),
                           *(const float *)golden_get(golden, "%s.init_noise_sigma", name)->data,
                           1e-6);
        double loop = loop_run(s, golden, name, eta);
        double noising = noising_run(s, golden, name);
        print_message("%-16s loop %.2g, noising %.2g\n", name, loop, noising);
        assert_true(loop <= 1e-5 && noising <= 1e-5);
        scheduler_close(s);
    }
    json_decref(cases);
    safetensors_close(golden);
}

static void test_ddim(void **state)
{
    static const char *const none[] = {NULL};
    (void)state;
    cases_run("schedulers_ddim", "DDIMScheduler", none);
}

static void test_ddim_more(void **state)
{
    static const char *const refused[] = {"thresholding", "trained_betas", "zero_snr", NULL};
    (void)state;
    cases_run("schedulers_ddim_more", "DDIMScheduler", refused);
}

/* Prediction, noising and step are three views of one line through x0 and noise. */
static void test_predict(void **state)
{
    static const char *const types[] = {"epsilon", "sample", "v_prediction"};
    const float sample[3] = {0.5f, -1.25f, 2.0f};
    const float output[3] = {0.25f, 1.0f, -0.75f};
    (void)state;
    for (int i = 0; i < 3; i++) {
        ATTN_ERROR_ON(err, 256);
        char text[128];
        float x0[3];
        float noise[3];
        float again[3];
        scheduler *s = NULL;
        snprintf(text, sizeof text,
                 "{\"_class_name\": \"DDIMScheduler\", \"prediction_type\": "
                 "\"%s\"}",
                 types[i]);
        config_put(text);
        assert_int_equal(scheduler_open(config_path, NULL, &s, &err), ATTN_OK);
        assert_int_equal(scheduler_set_timesteps(s, 4, &err), ATTN_OK);
        scheduler_predict(s, 1, output, sample, x0, noise, 3);
        scheduler_add_noise(s, 1, x0, noise, again, 3);
        assert_true(largest_difference(again, sample, 3) < 1e-5);
        scheduler_close(s);
    }
}

static void test_refused(void **state)
{
    static const struct {
        const char *config;
        attn_status status;
        const char *says;
    } cases[] = {
        {"{", ATTN_INVALID, "line 1"},
        {"[]", ATTN_INVALID, "JSON object"},
        {"{}", ATTN_INVALID, "_class_name"},
        {"{\"_class_name\": \"HeunDiscreteScheduler\"}", ATTN_UNSUPPORTED,
         "HeunDiscreteScheduler is not supported; there is: DDIMScheduler"},
        {"{\"_class_name\": \"DDIMScheduler\", \"beta_schedule\": \"sigmoid\"}", ATTN_UNSUPPORTED,
         "beta_schedule: sigmoid is not supported; there is: linear, scaled_linear"},
        {"{\"_class_name\": \"DDIMScheduler\", \"prediction_type\": \"flow\"}", ATTN_UNSUPPORTED,
         "prediction_type: flow"},
        {"{\"_class_name\": \"DDIMScheduler\", \"thresholding\": true}", ATTN_UNSUPPORTED,
         "thresholding: true"},
        {"{\"_class_name\": \"DDIMScheduler\", \"rescale_betas_zero_snr\": true}", ATTN_UNSUPPORTED,
         "rescale_betas_zero_snr"},
        {"{\"_class_name\": \"DDIMScheduler\", \"trained_betas\": [0.1]}", ATTN_UNSUPPORTED,
         "trained_betas"},
        {"{\"_class_name\": \"DDIMScheduler\", \"num_train_timesteps\": 0}", ATTN_INVALID,
         "num_train_timesteps: 0"},
        {"{\"_class_name\": \"DDIMScheduler\", \"num_train_timesteps\": 2.5}", ATTN_INVALID,
         "num_train_timesteps: 2.5"},
        {"{\"_class_name\": \"DDIMScheduler\", \"num_train_timesteps\": \"x\"}", ATTN_INVALID,
         "num_train_timesteps: expected a number"},
        {"{\"_class_name\": \"DDIMScheduler\", \"beta_end\": 1.5}", ATTN_INVALID, "beta_end 1.5"},
        {"{\"_class_name\": \"DDIMScheduler\", \"clip_sample\": 1}", ATTN_INVALID, "clip_sample"},
        {"{\"_class_name\": \"DDIMScheduler\", \"steps_offset\": 1e300}", ATTN_INVALID,
         "steps_offset"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ATTN_ERROR_ON(err, 512);
        scheduler *s = NULL;
        config_put(cases[i].config);
        attn_status status = scheduler_open(config_path, NULL, &s, &err);
        if (status != cases[i].status || !strstr(err.text, cases[i].says) ||
            !strstr(err.text, config_path)) {
            fail_msg("%s: status %d, \"%s\"", cases[i].config, status, err.text);
        }
        assert_null(s);
    }
}

static void test_steps(void **state)
{
    ATTN_ERROR_ON(err, 256);
    scheduler *s = NULL;
    size_t count;
    (void)state;
    config_put("{\"_class_name\": \"PNDMScheduler\", \"steps_offset\": 1, \"clip_sample\": false}");
    assert_int_equal(scheduler_open(config_path, NULL, &s, &err), ATTN_UNSUPPORTED);
    assert_int_equal(scheduler_open(config_path, "DDIMScheduler", &s, &err), ATTN_OK);
    assert_string_equal(scheduler_name(s), "DDIMScheduler");
    assert_int_equal(scheduler_set_timesteps(s, 0, &err), ATTN_INVALID);
    assert_int_equal(scheduler_set_timesteps(s, 1001, &err), ATTN_INVALID);
    /* The offset pushes the first of 1000 steps past the schedule's end. */
    assert_int_equal(scheduler_set_timesteps(s, 1000, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "steps_offset"));
    assert_int_equal(scheduler_set_timesteps(s, 999, &err), ATTN_OK);
    scheduler_timesteps(s, &count);
    assert_int_equal(count, 999);
    scheduler_close(s);
    /* 61 trailing steps of 1000 are 62 in numpy, the last at -1. */
    config_put("{\"_class_name\": \"DDIMScheduler\", \"timestep_spacing\": \"trailing\"}");
    assert_int_equal(scheduler_open(config_path, NULL, &s, &err), ATTN_OK);
    assert_int_equal(scheduler_set_timesteps(s, 61, &err), ATTN_OK);
    assert_int_equal(scheduler_timesteps(s, &count)[60], 15);
    assert_int_equal(count, 61);
    const float zero = 0;
    float out;
    scheduler_call call = {.index = 0, .model_output = &zero, .sample = &zero, .eta = 1, .n = 1};
    assert_int_equal(scheduler_step(s, &call, &out, &err), ATTN_INVALID);
    call.index = 61;
    assert_int_equal(scheduler_step(s, &call, &out, &err), ATTN_INVALID);
    scheduler_close(s);
    scheduler_close(NULL);
    assert_int_equal(
        scheduler_open("/tmp/attnplug-no-such-folder/scheduler_config.json", NULL, &s, &err),
        ATTN_NOT_FOUND);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ddim),    cmocka_unit_test(test_ddim_more),
        cmocka_unit_test(test_predict), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_steps),
    };
    int fd = mkstemp(config_path);
    if (argc != 2 || fd < 0) {
        return 2;
    }
    close(fd);
    golden_folder = argv[1];
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(config_path);
    return failures;
}
