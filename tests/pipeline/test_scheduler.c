/* Schedulers against diffusers', each stored loop (tools/golden/schedulers.py).
 *
 * Argument: the golden folder, or one that a sweep of random configurations was written to. */
#include "scheduler_file.h"

static const char *golden_folder;

/* The tool's generator: twelve-bit fractions, so that both sides have the same numbers. */
static void numbers_draw(uint64_t *state, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        out[i] = (float)((int)(*state >> 52) - 2048) / 1024.0f;
    }
}

/* One stored case. */
struct loop {
    const char *name;
    const safetensors_tensor *calls, *x, *x64;
    size_t n, each, count;
    int smooth;
    uint64_t numbers;
    float eta;
    float *start, *slope, *fresh, *output, *noise, *sample;
    /* Largest distances: from diffusers, from diffusers in float64, of those two. */
    double worst, worst64, own;
};

static void loop_open(struct loop *l, const safetensors *golden, const char *name, json_t *item)
{
    char wide[256];
    json_t *shape = json_object_get(item, "shape");
    snprintf(wide, sizeof wide, "%s.x64", name);
    *l = (struct loop){
        .name = name,
        .calls = golden_get(golden, "%s.calls", name),
        .x = golden_get(golden, "%s.x", name),
        .x64 = safetensors_find(golden, wide),
        .smooth = strcmp(json_string_value(json_object_get(item, "kind")), "smooth") == 0,
        .numbers = (uint64_t)json_integer_value(json_object_get(item, "seed")),
        .eta = (float)json_number_value(json_object_get(item, "eta")),
        .n = 1,
    };
    for (size_t i = 0; i < json_array_size(shape); i++) {
        l->n *= (size_t)json_integer_value(json_array_get(shape, i));
    }
    l->each = l->n / (size_t)json_integer_value(json_array_get(shape, 0));
    l->count = (size_t)l->calls->shape[0];
    float **arrays[] = {&l->start, &l->slope, &l->fresh, &l->output, &l->noise, &l->sample};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        *arrays[i] = malloc(l->n * sizeof(float));
        assert_non_null(*arrays[i]);
    }
}

static void loop_close(struct loop *l)
{
    float *arrays[] = {l->start, l->slope, l->fresh, l->output, l->noise, l->sample};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        free(arrays[i]);
    }
}

static void output_next(struct loop *l, size_t index)
{
    numbers_draw(&l->numbers, l->fresh, l->n);
    for (size_t i = 0; i < l->n; i++) {
        l->output[i] = l->smooth
                           ? l->start[i] + l->slope[i] * (float)(index < 64 ? index : 64) / 64 +
                                 l->fresh[i] / 32
                           : l->fresh[i];
    }
    numbers_draw(&l->numbers, l->noise, l->n);
}

/* Whole timesteps are the same; those between may differ by diffusers' own rounding of logarithms
 * in fp32. Levels have to agree where diffusers' add_noise knows them. */
static void call_compare(const struct loop *l, const scheduler *s, size_t index)
{
    const float *want = (const float *)l->calls->data + 4 * index;
    const float one = 1;
    const float zero = 0;
    float got[3];
    size_t count;
    float t = scheduler_timesteps(s, &count)[index];
    scheduler_scale_model_input(s, index, &one, &got[0], 1);
    got[0] = 1 / got[0];
    scheduler_add_noise(s, index, &one, &zero, &got[1], 1);
    scheduler_add_noise(s, index, &zero, &one, &got[2], 1);
    int whole = t == floorf(t) && want[0] == floorf(want[0]);
    if (whole ? t != want[0] : !(fabsf(t - want[0]) <= 2e-3f)) {
        fail_msg("%s call %zu: timestep %.9g, expected %.9g", l->name, index, (double)t,
                 (double)want[0]);
    }
    for (int k = 0; k < 3; k++) {
        float expected = want[k + 1];
        if (!isnan(expected) && !(fabsf(got[k] - expected) <= 1e-5f * fabsf(expected) + 1e-7f)) {
            fail_msg("%s call %zu: level %d is %.9g, expected %.9g", l->name, index, k,
                     (double)got[k], (double)expected);
        }
    }
}

/* The whole loop on its own results, against the stored ones. */
static void loop_run(struct loop *l, scheduler *s)
{
    numbers_draw(&l->numbers, l->sample, l->n);
    numbers_draw(&l->numbers, l->start, l->n);
    numbers_draw(&l->numbers, l->slope, l->n);
    for (size_t i = 0; i < l->n; i++) {
        l->sample[i] *= scheduler_init_noise_sigma(s);
    }
    for (size_t i = 0; i < l->count; i++) {
        ATTN_ERROR_ON(err, 256);
        const float *want = (const float *)l->x->data + i * l->n;
        output_next(l, i);
        call_compare(l, s, i);
        scheduler_call call = {.index = i,
                               .model_output = l->output,
                               .sample = l->sample,
                               .noise = scheduler_wants_noise(s, i, l->eta) ? l->noise : NULL,
                               .eta = l->eta,
                               .n = l->n,
                               .each = l->each};
        if (scheduler_step(s, &call, l->sample, &err)) {
            fail_msg("%s call %zu: %s", l->name, i, err.text);
        }
        l->worst = fmax(l->worst, relative_l2(l->sample, want, l->n));
        if (isnan(l->sample[0])) {
            fail_msg("%s call %zu: not a number", l->name, i);
        }
        if (l->x64) {
            const float *wide = (const float *)l->x64->data + i * l->n;
            l->worst64 = fmax(l->worst64, relative_l2(l->sample, wide, l->n));
            l->own = fmax(l->own, relative_l2(want, wide, l->n));
        }
    }
}

static scheduler *case_open(const char *class_name, json_t *config)
{
    ATTN_ERROR_ON(err, 1024);
    scheduler *s = NULL;
    json_t *whole = json_deep_copy(config);
    if (!json_object_get(whole, "_class_name")) {
        json_object_set_new(whole, "_class_name", json_string(class_name));
    }
    char *text = json_dumps(whole, 0);
    config_put(text);
    if (scheduler_open(config_path, class_name, &s, &err)) {
        fail_msg("%s: %s", text, err.text);
    }
    assert_string_equal(scheduler_name(s), class_name);
    assert_string_equal(scheduler_warning(s), "");
    free(text);
    json_decref(whole);
    return s;
}

/* Within the bound of diffusers; where its own rounding to fp32 takes it further than that from
 * what it computes in float64, nearer than that to either. */
static void case_run(const safetensors *golden, const char *class_name, const char *name,
                     json_t *item, struct loop *most)
{
    ATTN_ERROR_ON(err, 256);
    struct loop l;
    size_t count;
    scheduler *s = case_open(class_name, json_object_get(item, "config"));
    int64_t steps = json_integer_value(json_object_get(item, "steps"));
    double sigma = json_number_value(json_object_get(item, "init_noise_sigma"));
    loop_open(&l, golden, name, item);
    if (scheduler_set_timesteps(s, steps, &err)) {
        fail_msg("%s: %s", name, err.text);
    }
    scheduler_timesteps(s, &count);
    assert_int_equal(count, l.count);
    assert_true(fabs((double)scheduler_init_noise_sigma(s) - sigma) <= 1e-6 * sigma);
    loop_run(&l, s);
    if (!(l.worst <= 1e-5) && !(l.x64 && fmin(l.worst, l.worst64) <= l.own)) {
        char *text = json_dumps(json_object_get(item, "config"), 0);
        print_error("%s %s, %lld steps, %s: %.2g, in float64 %.2g, its own %.2g\n", class_name,
                    name, (long long)steps, text, l.worst, l.worst64, l.own);
        free(text);
        most->count++;
    }
    most->worst = fmax(most->worst, l.worst);
    most->worst64 = fmax(most->worst64, l.worst64);
    most->own = fmax(most->own, l.own);
    most->n += l.x64 && l.worst > 1e-5;
    loop_close(&l);
    scheduler_close(s);
}

/* How many loops are too far off. */
static size_t file_run(const char *file)
{
    struct loop most = {0};
    safetensors *golden = golden_open(golden_folder, file);
    json_t *cases = json_loads(safetensors_metadata(golden, "cases"), 0, NULL);
    const char *class_name = safetensors_metadata(golden, "scheduler");
    const char *name;
    json_t *item;
    assert_true(json_object_size(cases) > 0);
    json_object_foreach(cases, name, item)
    {
        case_run(golden, class_name, name, item, &most);
    }
    print_message("%-32s %3zu loops: %.2g from diffusers", class_name, json_object_size(cases),
                  most.worst);
    if (most.worst64 > 0) {
        print_message(" (%zu over 1e-5), %.2g from it in float64, its own %.2g", most.n,
                      most.worst64, most.own);
    }
    print_message("\n");
    json_decref(cases);
    safetensors_close(golden);
    return most.count;
}

/* Every class there is has a file. */
static void test_loops(void **state)
{
    char file[128];
    size_t classes = 0;
    size_t failures = 0;
    (void)state;
    for (; scheduler_class_name(classes); classes++) {
        const char *name = scheduler_class_name(classes);
        snprintf(file, sizeof file, "schedulers_%.*s", (int)(strlen(name) - strlen("Scheduler")),
                 name);
        failures += file_run(file);
    }
    assert_int_equal(classes, 13);
    assert_int_equal(failures, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_loops)};
    if (argc != 2 || config_begin()) {
        return 2;
    }
    golden_folder = argv[1];
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(config_path);
    return failures;
}
