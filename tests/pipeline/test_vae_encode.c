/* attn_sag_vae_encode against diffusers' AutoencoderKL.encode (tools/golden/vae.py).
 *
 * Arguments: the golden folder, the built-in model's folder, the folder of plugins. */
#include "golden.h"

#include <jansson.h>

#include "attn_sag.h"

static const char *golden_folder;
static const char *demo_folder;
static const char *plugin_folder;
static attn_registry *registry;
static attn_sag *sag;

static int group_begin(void **state)
{
    ATTN_ERROR_ON(err, 512);
    (void)state;
    const attn_sag_open_options open = {.size = sizeof open, .model = demo_folder};
    registry = plugins_open(plugin_folder);
    if (!registry || attn_sag_open(registry, &open, &sag, &err)) {
        print_error("%s\n", err.text);
        return -1;
    }
    return 0;
}

static int group_end(void **state)
{
    (void)state;
    attn_sag_close(sag);
    attn_registry_close(registry);
    return 0;
}

/* The golden's picture, -1 to 1 and channels first, as the call takes pictures. */
static attn_tensor image_of(const safetensors *golden)
{
    const safetensors_tensor *t = golden_get(golden, "emoji-128.picture");
    const int64_t cells = t->shape[2] * t->shape[3];
    const float *in = t->data;
    float *out = malloc((size_t)(3 * cells) * sizeof *out);
    assert_non_null(out);
    assert_int_equal(t->shape[0], 1);
    for (int64_t i = 0; i < cells; i++) {
        for (int64_t c = 0; c < 3; c++) {
            out[3 * i + c] = in[c * cells + i] / 2 + 0.5f;
        }
    }
    return (attn_tensor){.data = out,
                         .shape = {1, t->shape[2], t->shape[3], 3},
                         .stride = {3 * cells, 3 * t->shape[3], 3, 1},
                         .device_type = ATTN_DEVICE_CPU,
                         .code = ATTN_CODE_FLOAT,
                         .bits = 32,
                         .lanes = 1,
                         .rank = 4};
}

static float scaling_factor(void)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/vae/config.json", demo_folder);
    json_t *config = json_load_file(path, 0, NULL);
    const double factor = json_number_value(json_object_get(config, "scaling_factor"));
    json_decref(config);
    assert_true(factor > 0);
    return (float)factor;
}

static void compare(const safetensors *golden, const attn_tensor *image, const char *what,
                    const uint64_t *seed)
{
    ATTN_ERROR_ON(err, 512);
    const safetensors_tensor *expected = golden_get(golden, "emoji-128.%s", what);
    const size_t n = (size_t)expected->bytes / sizeof(float);
    const float factor = scaling_factor();
    float *scaled = malloc(n * sizeof *scaled);
    attn_tensor latents;
    assert_non_null(scaled);
    for (size_t i = 0; i < n; i++) {
        scaled[i] = ((const float *)expected->data)[i] * factor;
    }
    if (attn_sag_vae_encode(sag, image, seed, &latents, &err)) {
        fail_msg("%s", err.text);
    }
    assert_memory_equal(latents.shape, expected->shape, 4 * sizeof *latents.shape);
    const double d = relative_l2(latents.data, scaled, n);
    print_message("%-6s relative L2 %.1e\n", what, d);
    assert_true(d <= 1e-5);
    free(scaled);
    attn_sag_embeds_free(&latents);
}

static void matches_diffusers(void **state)
{
    safetensors *golden = golden_open(golden_folder, "vae_encode");
    attn_tensor image = image_of(golden);
    const uint64_t seed = 5;
    (void)state;
    compare(golden, &image, "mode", NULL);
    compare(golden, &image, "sample", &seed);
    compare(golden, &image, "mode", NULL); /* nothing of a call stays for the next */
    free(image.data);
    safetensors_close(golden);
}

static void refuses_other_things(void **state)
{
    ATTN_ERROR_ON(err, 512);
    safetensors *golden = golden_open(golden_folder, "vae_encode");
    const attn_tensor image = image_of(golden);
    attn_tensor latents;
    (void)state;
    for (int i = 0; i < 5; i++) {
        attn_tensor wrong = image;
        switch (i) {
        case 0:
            wrong.shape[3] = 4;
            break;
        case 1:
            wrong.rank = 3;
            break;
        case 2:
            wrong.bits = 16;
            break;
        case 3:
            wrong.data = NULL;
            break;
        default:
            wrong.shape[1] = 1;
            break;
        }
        assert_int_equal(attn_sag_vae_encode(sag, &wrong, NULL, &latents, &err), ATTN_INVALID);
        assert_non_null(strstr(err.text, "images: "));
        assert_null(latents.data);
    }
    free(image.data);
    safetensors_close(golden);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_diffusers),
        cmocka_unit_test(refuses_other_things),
    };
    if (argc != 4) {
        return 2;
    }
    golden_folder = argv[1];
    demo_folder = argv[2];
    plugin_folder = argv[3];
    return cmocka_run_group_tests(tests, group_begin, group_end);
}
