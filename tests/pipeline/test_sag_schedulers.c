/* Self-attention guidance with every scheduler, through real plugins: against diffusers' pipeline
 * (tools/golden/sag_schedulers.py) where that takes the scheduler, by identities where not.
 *
 * Arguments: the golden folder, the folder of plugins. */
#include "golden.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "attn_sag.h"
#include "scheduler.h"

static const char *golden_folder;
static const char *plugin_folder;
static attn_registry *registry;
static char model_folder[] = "/tmp/attnplug-schedulers-XXXXXX";
static safetensors *golden;
static char said[1024]; /* what the pipeline logged last */

/* The stored small model with a scheduler folder of its own. */
static int model_make(const char *name)
{
    static const char *const parts[] = {"unet", "vae", "text_encoder", "model_index.json"};
    char from[4096];
    char at[4096];
    int failed = !mkdtemp(model_folder);
    for (size_t i = 0; i < sizeof parts / sizeof *parts && !failed; i++) {
        snprintf(from, sizeof from, "%s/models/%s/%s", golden_folder, name, parts[i]);
        snprintf(at, sizeof at, "%s/%s", model_folder, parts[i]);
        failed = symlink(from, at) != 0;
    }
    snprintf(at, sizeof at, "%s/scheduler", model_folder);
    return failed || mkdir(at, 0700) != 0;
}

static int setup(void **state)
{
    (void)state;
    golden = golden_open(golden_folder, "sag_schedulers");
    registry = plugins_open(plugin_folder);
    return registry ? model_make(safetensors_metadata(golden, "model")) : -1;
}

static int entry_remove(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    (void)info;
    (void)kind;
    (void)walk;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    attn_registry_close(registry);
    safetensors_close(golden);
    return nftw(model_folder, entry_remove, 8, FTW_DEPTH | FTW_PHYS);
}

static void log_keep(void *ctx, int32_t level, const char *text)
{
    (void)ctx;
    if (level == 1) {
        snprintf(said, sizeof said, "%s", text);
    }
}

/* The pipeline with the scheduler of this config; `class_name` as the caller of the pipeline names
 * one, NULL for the config's own. */
static attn_sag *pipeline_open(json_t *config, const char *class_name)
{
    ATTN_ERROR_ON(err, 1024);
    char path[4096];
    attn_sag *sag = NULL;
    snprintf(path, sizeof path, "%s/scheduler/scheduler_config.json", model_folder);
    assert_int_equal(json_dump_file(config, path, 0), 0);
    said[0] = 0;
    attn_sag_open_options options = {
        .size = sizeof options, .model = model_folder, .scheduler = class_name, .log = log_keep};
    if (attn_sag_open(registry, &options, &sag, &err)) {
        fail_msg("%s: %s", class_name ? class_name : "the config's class", err.text);
    }
    return sag;
}

static attn_tensor view(const safetensors_tensor *t)
{
    attn_tensor v = {.data = (void *)t->data,
                     .device_type = ATTN_DEVICE_CPU,
                     .code = t->dtype.code,
                     .bits = t->dtype.bits,
                     .lanes = 1,
                     .rank = t->rank};
    int64_t stride = 1;
    for (uint32_t i = t->rank; i-- > 0;) {
        v.shape[i] = t->shape[i];
        v.stride[i] = stride;
        stride *= t->shape[i];
    }
    return v;
}

/* The golden's call, with another guidance if wanted. */
struct request {
    attn_sag_run_options o;
    attn_tensor embeds, negative, masks;
    uint64_t seed;
};

static void request_fill(struct request *r)
{
    json_t *s = json_loads(safetensors_metadata(golden, "settings"), 0, NULL);
    *r = (struct request){
        .o = {.size = sizeof r->o,
              .flags = ATTN_SAG_SET_GUIDANCE | ATTN_SAG_SET_SAG,
              .num_inference_steps =
                  (uint32_t)json_integer_value(json_object_get(s, "num_inference_steps")),
              .guidance_scale = json_number_value(json_object_get(s, "guidance_scale")),
              .sag_scale = json_number_value(json_object_get(s, "sag_scale")),
              .output_type = "latent",
              .n_seeds = 1},
        .embeds = view(golden_get(golden, "prompt_embeds")),
        .negative = view(golden_get(golden, "negative_prompt_embeds")),
        .seed = (uint64_t)json_integer_value(json_object_get(s, "seed"))};
    r->o.seeds = &r->seed;
    r->o.prompt_embeds = &r->embeds;
    r->o.negative_prompt_embeds = &r->negative;
    json_decref(s);
}

static attn_sag_result run(attn_sag *sag, const struct request *r)
{
    ATTN_ERROR_ON(err, 1024);
    attn_sag_result result = {.size = sizeof result};
    if (attn_sag_run(sag, &r->o, &result, &err)) {
        fail_msg("%s: %s", attn_sag_scheduler(sag), err.text);
    }
    return result;
}

static size_t floats_of(const attn_tensor *t)
{
    size_t n = 1;
    for (uint32_t i = 0; i < t->rank; i++) {
        n *= (size_t)t->shape[i];
    }
    return n;
}

static double distance(const attn_sag_result *got, const attn_sag_result *want)
{
    return relative_l2(got->latents.data, want->latents.data, floats_of(&want->latents));
}

/* Cells on the other side of the threshold; each has to lie near it. */
static size_t flips_count(const char *name, const attn_sag_result *result)
{
    const safetensors_tensor *mask = golden_get(golden, "%s.mask", name);
    const float *want = golden_get(golden, "%s.key_mass", name)->data;
    const uint8_t *bytes = mask->data;
    const float *got = result->key_mass.data;
    size_t flips = 0;
    assert_int_equal(floats_of(&result->key_mass), mask->bytes);
    for (size_t i = 0; i < mask->bytes; i++) {
        if ((got[i] > 1.0f) != (bytes[i] != 0)) {
            flips++;
            assert_true(fabsf(want[i] - 1.0f) <= 1e-4f);
        }
    }
    return flips;
}

static void case_run(const char *name, json_t *item)
{
    struct request r;
    json_t *config = json_deep_copy(json_object_get(item, "config"));
    const char *class_name = json_string_value(json_object_get(item, "scheduler"));
    const safetensors_tensor *latents = golden_get(golden, "%s.latents", name);
    size_t n = latents->bytes / sizeof(float);
    json_object_set_new(config, "_class_name", json_string(class_name));
    attn_sag *sag = pipeline_open(config, NULL);
    assert_string_equal(attn_sag_scheduler(sag), class_name);
    request_fill(&r);
    if (json_is_true(json_object_get(item, "differs"))) {
        attn_sag_result result = run(sag, &r);
        print_message("%-22s latents %.2g, where diffusers mixes two noise levels\n", name,
                      relative_l2(result.latents.data, latents->data, n));
        attn_sag_result_free(&result);
    } else {
        r.masks = view(golden_get(golden, "%s.mask", name));
        r.masks.rank = 3;
        r.masks.shape[2] *= r.masks.shape[3];
        r.masks.stride[2] = 1;
        r.o.sag_masks = &r.masks;
        attn_sag_result result = run(sag, &r);
        double d = relative_l2(result.latents.data, latents->data, n);
        size_t flips = flips_count(name, &result);
        print_message("%-22s latents %.2g, cells flipped %zu\n", name, d, flips);
        assert_true(d <= 1e-4);
        attn_sag_result_free(&result);
    }
    attn_sag_close(sag);
    json_decref(config);
}

static void test_golden(void **state)
{
    json_t *cases = json_loads(safetensors_metadata(golden, "cases"), 0, NULL);
    const char *name;
    json_t *item;
    (void)state;
    assert_true(json_object_size(cases) >= 18);
    json_object_foreach(cases, name, item)
    {
        case_run(name, item);
    }
    json_decref(cases);
}

/* One of the classes in the folder of another, as image makers do. */
static attn_sag *class_open(const char *class_name, const char *prediction)
{
    json_t *config =
        json_pack("{s:s, s:s, s:f, s:f, s:b, s:s, s:s, s:i, s:b}", "_class_name", "PNDMScheduler",
                  "beta_schedule", "scaled_linear", "beta_start", 0.00085, "beta_end", 0.012,
                  "set_alpha_to_one", 1, "timestep_spacing", "leading", "prediction_type",
                  prediction, "steps_offset", 1, "clip_sample", 0);
    attn_sag *sag = pipeline_open(config, class_name);
    json_decref(config);
    return sag;
}

/* A scale that is on but as good as nothing leaves the picture as it is without guidance, though
 * the degraded pass runs; one that is more does not. */
static void test_scale_zero(void **state)
{
    (void)state;
    for (size_t c = 0; scheduler_class_name(c); c++) {
        struct request r;
        attn_sag *sag = class_open(scheduler_class_name(c), "epsilon");
        request_fill(&r);
        attn_sag_result strong = run(sag, &r);
        r.o.sag_scale = 0;
        attn_sag_result none = run(sag, &r);
        r.o.sag_scale = 1e-30;
        attn_sag_result faint = run(sag, &r);
        assert_int_equal(none.key_mass.rank, 0);
        assert_true(floats_of(&faint.key_mass) > 0);
        assert_memory_equal(none.latents.data, faint.latents.data,
                            floats_of(&none.latents) * sizeof(float));
        assert_true(distance(&strong, &none) > 1e-4);
        attn_sag_result_free(&strong);
        attn_sag_result_free(&none);
        attn_sag_result_free(&faint);
        attn_sag_close(sag);
    }
}

/* Euler over sigma from sqrt(sigma^2 + 1) is DDIM with eta 0 that ends at alpha 1: the same line in
 * other coordinates. So guidance in those coordinates has to be the same too. */
static void test_euler_is_ddim(void **state)
{
    static const char *const predictions[] = {"epsilon", "v_prediction"};
    (void)state;
    for (int p = 0; p < 2; p++) {
        struct request r;
        attn_sag *ddim = class_open("DDIM", predictions[p]);
        attn_sag *euler = class_open("EulerDiscrete", predictions[p]);
        request_fill(&r);
        attn_sag_result want = run(ddim, &r);
        attn_sag_result got = run(euler, &r);
        double d = distance(&got, &want);
        r.o.sag_scale = 0;
        attn_sag_result plain = run(ddim, &r);
        print_message(
            "Euler with guidance is DDIM with it (%s) to %.2g; guidance moves it by %.2g\n",
            predictions[p], d, distance(&plain, &want));
        assert_true(d <= 1e-4);
        assert_true(distance(&plain, &want) > 1e-3);
        attn_sag_result_free(&want);
        attn_sag_result_free(&got);
        attn_sag_result_free(&plain);
        attn_sag_close(ddim);
        attn_sag_close(euler);
    }
}

/* Of first order both DPM-Solvers are one and the same. */
static void test_first_order(void **state)
{
    static const char *const solvers[] = {"DPMSolverMultistep", "DPMSolverSinglestep"};
    struct request r;
    json_t *config =
        json_pack("{s:s, s:f, s:f, s:s, s:i}", "beta_schedule", "scaled_linear", "beta_start",
                  0.00085, "beta_end", 0.012, "algorithm_type", "dpmsolver++", "solver_order", 1);
    (void)state;
    request_fill(&r);
    attn_sag *first = pipeline_open(config, solvers[0]);
    attn_sag *second = pipeline_open(config, solvers[1]);
    attn_sag_result a = run(first, &r);
    attn_sag_result b = run(second, &r);
    assert_true(distance(&a, &b) <= 1e-5);
    attn_sag_result_free(&a);
    attn_sag_result_free(&b);
    attn_sag_close(first);
    attn_sag_close(second);
    json_decref(config);
}

/* A seed means the same picture each time, drawn noise included, and the state of one run is not in
 * the next one. */
static void test_repeated(void **state)
{
    (void)state;
    for (size_t c = 0; scheduler_class_name(c); c++) {
        struct request r;
        attn_sag *sag = class_open(scheduler_class_name(c), "v_prediction");
        request_fill(&r);
        attn_sag_result first = run(sag, &r);
        r.o.num_inference_steps = 9;
        attn_sag_result other = run(sag, &r);
        request_fill(&r);
        attn_sag_result second = run(sag, &r);
        assert_memory_equal(first.latents.data, second.latents.data,
                            floats_of(&first.latents) * sizeof(float));
        attn_sag_result_free(&first);
        attn_sag_result_free(&other);
        attn_sag_result_free(&second);
        attn_sag_close(sag);
    }
}

/* The folders that diffusers itself writes hold -Infinity, which is not JSON. */
static void test_infinity(void **state)
{
    ATTN_ERROR_ON(err, 1024);
    char path[4096];
    attn_sag *sag = NULL;
    (void)state;
    snprintf(path, sizeof path, "%s/scheduler/scheduler_config.json", model_folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("{\"_class_name\": \"DPMSolverMultistepScheduler\", \"lambda_min_clipped\": -Infinity}",
          file);
    assert_int_equal(fclose(file), 0);
    attn_sag_open_options options = {.size = sizeof options, .model = model_folder};
    assert_int_equal(attn_sag_open(registry, &options, &sag, &err), ATTN_OK);
    attn_sag_close(sag);
}

static void test_warning(void **state)
{
    json_t *config = json_pack("{s:s, s:i}", "_class_name", "DDIMScheduler", "step_offset", 1);
    (void)state;
    attn_sag *sag = pipeline_open(config, NULL);
    assert_non_null(
        strstr(said, "scheduler_config.json: unknown options are ignored: step_offset"));
    attn_sag_close(sag);
    json_decref(config);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),        cmocka_unit_test(test_scale_zero),
        cmocka_unit_test(test_euler_is_ddim), cmocka_unit_test(test_first_order),
        cmocka_unit_test(test_repeated),      cmocka_unit_test(test_infinity),
        cmocka_unit_test(test_warning),
    };
    if (argc != 3) {
        return 2;
    }
    golden_folder = argv[1];
    plugin_folder = argv[2];
    return cmocka_run_group_tests(tests, setup, teardown);
}
