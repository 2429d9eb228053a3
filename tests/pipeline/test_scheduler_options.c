/* Schedulers: configurations, what is refused of them, and what every class keeps to. */
#include "scheduler_file.h"

static void test_refused(void **state)
{
    static const struct {
        const char *config;
        attn_status status;
        const char *says;
    } cases[] = {
        {"{", ATTN_INVALID, "line 1"},
        {"[]", ATTN_INVALID, "JSON object"},
        {"{\"a\": Infinityx}", ATTN_INVALID, "line 1"},
        {"{}", ATTN_INVALID, "_class_name"},
        {"{\"_class_name\": \"LCMScheduler\"}", ATTN_UNSUPPORTED,
         "LCMScheduler is not supported; there is: DDIMScheduler, DDPMScheduler, PNDMScheduler"},
        {"{\"_class_name\": \"Euler\"}", ATTN_UNSUPPORTED, "Euler is not supported"},
        {"{\"_class_name\": \"\"}", ATTN_UNSUPPORTED, "is not supported"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ATTN_ERROR_ON(err, 1024);
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

/* Each error names the key, the value and what was expected. */
static void test_bad_values(void **state)
{
    static const struct {
        const char *class_name, *options;
        attn_status status;
        const char *says;
    } cases[] = {
        {"DDIM", "\"beta_schedule\": \"sigmoid\"", ATTN_UNSUPPORTED,
         "beta_schedule: sigmoid is not supported; there is: linear, scaled_linear"},
        {"DDPM", "\"beta_schedule\": \"exp\"", ATTN_UNSUPPORTED, "squaredcos_cap_v2, sigmoid"},
        {"DDIM", "\"beta_schedule\": 3", ATTN_INVALID, "beta_schedule: 3, expected a text"},
        {"DDIM", "\"prediction_type\": \"flow\"", ATTN_UNSUPPORTED, "prediction_type: flow"},
        {"PNDM", "\"prediction_type\": \"sample\"", ATTN_UNSUPPORTED,
         "prediction_type: sample is not supported; there is: epsilon, v_prediction"},
        {"EulerAncestralDiscrete", "\"prediction_type\": \"sample\"", ATTN_UNSUPPORTED,
         "prediction_type: sample"},
        {"KDPM2Discrete", "\"prediction_type\": \"sample\"", ATTN_UNSUPPORTED,
         "prediction_type: sample"},
        {"DDIM", "\"timestep_spacing\": \"random\"", ATTN_UNSUPPORTED,
         "timestep_spacing: random is not supported; there is: leading, linspace, trailing"},
        {"DDIM", "\"num_train_timesteps\": 0", ATTN_INVALID,
         "num_train_timesteps: 0, expected a whole number from 1"},
        {"DDIM", "\"num_train_timesteps\": 2.5", ATTN_INVALID, "num_train_timesteps: 2.5"},
        {"DDIM", "\"num_train_timesteps\": \"x\"", ATTN_INVALID, "num_train_timesteps: \"x\""},
        {"DDIM", "\"beta_end\": 1.5", ATTN_INVALID, "beta_end: 1.5, expected a number from"},
        {"DDIM", "\"beta_start\": -1", ATTN_INVALID, "beta_start: -1"},
        {"DDIM", "\"clip_sample\": 1", ATTN_INVALID, "clip_sample: 1, expected true or false"},
        {"DDIM", "\"clip_sample_range\": -1", ATTN_INVALID, "clip_sample_range: -1"},
        {"DDIM", "\"steps_offset\": 1e300", ATTN_INVALID, "steps_offset"},
        {"DDIM", "\"thresholding\": \"yes\"", ATTN_INVALID, "thresholding: \"yes\""},
        {"DDIM", "\"dynamic_thresholding_ratio\": 1.1", ATTN_INVALID,
         "dynamic_thresholding_ratio: 1.1"},
        {"DDIM", "\"sample_max_value\": 0", ATTN_INVALID, "sample_max_value: 0"},
        {"DDIM", "\"set_alpha_to_one\": null, \"rescale_betas_zero_snr\": 0", ATTN_INVALID,
         "rescale_betas_zero_snr: 0"},
        {"DDIM", "\"trained_betas\": [0.1]", ATTN_INVALID,
         "trained_betas: 1 numbers, expected as many as num_train_timesteps, 1000"},
        {"DDIM", "\"trained_betas\": [0.1, 2], \"num_train_timesteps\": 2", ATTN_INVALID,
         "trained_betas[1]: 2, expected a number between 0 and 1"},
        {"DDPM", "\"variance_type\": \"learned\"", ATTN_INVALID, "variance_type: \"learned\""},
        {"DDPM", "\"variance_type\": \"big\"", ATTN_UNSUPPORTED, "variance_type: big"},
        {"PNDM", "\"skip_prk_steps\": 2", ATTN_INVALID, "skip_prk_steps: 2"},
        {"DPMSolverMultistep", "\"algorithm_type\": \"unipc\"", ATTN_UNSUPPORTED,
         "algorithm_type: unipc is not supported; there is: dpmsolver, dpmsolver++"},
        {"DPMSolverMultistep", "\"algorithm_type\": \"dpmsolver\"", ATTN_INVALID,
         "final_sigmas_type: zero (the default) with algorithm_type dpmsolver, expected sigma_min"},
        {"DPMSolverMultistep", "\"final_sigmas_type\": \"one\"", ATTN_UNSUPPORTED,
         "final_sigmas_type: one"},
        {"DPMSolverMultistep", "\"solver_order\": 4", ATTN_INVALID,
         "solver_order: 4, expected a whole number from 1 to 3"},
        {"DPMSolverMultistep", "\"solver_order\": 3, \"algorithm_type\": \"sde-dpmsolver++\"",
         ATTN_INVALID, "solver_order: 3, expected a whole number from 1 to 2"},
        {"DPMSolverMultistep", "\"solver_type\": \"rk4\"", ATTN_UNSUPPORTED, "solver_type: rk4"},
        {"DPMSolverMultistep", "\"variance_type\": \"learned_range\"", ATTN_INVALID,
         "variance_type: \"learned_range\", expected a fixed one"},
        {"DPMSolverMultistep", "\"lambda_min_clipped\": \"low\"", ATTN_INVALID,
         "lambda_min_clipped: \"low\""},
        {"DPMSolverMultistep", "\"use_lu_lambdas\": 1", ATTN_INVALID, "use_lu_lambdas: 1"},
        {"DPMSolverSinglestep", "\"algorithm_type\": \"sde-dpmsolver++\"", ATTN_UNSUPPORTED,
         "algorithm_type: sde-dpmsolver++ is not supported; there is: dpmsolver, dpmsolver++, "
         "deis"},
        {"DEISMultistep", "\"algorithm_type\": \"sde-dpmsolver\"", ATTN_UNSUPPORTED,
         "algorithm_type: sde-dpmsolver"},
        {"UniPCMultistep", "\"solver_order\": 0", ATTN_INVALID, "solver_order: 0"},
        {"UniPCMultistep", "\"disable_corrector\": [0.5]", ATTN_INVALID, "disable_corrector"},
        {"UniPCMultistep", "\"disable_corrector\": true", ATTN_INVALID, "disable_corrector: true"},
        {"UniPCMultistep", "\"solver_p\": [\"diffusers\", \"DDIMScheduler\"]", ATTN_INVALID,
         "solver_p"},
        {"EulerDiscrete", "\"interpolation_type\": \"cubic\"", ATTN_UNSUPPORTED,
         "interpolation_type: cubic is not supported; there is: linear, log_linear"},
        {"EulerDiscrete", "\"timestep_type\": \"odd\"", ATTN_UNSUPPORTED, "timestep_type: odd"},
        {"EulerDiscrete", "\"sigma_min\": 0", ATTN_INVALID, "sigma_min: 0"},
        {"HeunDiscrete", "\"use_karras_sigmas\": []", ATTN_INVALID, "use_karras_sigmas: []"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ATTN_ERROR_ON(err, 1024);
        scheduler *s = NULL;
        attn_status status = config_open(cases[i].class_name, cases[i].options, &s, &err);
        if (status != cases[i].status || !strstr(err.text, cases[i].says)) {
            fail_msg("%s %s: status %d, \"%s\"", cases[i].class_name, cases[i].options, status,
                     err.text);
        }
        assert_null(s);
    }
}

static void test_unknown_keys(void **state)
{
    ATTN_ERROR_ON(err, 1024);
    scheduler *s = NULL;
    (void)state;
    /* Other classes' options and private keys are no news; anything else is. */
    assert_int_equal(config_open("DDIM",
                                 "\"skip_prk_steps\": 7, \"_diffusers_version\": \"0.26.3\","
                                 " \"betas\": 1, \"solver_ordre\": 2",
                                 &s, &err),
                     ATTN_OK);
    assert_string_equal(scheduler_warning(s), "unknown options are ignored: betas, solver_ordre");
    scheduler_close(s);
    char many[1024] = "\"a\": 1";
    for (int i = 0; i < 19; i++) {
        const size_t used = strlen(many);
        snprintf(many + used, sizeof many - used, ", \"key_%d\": 1", i);
    }
    assert_int_equal(config_open("DDIM", many, &s, &err), ATTN_OK);
    assert_non_null(strstr(scheduler_warning(s), ": a, key_0, "));
    assert_non_null(strstr(scheduler_warning(s), ", key_14 and 4 more"));
    scheduler_close(s);
    /* What was not said when the file was written counts as not said. */
    assert_int_equal(config_open("EulerDiscrete",
                                 "\"timestep_spacing\": \"trailing\", \"beta_end\": \"nonsense\","
                                 " \"_use_default_values\": [\"timestep_spacing\", \"beta_end\"]",
                                 &s, &err),
                     ATTN_OK);
    assert_string_equal(scheduler_warning(s), "");
    size_t count;
    assert_int_equal(scheduler_set_timesteps(s, 3, &err), ATTN_OK);
    assert_float_equal(scheduler_timesteps(s, &count)[1], 499.5, 0);
    scheduler_close(s);
}

/* Python's json writes what JSON has not. */
static void test_infinity(void **state)
{
    ATTN_ERROR_ON(err, 1024);
    scheduler *s = NULL;
    (void)state;
    assert_int_equal(config_open("DPMSolverMultistep",
                                 "\"lambda_min_clipped\": -Infinity, \"note\\\" Infinity\": 1", &s,
                                 &err),
                     ATTN_OK);
    assert_string_equal(scheduler_warning(s), "unknown options are ignored: note\" Infinity");
    scheduler_close(s);
    assert_int_equal(config_open("EulerDiscrete", "\"sigma_max\": Infinity", &s, &err),
                     ATTN_INVALID);
    assert_non_null(strstr(err.text, "sigma_max: 1.7e"));
}

static void test_names(void **state)
{
    (void)state;
    for (size_t i = 0; scheduler_class_name(i); i++) {
        ATTN_ERROR_ON(err, 1024);
        char name[64];
        scheduler *s = NULL;
        snprintf(name, sizeof name, "%s", scheduler_class_name(i));
        config_put("{\"beta_schedule\": \"scaled_linear\"}");
        assert_int_equal(scheduler_open(config_path, name, &s, &err), ATTN_OK);
        assert_string_equal(scheduler_name(s), name);
        scheduler_close(s);
        *strstr(name, "Scheduler") = 0;
        assert_int_equal(scheduler_open(config_path, name, &s, &err), ATTN_OK);
        assert_string_equal(scheduler_name(s), scheduler_class_name(i));
        scheduler_close(s);
        /* A folder of any class gives another one what both know. */
        config_put("{\"_class_name\": \"PNDMScheduler\", \"num_train_timesteps\": 10,"
                   " \"prediction_type\": \"v_prediction\", \"skip_prk_steps\": true}");
        assert_int_equal(scheduler_open(config_path, name, &s, &err), ATTN_OK);
        assert_int_equal(scheduler_set_timesteps(s, 11, &err), ATTN_INVALID);
        assert_non_null(strstr(err.text, "num_inference_steps: 11, expected 1 to the model's 10"));
        scheduler_close(s);
    }
}

static void test_steps(void **state)
{
    ATTN_ERROR_ON(err, 256);
    size_t count;
    (void)state;
    for (size_t i = 0; scheduler_class_name(i); i++) {
        scheduler *s = config_ready(scheduler_class_name(i), "", 5);
        assert_int_equal(scheduler_set_timesteps(s, 0, &err), ATTN_INVALID);
        assert_int_equal(scheduler_set_timesteps(s, -1, &err), ATTN_INVALID);
        assert_int_equal(scheduler_set_timesteps(s, 1001, &err), ATTN_INVALID);
        assert_int_equal(scheduler_set_timesteps(s, INT64_MAX, &err), ATTN_INVALID);
        scheduler_close(s);
    }
    scheduler *s = config_ready("DDIM", "\"steps_offset\": 1", 999);
    scheduler_timesteps(s, &count);
    assert_int_equal(count, 999);
    /* The offset pushes the first of 1000 steps past the schedule's end. */
    assert_int_equal(scheduler_set_timesteps(s, 1000, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "steps_offset"));
    scheduler_close(s);
    /* 61 trailing steps of 1000 are 62 in numpy, the last at -1. */
    s = config_ready("DDIM", "\"timestep_spacing\": \"trailing\"", 61);
    assert_float_equal(scheduler_timesteps(s, &count)[60], 15, 0);
    assert_int_equal(count, 61);
    scheduler_close(s);
    s = config_ready("PNDM", "", 4);
    assert_int_equal(scheduler_set_timesteps(s, 3, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "at least 4"));
    scheduler_close(s);
    /* A solver of differences needs them. */
    s = config_ready("DPMSolverMultistep", "", 500);
    assert_int_equal(scheduler_set_timesteps(s, 1000, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "fewer steps may do"));
    scheduler_close(s);
    scheduler_close(NULL);
    assert_int_equal(
        scheduler_open("/tmp/attnplug-no-such-folder/scheduler_config.json", NULL, &s, &err),
        ATTN_NOT_FOUND);
}

/* How many calls a run has, and which of them complete a step. */
static void test_calls(void **state)
{
    static const struct {
        const char *class_name, *options;
        int64_t steps;
        size_t calls, order;
        const char *completes;
    } cases[] = {
        {"DDIM", "", 4, 4, 1, "1111"},
        {"PNDM", "\"skip_prk_steps\": true", 4, 5, 1, "01111"},
        {"PNDM", "", 5, 14, 1, "00000000011111"},
        {"EulerAncestralDiscrete", "", 3, 3, 1, "111"},
        {"HeunDiscrete", "", 4, 7, 2, "0101011"},
        {"KDPM2Discrete", "", 1, 1, 2, "1"},
        {"KDPM2AncestralDiscrete", "", 2, 3, 2, "011"},
        {"UniPCMultistep", "", 3, 3, 1, "111"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t count;
        scheduler *s = config_ready(cases[i].class_name, cases[i].options, cases[i].steps);
        scheduler_timesteps(s, &count);
        assert_int_equal(count, cases[i].calls);
        assert_int_equal(scheduler_order(s), cases[i].order);
        for (size_t k = 0; k < count; k++) {
            assert_int_equal(scheduler_completes_step(s, k), cases[i].completes[k] == '1');
        }
        scheduler_close(s);
    }
}

static void test_call_order(void **state)
{
    ATTN_ERROR_ON(err, 256);
    const float zero[2] = {0, 0};
    float out[2];
    (void)state;
    scheduler *s = config_ready("DDIM", "", 3);
    scheduler_call call = {.model_output = zero, .sample = zero, .n = 2};
    call.index = 1;
    assert_int_equal(scheduler_step(s, &call, out, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "expected step 0"));
    call.index = 3;
    assert_int_equal(scheduler_step(s, &call, out, &err), ATTN_INVALID);
    call.index = 0;
    call.eta = 1;
    assert_int_equal(scheduler_step(s, &call, out, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "needs noise"));
    call.eta = 0;
    call.each = 3;
    assert_int_equal(scheduler_step(s, &call, out, &err), ATTN_INVALID);
    call.each = 1;
    assert_int_equal(scheduler_step(s, &call, out, &err), ATTN_OK);
    call.index = 1;
    call.n = 1;
    assert_int_equal(scheduler_step(s, &call, out, &err), ATTN_INVALID);
    call.n = 2;
    assert_int_equal(scheduler_step(s, &call, out, &err), ATTN_OK);
    call.index = 0; /* a run may begin again */
    assert_int_equal(scheduler_step(s, &call, out, &err), ATTN_OK);
    scheduler_close(s);
}

/* Prediction and noising are inverse, in each class's own parametrisation and at each call. */
static void test_predict(void **state)
{
    static const char *const types[] = {"epsilon", "sample", "v_prediction"};
    const float sample[3] = {0.5f, -1.25f, 2.0f};
    const float output[3] = {0.25f, 1.0f, -0.75f};
    size_t seen = 0;
    (void)state;
    for (size_t c = 0; scheduler_class_name(c); c++) {
        for (int type = 0; type < 3; type++) {
            ATTN_ERROR_ON(err, 1024);
            char options[128];
            size_t count = 0;
            scheduler *s = NULL;
            snprintf(options, sizeof options, "\"prediction_type\": \"%s\"", types[type]);
            if (config_open(scheduler_class_name(c), options, &s, &err) == ATTN_OK) {
                assert_int_equal(scheduler_set_timesteps(s, 5, &err), ATTN_OK);
                scheduler_timesteps(s, &count);
            }
            for (size_t i = 0; i < count; i++) {
                float x0[3], noise[3], again[3];
                scheduler_predict(s, i, output, sample, x0, noise, 3);
                scheduler_add_noise(s, i, x0, noise, again, 3);
                assert_true(largest_difference(again, sample, 3) < 2e-5);
                seen++;
            }
            scheduler_close(s);
        }
    }
    assert_true(seen > 150);
}

/* The model's own answer for data of which nothing is left but its mean: where every prediction is
 * right, every deterministic scheduler that ends at no noise ends at the mean. */
static void test_exact_model(void **state)
{
    const float mean[4] = {0.5f, -1.0f, 0.25f, 2.0f};
    (void)state;
    for (size_t c = 0; scheduler_class_name(c); c++) {
        ATTN_ERROR_ON(err, 256);
        float x[4] = {1, -2, 0.5f, 0.1f};
        size_t count;
        scheduler *s =
            config_ready(scheduler_class_name(c),
                         "\"beta_schedule\": \"scaled_linear\", \"clip_sample\": false", 20);
        scheduler_timesteps(s, &count);
        for (int k = 0; k < 4; k++) {
            x[k] *= scheduler_init_noise_sigma(s);
        }
        for (size_t i = 0; i < count; i++) {
            const float noise[4] = {0.3f, -0.4f, 1, 0};
            const float one = 1, nothing = 0;
            float output[4], signal, spread;
            scheduler_add_noise(s, i, &one, &nothing, &signal, 1);
            scheduler_add_noise(s, i, &nothing, &one, &spread, 1);
            for (int k = 0; k < 4; k++) {
                output[k] = (x[k] - signal * mean[k]) / spread;
            }
            scheduler_call call = {.index = i,
                                   .model_output = output,
                                   .sample = x,
                                   .noise = scheduler_wants_noise(s, i, 0) ? noise : NULL,
                                   .n = 4};
            assert_int_equal(scheduler_step(s, &call, x, &err), ATTN_OK);
        }
        /* Those that end at training's least noise have that much left. */
        double left = largest_difference(x, mean, 4);
        print_message("%-32s %.2g from the mean\n", scheduler_name(s), left);
        assert_true(left < 0.1);
        scheduler_close(s);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_unknown_keys), cmocka_unit_test(test_infinity),
        cmocka_unit_test(test_names),        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_calls),        cmocka_unit_test(test_call_order),
        cmocka_unit_test(test_predict),      cmocka_unit_test(test_exact_model),
    };
    (void)argv;
    if (argc != 1 || config_begin()) {
        return 2;
    }
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(config_path);
    return failures;
}
