/* Pictures as prompts: whole pipelines on tiny-sd1 with the parts of tiny-image, against diffusers
 * 0.26.3. */
#include "image_model.h"

#include <jansson.h>

enum { MOST = 4 };

struct sag_case {
    safetensors *golden;
    attn_sag *sag;
    char adapter_paths[MOST][PATH], picture_paths[MOST][PATH];
    attn_sag_ip_adapter adapters[MOST];
    attn_sag_image_prompt pictures[MOST];
    uint32_t n_adapters, n_pictures;
    attn_tensor latents, embeds, negatives, masks;
    attn_sag_run_options run;
};

static void adapters_read(struct sag_case *c, const json_t *json)
{
    for (size_t i = 0; i < json_array_size(json_object_get(json, "adapters")); i++) {
        const json_t *files = json_array_get(json_object_get(json, "images"), i);
        snprintf(c->adapter_paths[i], PATH, "%s/models/tiny-image/%s.safetensors", golden_folder,
                 json_string_value(json_array_get(json_object_get(json, "adapters"), i)));
        c->adapters[i] = (attn_sag_ip_adapter){
            c->adapter_paths[i],
            json_number_value(json_array_get(json_object_get(json, "scales"), i))};
        for (size_t k = 0; k < json_array_size(files); k++) {
            snprintf(c->picture_paths[c->n_pictures], PATH, "%s/pictures/%s", golden_folder,
                     json_string_value(json_array_get(files, k)));
            c->pictures[c->n_pictures] = (attn_sag_image_prompt){
                .adapter = (uint32_t)i, .file = c->picture_paths[c->n_pictures]};
            c->n_pictures++;
        }
        c->n_adapters++;
    }
}

static void case_open(struct sag_case *c, const char *name, const attn_sag_processor *processor)
{
    ATTN_ERROR_ON(err, 1024);
    char file[128];
    *c = (struct sag_case){0};
    snprintf(file, sizeof file, "image_prompt_%s", name);
    c->golden = golden_open(golden_folder, file);
    json_t *json = json_loads(safetensors_metadata(c->golden, "case"), 0, NULL);
    assert_non_null(json);
    adapters_read(c, json);
    const json_t *guidance = json_object_get(json, "guidance_scale");
    const attn_sag_open_options open = {.size = sizeof open,
                                        .model = model,
                                        .n_threads = 1,
                                        .flags = ATTN_SAG_NO_SAFETY_CHECKER,
                                        .processors = processor,
                                        .n_processors = processor != NULL,
                                        .ip_adapters = c->adapters,
                                        .n_ip_adapters = c->n_adapters};
    if (attn_sag_open(registry, &open, &c->sag, &err)) {
        fail_msg("%s: %s", name, err.text);
    }
    c->latents = tensor_of_golden(c->golden, "latents");
    c->embeds = tensor_of_golden(c->golden, "prompt_embeds");
    c->negatives = tensor_of_golden(c->golden, "negative_prompt_embeds");
    c->run =
        (attn_sag_run_options){.size = sizeof c->run,
                               .flags = ATTN_SAG_SET_GUIDANCE | ATTN_SAG_SET_SAG,
                               .prompt_embeds = &c->embeds,
                               .latents = &c->latents,
                               .num_inference_steps = 4,
                               .guidance_scale = guidance ? json_number_value(guidance) : 3,
                               .sag_scale = json_number_value(json_object_get(json, "sag_scale")),
                               .ip_adapter_image = c->pictures,
                               .n_ip_adapter_image = c->n_pictures,
                               .output_type = "pil"};
    if (c->run.guidance_scale > 1) {
        c->run.negative_prompt_embeds = &c->negatives;
    }
    if (c->run.sag_scale > 0) {
        const safetensors_tensor *mask = golden_get(c->golden, "mask");
        c->masks = tensor_view(mask);
        c->run.sag_masks = &c->masks;
    }
    json_decref(json);
}

static void case_close(struct sag_case *c)
{
    attn_sag_close(c->sag);
    safetensors_close(c->golden);
}

static attn_sag_result case_run(struct sag_case *c)
{
    ATTN_ERROR_ON(err, 1024);
    attn_sag_result r = {.size = sizeof r};
    if (attn_sag_run(c->sag, &c->run, &r, &err)) {
        fail_msg("%s", err.text);
    }
    return r;
}

static double latents_error(const struct sag_case *c, const attn_sag_result *r)
{
    const safetensors_tensor *t = golden_get(c->golden, "final_latents");
    return relative_l2(r->latents.data, t->data, t->bytes / sizeof(float));
}

static void case_compare(struct sag_case *c, const char *name)
{
    attn_sag_result r = case_run(c);
    const safetensors_tensor *image = golden_get(c->golden, "image");
    int most = 0;
    for (size_t i = 0; i < image->bytes; i++) {
        const int d = ((const uint8_t *)r.images.data)[i] - ((const uint8_t *)image->data)[i];
        most = abs(d) > most ? abs(d) : most;
    }
    print_message("image prompt %-10s latents %.2e, picture %d of 255\n", name,
                  latents_error(c, &r), most);
    assert_true(latents_error(c, &r) <= 1e-4);
    assert_true(most <= 2);
    assert_int_equal(r.nsfw[0], ATTN_SAG_NOT_CHECKED);
    attn_sag_result_free(&r);
}

static int have_formats(const struct sag_case *c)
{
    int all = 1;
    for (uint32_t i = 0; i < c->n_pictures; i++) {
        all &= !(strstr(c->picture_paths[i], ".jpg") && !ATTNPLUG_JPEG) &&
               !(strstr(c->picture_paths[i], ".webp") && !ATTNPLUG_WEBP);
    }
    return all;
}

static void test_pictures(void **state)
{
    static const char *const names[] = {"plain", "several", "sag_full", "sag_plus"};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct sag_case c;
        case_open(&c, names[i], NULL);
        if (have_formats(&c)) {
            case_compare(&c, names[i]);
            case_compare(&c, names[i]); /* the same pipeline again */
        }
        case_close(&c);
    }
}

/* Which processor the layers have, and through which names it may be asked for. */
static void test_processors(void **state)
{
    static const char *const names[] = {"IPAdapterAttnProcessor", "IPAdapterAttnProcessor2_0",
                                        "SlicedAttnProcessor", "lora", "AttnProcessor"};
    (void)state;
    for (size_t i = 0; i < 5; i++) {
        const attn_sag_processor p = {.glob = "*attn2",
                                      .spec = {.size = sizeof p.spec, .processor = names[i]}};
        struct sag_case c;
        uint32_t seen = 0;
        case_open(&c, "plain", &p);
        case_compare(&c, names[i]);
        const char *layer;
        const char *processor;
        const char *op;
        for (uint32_t k = 0; !attn_sag_layer(c.sag, k, &layer, &processor, &op); k++) {
            const int cross = strstr(layer, "attn2") != NULL;
            seen += (uint32_t)cross;
            assert_string_equal(processor,
                                cross ? "org.attnplug.ip_adapter" : "org.attnplug.standard");
            if (cross && i == 2) {
                assert_string_equal(op, "org.attnplug.sliced");
            }
        }
        assert_int_equal(seen, 11);
        case_close(&c);
    }
}

/* A scale in the call stands in for the one at opening; 0 is the picture without image prompt. */
static void test_scales(void **state)
{
    struct sag_case c;
    attn_param none = {.name = "ip_adapter_scale.0", .kind = ATTN_PARAM_FLOAT, .f = 0};
    (void)state;
    case_open(&c, "plain", NULL);
    c.run.cross_attention_kwargs = &none;
    c.run.n_cross_attention_kwargs = 1;
    attn_sag_result r = case_run(&c);
    assert_true(latents_error(&c, &r) > 1e-2);
    attn_sag *own = c.sag;
    const attn_sag_open_options open = {
        .size = sizeof open, .model = model, .n_threads = 1, .flags = ATTN_SAG_NO_SAFETY_CHECKER};
    assert_int_equal(attn_sag_open(registry, &open, &c.sag, NULL), ATTN_OK);
    c.run.n_ip_adapter_image = 0;
    attn_sag_result plain = case_run(&c);
    assert_true(relative_l2(r.latents.data, plain.latents.data, 4 * 10 * 12) < 1e-6);
    attn_sag_result_free(&plain);
    attn_sag_result_free(&r);
    attn_sag_close(c.sag);
    c.sag = own;
    none.f = 0.7;
    c.run.n_ip_adapter_image = c.n_pictures;
    r = case_run(&c);
    assert_true(latents_error(&c, &r) <= 1e-4);
    attn_sag_result_free(&r);
    case_close(&c);
}

/* A scale that a processor is given stands in for that adapter's alone. */
static void test_scale_of_one(void **state)
{
    const attn_param params[] = {{.name = "scale.0", .kind = ATTN_PARAM_FLOAT, .f = 0.6},
                                 {.name = "scale.1", .kind = ATTN_PARAM_FLOAT, .f = 0.9}};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        const attn_sag_processor p = {.spec = {.size = sizeof p.spec,
                                               .processor = "ip_adapter",
                                               .params = &params[i],
                                               .n_params = 1},
                                      .glob = "*attn2"};
        struct sag_case c;
        case_open(&c, "several", &p);
        case_compare(&c, params[i].name);
        case_close(&c);
    }
}

/* Two pictures of a prompt: each is what it is alone. */
static void test_batch(void **state)
{
    struct sag_case c;
    (void)state;
    case_open(&c, "sag_full", NULL);
    attn_sag_result one = case_run(&c);
    float *twice = malloc(2 * 480 * sizeof *twice);
    assert_non_null(twice);
    memcpy(twice, c.latents.data, 480 * sizeof *twice);
    memcpy(twice + 480, c.latents.data, 480 * sizeof *twice);
    c.latents.data = twice;
    c.latents.shape[0] = 2;
    c.run.num_images_per_prompt = 2;
    uint8_t masks[4 * 2 * 64];
    const int64_t cells = c.masks.shape[2];
    assert_true(cells <= 64);
    for (int64_t i = 0; i < 8; i++) {
        memcpy(masks + i * cells, (const uint8_t *)c.masks.data + i / 2 * cells, (size_t)cells);
    }
    c.masks.data = masks;
    c.masks.shape[1] = 2;
    c.masks.stride[0] = 2 * cells;
    attn_sag_result two = case_run(&c);
    for (int i = 0; i < 2; i++) {
        assert_true(relative_l2((const float *)two.latents.data + 480 * i, one.latents.data, 480) <
                    1e-5);
    }
    attn_sag_result_free(&one);
    attn_sag_result_free(&two);
    free(twice);
    case_close(&c);
}

static void run_refused(struct sag_case *c, const char *first, const char *second)
{
    ATTN_ERROR_ON(err, 1024);
    attn_sag_result r = {.size = sizeof r};
    attn_status status = attn_sag_run(c->sag, &c->run, &r, &err);
    if (!status || !strstr(err.text, first) || !strstr(err.text, second)) {
        fail_msg("status %d, \"%s\"; expected \"%s\", \"%s\"", status, err.text, first, second);
    }
    assert_null(r.owner);
}

static void test_bad_calls(void **state)
{
    struct sag_case c;
    uint8_t bytes[2 * 2 * 3] = {0};
    attn_tensor pixels = {.data = bytes,
                          .shape = {2, 2, 3},
                          .stride = {6, 3, 1},
                          .bits = 8,
                          .code = ATTN_CODE_UINT,
                          .lanes = 1,
                          .rank = 3,
                          .device_type = ATTN_DEVICE_CPU};
    (void)state;
    case_open(&c, "plain", NULL);
    c.run.n_ip_adapter_image = 0;
    run_refused(&c, "ip_adapter_image", "IP-Adapter 0");
    c.run.n_ip_adapter_image = 1;
    c.pictures[0].adapter = 1;
    run_refused(&c, "ip_adapter_image 0", "IP-Adapter 1");
    c.pictures[0].adapter = 0;
    c.pictures[0].pixels = &pixels;
    run_refused(&c, "ip_adapter_image 0", "either a file or pixels");
    c.pictures[0].file = NULL;
    pixels.shape[2] = 4;
    run_refused(&c, "ip_adapter_image 0", "[height, width, 3]");
    pixels.shape[2] = 3;
    attn_sag_result r = case_run(&c); /* a tiny black picture */
    assert_true(latents_error(&c, &r) > 1e-4);
    attn_sag_result_free(&r);
    c.pictures[0].pixels = NULL;
    c.pictures[0].file = c.adapter_paths[0];
    run_refused(&c, c.adapter_paths[0], "PNG, JPEG or WebP");
    c.pictures[0].file = "/no/such.png";
    run_refused(&c, "/no/such.png", "expected a picture");
    float embeds[2 * 24] = {0};
    attn_tensor given = {.data = embeds,
                         .shape = {2, 1, 24},
                         .stride = {24, 24, 1},
                         .bits = 32,
                         .code = ATTN_CODE_FLOAT,
                         .lanes = 1,
                         .rank = 3,
                         .device_type = ATTN_DEVICE_CPU};
    c.run.ip_adapter_image_embeds = &given;
    c.run.n_ip_adapter_image_embeds = 1;
    run_refused(&c, "ip_adapter_image_embeds", "both given");
    c.run.n_ip_adapter_image = 0;
    c.run.n_ip_adapter_image_embeds = 2;
    run_refused(&c, "ip_adapter_image_embeds: 2", "1, one for each");
    c.run.n_ip_adapter_image_embeds = 1;
    given.shape[2] = 23;
    run_refused(&c, "ip_adapter_image_embeds 0", "24");
    given.shape[2] = 24;
    r = case_run(&c);
    attn_sag_result_free(&r);
    case_close(&c);
    case_open(&c, "sag_full", NULL); /* what was refused left nothing behind */
    case_compare(&c, "sag_full");
    case_close(&c);
}

/* The image encoder's own answers in place of pictures: the same latents. */
static void test_embeds(void **state)
{
    struct sag_case c;
    (void)state;
    safetensors *inputs = golden_open(golden_folder, "image_encoder");
    const safetensors_tensor *states = golden_get(inputs, "image_encoder.penultimate");
    case_open(&c, "sag_full", NULL);
    attn_sag_result with = case_run(&c);
    /* [2, 1, tokens, width]: of two other pictures, negative and positive */
    attn_tensor given = tensor_view(states);
    given.rank = 4;
    given.shape[3] = states->shape[2];
    given.shape[2] = states->shape[1];
    given.shape[1] = 1;
    given.stride[3] = 1;
    given.stride[2] = given.shape[3];
    given.stride[1] = given.stride[0];
    c.run.ip_adapter_image_embeds = &given;
    c.run.n_ip_adapter_image_embeds = 1;
    c.run.n_ip_adapter_image = 0;
    attn_sag_result r = case_run(&c);
    assert_true(relative_l2(r.latents.data, with.latents.data, 480) > 1e-3);
    given.shape[0] = 1; /* a negative half is needed with guidance */
    run_refused(&c, "ip_adapter_image_embeds 0", "[2, pictures");
    attn_sag_result_free(&r);
    attn_sag_result_free(&with);
    case_close(&c);
    safetensors_close(inputs);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pictures),    cmocka_unit_test(test_processors),
        cmocka_unit_test(test_scales),      cmocka_unit_test(test_batch),
        cmocka_unit_test(test_bad_calls),   cmocka_unit_test(test_embeds),
        cmocka_unit_test(test_scale_of_one)};
    arguments_take(argc, argv);
    return cmocka_run_group_tests(tests, setup, teardown);
}
