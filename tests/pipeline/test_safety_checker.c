/* The safety checker: its own arithmetic, pictures that are kept back, and what is said where a
 * model wants one; against diffusers 0.26.3. */
#include "image_model.h"

#include "image_processor.h"
#include "safety_checker.h"

/* The checker's own arithmetic on stored pictures, cosines included. */
static void test_checker(void **state)
{
    ATTN_ERROR_ON(err, 1024);
    char folder[PATH];
    char path[PATH];
    struct compute *compute = NULL;
    struct safety_checker *checker = NULL;
    struct image_processor processor;
    (void)state;
    safetensors *golden = golden_open(golden_folder, "safety_checker");
    safetensors *drawn = golden_open(golden_folder, "sag_tiny-sd1_per_prompt");
    const safetensors_tensor *noise = golden_get(golden, "pictures");
    const safetensors_tensor *first = golden_get(drawn, "image");
    const safetensors_tensor *flags = golden_get(golden, "flagged");
    snprintf(folder, sizeof folder, "%s/models/tiny-image/safety_checker", golden_folder);
    snprintf(path, sizeof path, "%s/models/tiny-image/feature_extractor/preprocessor_config.json",
             golden_folder);
    const struct model_source source = {.folder = folder};
    if (compute_cpu_create(registry, 1, &compute, &err) ||
        safety_checker_open(compute, &source, NULL, &checker, &err) ||
        image_processor_read(path, &processor, &err)) {
        fail_msg("%s", err.text);
    }
    const int64_t n = flags->shape[0];
    for (int64_t i = 0; i < n; i++) {
        const safetensors_tensor *from = i < first->shape[0] ? first : noise;
        const int64_t index = i < first->shape[0] ? i : i - first->shape[0];
        const size_t each = (size_t)(from->shape[1] * from->shape[2] * 3);
        const struct picture picture = {(uint8_t *)(uintptr_t)from->data + (size_t)index * each,
                                        (size_t)from->shape[1], (size_t)from->shape[2]};
        float *planes;
        size_t height;
        size_t width;
        uint8_t flagged = 7;
        float cosines[SAFETY_SPECIAL + SAFETY_CONCEPTS];
        if (image_process(&processor, &picture, &planes, &height, &width, &err) ||
            safety_checker_run(checker, 1, planes, &flagged, cosines, &err)) {
            fail_msg("%s", err.text);
        }
        const float *special = (const float *)golden_get(golden, "special")->data + 3 * i;
        const float *concept = (const float *)golden_get(golden, "concept")->data + 17 * i;
        assert_true(relative_l2(cosines, special, 3) < 1e-5);
        assert_true(relative_l2(cosines + 3, concept, 17) < 1e-5);
        assert_int_equal(flagged, ((const uint8_t *)flags->data)[i]);
        free(planes);
    }
    safety_checker_close(checker);
    compute->api->destroy(compute);
    safetensors_close(golden);
    safetensors_close(drawn);
}

static attn_sag *safety_open_with(uint32_t flags)
{
    ATTN_ERROR_ON(err, 1024);
    attn_sag *sag = NULL;
    const attn_sag_open_options o = {
        .size = sizeof o, .model = model, .n_threads = 1, .flags = flags, .log = remember};
    said[0] = 0;
    if (attn_sag_open(registry, &o, &sag, &err)) {
        fail_msg("%s", err.text);
    }
    return sag;
}

/* The four pictures of a stored run: those that diffusers' checker flags come out black, whatever
 * the form of the images; the latents are what they are without it. */
static void test_flagged(void **state)
{
    ATTN_ERROR_ON(err, 1024);
    safetensors *golden = golden_open(golden_folder, "sag_tiny-sd1_per_prompt");
    safetensors *checks = golden_open(golden_folder, "safety_checker");
    const uint8_t *flags = golden_get(checks, "flagged")->data;
    const safetensors_tensor *image = golden_get(golden, "image");
    const safetensors_tensor *final = golden_get(golden, "final_latents");
    const size_t each = image->bytes / 4;
    const uint64_t seed = 11;
    attn_tensor embeds = tensor_of_golden(golden, "prompt_embeds");
    attn_tensor negatives = tensor_of_golden(golden, "negative_prompt_embeds");
    attn_sag_run_options run = {.size = sizeof run,
                                .flags = ATTN_SAG_SET_GUIDANCE | ATTN_SAG_SET_SAG,
                                .prompt_embeds = &embeds,
                                .negative_prompt_embeds = &negatives,
                                .num_images_per_prompt = 2,
                                .height = 40,
                                .width = 40,
                                .num_inference_steps = 2,
                                .guidance_scale = 2,
                                .sag_scale = 0.75,
                                .eta = 0.5,
                                .seeds = &seed,
                                .n_seeds = 1};
    static const char *const types[] = {"pil", "np", "latent"};
    int black = 0;
    (void)state;
    attn_sag *sag = safety_open_with(0);
    assert_string_equal(said, "");
    for (int t = 0; t < 3; t++) {
        attn_sag_result r = {.size = sizeof r};
        run.output_type = types[t];
        if (attn_sag_run(sag, &run, &r, &err)) {
            fail_msg("%s", err.text);
        }
        assert_true(relative_l2(r.latents.data, final->data, final->bytes / sizeof(float)) < 1e-4);
        for (size_t i = 0; i < 4; i++) {
            if (t == 2) {
                assert_int_equal(r.nsfw[i], ATTN_SAG_NOT_CHECKED);
                continue;
            }
            assert_int_equal(r.nsfw[i], flags[i] ? ATTN_SAG_FLAGGED : ATTN_SAG_CLEAN);
            black += flags[i];
            for (size_t k = 0; k < each; k++) {
                const double got = t ? 255 * (double)((float *)r.images.data)[i * each + k]
                                     : (double)((uint8_t *)r.images.data)[i * each + k];
                const double want = flags[i] ? 0 : ((const uint8_t *)image->data)[i * each + k];
                assert_true(fabs(got - want) <= (flags[i] ? 0 : 2));
            }
        }
        attn_sag_result_free(&r);
    }
    assert_true(black > 0 && black < 8);
    attn_sag_close(sag);
    safetensors_close(golden);
    safetensors_close(checks);
}

static void test_wishes(void **state)
{
    const attn_sag_open_options o = {.size = sizeof o, .model = model};
    (void)state;
    /* with a checker nothing is to be said, whatever the index asks for */
    index_write("{\"requires_safety_checker\": true}");
    attn_sag_close(safety_open_with(0));
    assert_string_equal(said, "");
    attn_sag_close(safety_open_with(ATTN_SAG_NO_SAFETY_CHECKER));
    assert_non_null(strstr(said, "requires_safety_checker"));
    index_write("{}"); /* True where it is not said, as in diffusers */
    attn_sag_close(safety_open_with(ATTN_SAG_NO_SAFETY_CHECKER));
    assert_non_null(strstr(said, "requires_safety_checker"));
    index_write("{\"requires_safety_checker\": false}");
    attn_sag_close(safety_open_with(ATTN_SAG_NO_SAFETY_CHECKER));
    assert_string_equal(said, "");
    /* an index that leaves the part out */
    index_write("{\"safety_checker\": [null, null], \"requires_safety_checker\": true}");
    attn_sag_close(safety_open_with(0));
    assert_non_null(strstr(said, "requires_safety_checker"));
    index_write("{\"safety_checker\"");
    open_refused(&o, "model_index.json", "");
    index_write(NULL);
    part_link(NULL, "feature_extractor");
    open_refused(&o, "feature_extractor/preprocessor_config.json", "safety checker");
    part_link("tiny-image", "feature_extractor");
    part_link(NULL, "safety_checker");
    attn_sag_close(safety_open_with(0));
    assert_string_equal(said, "");
    part_link("tiny-image", "safety_checker");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_checker),
                                       cmocka_unit_test(test_flagged),
                                       cmocka_unit_test(test_wishes)};
    arguments_take(argc, argv);
    return cmocka_run_group_tests(tests, setup, teardown);
}
