/* The whole pipeline, through real plugins, against diffusers' (tools/golden/sag.py).
 *
 * Arguments: the golden folder, the built-in model's folder, the folder of plugins, and the device
 * (cpu).  Exit 77, which Meson counts as skipped, where the device is not there. */
#include "golden.h"

#include <jansson.h>

#include "attn_sag.h"

enum { MOST_IMAGES = 4, MOST_LAYERS = 4, MOST_WEIGHTS = 16 };

static const char *golden_folder;
static const char *demo_folder;
static const char *plugin_folder;
static const char *device = "cpu";
static attn_registry *registry;

static int registry_setup(void **state)
{
    (void)state;
    registry = plugins_open(plugin_folder);
    return registry ? 0 : -1;
}

static int registry_teardown(void **state)
{
    (void)state;
    attn_registry_close(registry);
    return 0;
}

/* The adapter that a case stores, as processors for its layers. */
struct adapter {
    attn_sag_processor processors[MOST_LAYERS];
    uint32_t n;
    char globs[MOST_LAYERS][128];
    attn_param params[MOST_LAYERS][MOST_WEIGHTS];
    attn_tensor tensors[MOST_LAYERS][MOST_WEIGHTS];
};

/* "lora.<layer>.<linear>_lora.down.weight". */
static void adapter_read(struct adapter *a, const safetensors *golden)
{
    a->n = 0;
    for (size_t i = 0; i < safetensors_count(golden); i++) {
        const safetensors_tensor *t = safetensors_at(golden, i);
        uint32_t k = 0;
        if (strncmp(t->name, "lora.", 5) != 0) {
            continue;
        }
        const char *name = t->name + strlen("lora.");
        const char *end = strstr(name, ".to_");
        assert_non_null(end);
        while (k < a->n && strncmp(a->globs[k], name, (size_t)(end - name)) != 0) {
            k++;
        }
        assert_true(k < MOST_LAYERS);
        attn_layer_spec *spec = &a->processors[k].spec;
        if (k == a->n) {
            a->n++;
            snprintf(a->globs[k], sizeof a->globs[k], "%.*s", (int)(end - name), name);
            a->processors[k] = (attn_sag_processor){
                .glob = a->globs[k],
                .spec = {.size = sizeof *spec, .processor = "lora", .params = a->params[k]}};
        }
        assert_true(spec->n_params < MOST_WEIGHTS);
        a->tensors[k][spec->n_params] = tensor_view(t);
        a->params[k][spec->n_params] = (attn_param){
            .name = end + 1, .kind = ATTN_PARAM_TENSOR, .tensor = &a->tensors[k][spec->n_params]};
        spec->n_params++;
    }
}

static attn_sag *pipeline_open(const char *model, const struct adapter *adapter)
{
    ATTN_ERROR_ON(err, 1024);
    char path[4096];
    attn_sag *sag = NULL;
    if (strcmp(model, "emoji-128") == 0) {
        snprintf(path, sizeof path, "%s", demo_folder);
    } else {
        snprintf(path, sizeof path, "%s/models/%s", golden_folder, model);
    }
    attn_sag_open_options options = {.size = sizeof options, .model = path, .device = device};
    if (adapter) {
        options.processors = adapter->processors;
        options.n_processors = adapter->n;
    }
    if (attn_sag_open(registry, &options, &sag, &err)) {
        fail_msg("%s", err.text);
    }
    return sag;
}

/* One stored run and what came of ours. */
struct comparison {
    safetensors *golden;
    json_t *settings;
    json_t *kept;
    size_t seen;  /* of the kept steps */
    double worst; /* distance of any kept step's latents */
};

/* Progress: compares the latents of the steps that were kept. */
static int32_t step_compare(void *ctx, uint32_t step, uint32_t n_steps, float timestep,
                            const attn_tensor *latents)
{
    struct comparison *c = ctx;
    const safetensors_tensor *kept = golden_get(c->golden, "step_latents");
    size_t n = (size_t)(kept->bytes / sizeof(float)) / (size_t)kept->shape[0];
    (void)n_steps;
    (void)timestep;
    for (size_t i = 0; i < json_array_size(c->kept); i++) {
        if (json_integer_value(json_array_get(c->kept, i)) == (json_int_t)step + 1) {
            double d = relative_l2(latents->data, (const float *)kept->data + i * n, n);
            c->worst = d > c->worst || isnan(d) ? d : c->worst;
            c->seen++;
        }
    }
    return 0;
}

static uint32_t texts_read(json_t *list, const char **texts)
{
    uint32_t n = (uint32_t)json_array_size(list);
    for (uint32_t i = 0; i < n && i < MOST_IMAGES; i++) {
        texts[i] = json_string_value(json_array_get(list, i));
    }
    return n;
}

/* What a stored run was asked for; the arrays live as long as `c` and this. */
struct request {
    attn_sag_run_options o;
    const char *prompts[MOST_IMAGES], *negatives[MOST_IMAGES];
    uint64_t seeds[MOST_IMAGES];
    attn_tensor embeds, negative_embeds, masks, latents;
    attn_param kwargs[1];
};

static void request_read(struct request *r, const struct comparison *c)
{
    json_t *s = c->settings;
    const safetensors_tensor *embeds = safetensors_find(c->golden, "prompt_embeds");
    const safetensors_tensor *negative = safetensors_find(c->golden, "negative_prompt_embeds");
    json_t *seeds = json_object_get(s, "seed");
    *r = (struct request){
        .o = {.size = sizeof r->o,
              .flags = ATTN_SAG_SET_GUIDANCE | ATTN_SAG_SET_SAG,
              .height = (uint32_t)json_integer_value(json_object_get(s, "height")),
              .width = (uint32_t)json_integer_value(json_object_get(s, "width")),
              .num_images_per_prompt =
                  (uint32_t)json_integer_value(json_object_get(s, "num_images_per_prompt")),
              .num_inference_steps =
                  (uint32_t)json_integer_value(json_object_get(s, "num_inference_steps")),
              .guidance_scale = json_number_value(json_object_get(s, "guidance_scale")),
              .sag_scale = json_number_value(json_object_get(s, "sag_scale")),
              .eta = json_number_value(json_object_get(s, "eta")),
              .clip_skip = (uint32_t)json_integer_value(json_object_get(s, "clip_skip"))}};
    r->o.n_prompts = texts_read(json_object_get(s, "prompt"), r->prompts);
    if (r->o.n_prompts) {
        r->o.prompts = r->prompts;
        r->o.n_negative = texts_read(json_object_get(s, "negative_prompt"), r->negatives);
        r->o.negative_prompts = r->negatives;
    } else {
        r->embeds = tensor_view(embeds);
        r->o.prompt_embeds = &r->embeds;
        if (negative) {
            r->negative_embeds = tensor_view(negative);
            r->o.negative_prompt_embeds = &r->negative_embeds;
        }
    }
    json_t *scale = json_object_get(json_object_get(s, "cross_attention_kwargs"), "scale");
    if (scale) {
        r->kwargs[0] =
            (attn_param){.name = "scale", .kind = ATTN_PARAM_FLOAT, .f = json_number_value(scale)};
        r->o.cross_attention_kwargs = r->kwargs;
        r->o.n_cross_attention_kwargs = 1;
    }
    if (json_is_true(json_object_get(s, "latents"))) {
        r->latents = tensor_view(golden_get(c->golden, "latents"));
        r->o.latents = &r->latents;
    }
    r->o.n_seeds = (uint32_t)json_array_size(seeds);
    assert_true(r->o.n_seeds >= 1 && r->o.n_seeds <= MOST_IMAGES);
    for (uint32_t i = 0; i < r->o.n_seeds; i++) {
        r->seeds[i] = (uint64_t)json_integer_value(json_array_get(seeds, i));
    }
    r->o.seeds = r->seeds;
}

/* Cells on the other side of the threshold; each has to lie near it. */
static size_t masks_compare(const struct comparison *c, const attn_sag_result *result)
{
    const safetensors_tensor *mask = safetensors_find(c->golden, "mask");
    size_t flips = 0;
    if (!mask) {
        assert_int_equal(result->key_mass.rank, 0);
        return 0;
    }
    const float *want = golden_get(c->golden, "key_mass")->data;
    const float *got = result->key_mass.data;
    const uint8_t *bytes = mask->data;
    assert_int_equal(result->key_mass.rank, 3);
    for (size_t i = 0; i < mask->bytes; i++) {
        if ((got[i] > 1.0f) != (bytes[i] != 0)) {
            flips++;
            if (!(fabsf(want[i] - 1.0f) <= 1e-4f)) {
                fail_msg("cell %zu: key mass %g, expected %g", i, (double)got[i], (double)want[i]);
            }
        }
    }
    assert_true(relative_l2(got, want, mask->bytes) <= 1e-4);
    return flips;
}

static int pixels_compare(const struct comparison *c, const attn_sag_result *result)
{
    const safetensors_tensor *image = golden_get(c->golden, "image");
    const uint8_t *want = image->data;
    const float *got = result->images.data;
    int largest = 0;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(result->images.shape[i], image->shape[i]);
    }
    for (size_t i = 0; i < image->bytes; i++) {
        int d = abs((int)lrintf(got[i] * 255.0f) - want[i]);
        largest = d > largest ? d : largest;
    }
    return largest;
}

/* The run as it is must be the run with the reference's masks wherever no cell flipped. */
static void plain_run_check(attn_sag *sag, struct request *r, const attn_sag_result *masked)
{
    ATTN_ERROR_ON(err, 1024);
    attn_sag_result plain = {.size = sizeof plain};
    r->o.sag_masks = NULL;
    r->o.callback = NULL;
    assert_int_equal(attn_sag_run(sag, &r->o, &plain, &err), ATTN_OK);
    size_t n = 1;
    for (int i = 0; i < 4; i++) {
        n *= (size_t)plain.latents.shape[i];
    }
    assert_memory_equal(plain.latents.data, masked->latents.data, n * sizeof(float));
    attn_sag_result_free(&plain);
}

static void case_run(const char *name)
{
    ATTN_ERROR_ON(err, 1024);
    struct comparison c = {0};
    struct request r;
    struct adapter adapter;
    attn_sag_result result = {.size = sizeof result};
    char file[128];
    snprintf(file, sizeof file, "sag_%s", name);
    c.golden = golden_open(golden_folder, file);
    c.settings = json_loads(safetensors_metadata(c.golden, "settings"), 0, NULL);
    c.kept = json_loads(safetensors_metadata(c.golden, "kept_steps"), 0, NULL);
    const char *model = safetensors_metadata(c.golden, "model");
    assert_true(c.settings && c.kept && model);
    request_read(&r, &c);
    const safetensors_tensor *mask = safetensors_find(c.golden, "mask");
    if (mask) {
        r.masks = tensor_view(mask);
        r.masks.rank = 3;
        r.masks.shape[2] *= mask->shape[3];
        r.masks.stride[2] = 1;
        r.o.sag_masks = &r.masks;
    }
    r.o.callback = step_compare;
    r.o.callback_ctx = &c;
    adapter_read(&adapter, c.golden);
    attn_sag *sag = pipeline_open(model, &adapter);
    if (attn_sag_run(sag, &r.o, &result, &err)) {
        fail_msg("%s: %s", name, err.text);
    }
    const safetensors_tensor *latents = golden_get(c.golden, "final_latents");
    double last = relative_l2(result.latents.data, latents->data, latents->bytes / sizeof(float));
    size_t flips = masks_compare(&c, &result);
    int pixels = pixels_compare(&c, &result);
    print_message("%-22s latents %.2g (worst step %.2g), pixels %d/255, cells flipped %zu\n", name,
                  last, c.worst, pixels, flips);
    assert_int_equal(c.seen, json_array_size(c.kept));
    assert_true(last <= 1e-4 && c.worst <= 1e-4);
    assert_true(pixels <= 2);
    if (mask && !flips && strcmp(model, "emoji-128") != 0) {
        plain_run_check(sag, &r, &result);
    }
    attn_sag_result_free(&result);
    attn_sag_close(sag);
    json_decref(c.settings);
    json_decref(c.kept);
    safetensors_close(c.golden);
}

static void test_small_models(void **state)
{
    static const char *const cases[] = {
        "sag-fast_upstream",   "sag-fast_cfg",        "tiny-sd1_cfg",      "tiny-sd1_no_sag",
        "tiny-sd1_no_cfg_eta", "tiny-sd2_v",          "tiny-sd2_v_no_cfg", "tiny-odd_trailing",
        "tiny-shift_linspace", "tiny-sd1_per_prompt", "tiny-sd1_scale",
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        case_run(cases[i]);
    }
}

static void test_demo_heart(void **state)
{
    (void)state;
    case_run("emoji-128_heart");
}

static void test_demo_batch(void **state)
{
    (void)state;
    case_run("emoji-128_batch");
}

/* Embeddings from the text are those that diffusers made of it. */
static void test_encode(void **state)
{
    ATTN_ERROR_ON(err, 512);
    safetensors *golden = golden_open(golden_folder, "sag_emoji-128_heart");
    const char *const texts[] = {"red heart", ""};
    const char *const names[] = {"prompt_embeds", "negative_prompt_embeds"};
    char warning[256];
    attn_sag *sag = pipeline_open("emoji-128", NULL);
    (void)state;
    for (int i = 0; i < 2; i++) {
        attn_tensor embeds;
        const safetensors_tensor *want = golden_get(golden, "%s", names[i]);
        assert_int_equal(
            attn_sag_encode(sag, &texts[i], 1, 0, &embeds, warning, sizeof warning, &err), ATTN_OK);
        assert_string_equal(warning, "");
        assert_int_equal(embeds.shape[1], 77);
        assert_true(relative_l2(embeds.data, want->data, want->bytes / sizeof(float)) <= 1e-5);
        attn_sag_embeds_free(&embeds);
    }
    attn_sag_close(sag);
    safetensors_close(golden);
}

/* A build without the device's part, or a machine without the device: says which. */
static int device_missing(void)
{
    ATTN_ERROR_ON(err, 512);
    void *state = NULL;
    attn_sag *sag = NULL;
    attn_sag_open_options options = {
        .size = sizeof options, .model = demo_folder, .device = device};
    if (registry_setup(&state) != 0) {
        return 1;
    }
    attn_status status = attn_sag_open(registry, &options, &sag, &err);
    attn_sag_close(sag);
    registry_teardown(&state);
    if (status == ATTN_UNSUPPORTED) {
        print_message("SKIP pipeline on %s: %s\n", device, err.text);
    }
    return status == ATTN_UNSUPPORTED;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_models),
        cmocka_unit_test(test_encode),
        cmocka_unit_test(test_demo_batch),
        cmocka_unit_test(test_demo_heart),
    };
    if (argc != 4 && argc != 5) {
        return 2;
    }
    golden_folder = argv[1];
    demo_folder = argv[2];
    plugin_folder = argv[3];
    device = argc == 5 ? argv[4] : device;
    if (strcmp(device, "cpu") != 0 && device_missing()) {
        return 77;
    }
    return cmocka_run_group_tests(tests, registry_setup, registry_teardown);
}
