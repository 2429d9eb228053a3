/* CLIP's image encoders against transformers 4.37.2, and the safety checker against diffusers
 * 0.26.3. */
#include "image_encoder.h"
#include "ip_adapter.h"
#include "machine.h"
#include "safety_checker.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODELS GOLDEN "/models/tiny-image/"

static safetensors *file_open(const char *name)
{
    ATTN_ERROR_ON(err, 512);
    char path[512];
    safetensors *file = NULL;
    (void)snprintf(path, sizeof path, GOLDEN "/%s.safetensors", name);
    if (safetensors_open(path, &file, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    return file;
}

static const safetensors_tensor *find(const safetensors *file, const char *model, const char *name)
{
    char whole[128];
    (void)snprintf(whole, sizeof whole, "%s.%s", model, name);
    return golden_find(file, whole);
}

static void compare(const char *what, const attn_tensor *got, const safetensors_tensor *expected)
{
    const double error = relative_l2(got->data, expected->data, count_of(got));
    print_message("%-36s %.2e\n", what, error);
    assert_true(error <= 1e-5);
}

/* All four ways to ask: what is not wanted does not change the rest. */
static void encoder_check(struct machine *m, const safetensors *golden, const char *name,
                          const char *op)
{
    ATTN_ERROR_ON(err, 512);
    char folder[512];
    struct image_encoder *e;
    const safetensors_tensor *pixels = find(golden, name, "pixels");
    const safetensors_tensor *embeds = find(golden, name, "image_embeds");
    const safetensors_tensor *states = find(golden, name, "penultimate");
    (void)snprintf(folder, sizeof folder, MODELS "%s", name);
    if (image_encoder_open(m->compute, folder, op, &e, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(image_encoder_size(e), pixels->shape[2]);
    assert_int_equal(image_encoder_embeds(e), embeds->shape[1]);
    assert_int_equal(image_encoder_tokens(e), states->shape[1]);
    assert_int_equal(image_encoder_width(e), states->shape[2]);
    for (int wanted = 1; wanted < 4; wanted++) {
        attn_tensor got = poisoned(2, embeds->shape);
        attn_tensor hidden = poisoned(3, states->shape);
        if (image_encoder_run(e, pixels->shape[0], pixels->data, wanted & 1 ? got.data : NULL,
                              wanted & 2 ? hidden.data : NULL, &err) != ATTN_OK) {
            fail_msg("%s", err.text);
        }
        if (wanted & 1) {
            compare(name, &got, embeds);
        }
        if (wanted & 2) {
            compare(name, &hidden, states);
        }
        free(got.data);
        free(hidden.data);
    }
    assert_int_equal(image_encoder_run(e, 0, pixels->data, NULL, NULL, &err), ATTN_INVALID);
    image_encoder_close(e);
}

static void encoders(void **state)
{
    safetensors *golden = file_open("image_encoder");
    encoder_check(*state, golden, "image_encoder", NULL);
    encoder_check(*state, golden, "image_encoder", "math");
    encoder_check(*state, golden, "image_encoder_gelu", NULL);
    safetensors_close(golden);
}

/* The three kinds of projection. */
static void projections(void **state)
{
    static const char *const kinds[] = {"ip-adapter", "ip-adapter-plus", "ip-adapter-full"};
    struct machine *m = *state;
    safetensors *inputs = file_open("image_encoder");
    safetensors *golden = file_open("image_projection");
    for (size_t i = 0; i < 3; i++) {
        ATTN_ERROR_ON(err, 512);
        char path[512];
        struct ip_adapter *a;
        (void)snprintf(path, sizeof path, MODELS "%s.safetensors", kinds[i]);
        if (ip_adapter_open(m->compute, path, NULL, &a, &err) != ATTN_OK) {
            fail_msg("%s", err.text);
        }
        const int states = ip_adapter_wants_states(a);
        assert_int_equal(states, i > 0);
        const safetensors_tensor *in =
            find(inputs, "image_encoder", states ? "penultimate" : "image_embeds");
        const safetensors_tensor *want = golden_find(golden, kinds[i]);
        const int64_t seen = states ? in->shape[1] : 1;
        attn_tensor got = poisoned(3, want->shape);
        assert_int_equal(ip_adapter_tokens(a, seen), want->shape[1]);
        assert_int_equal(ip_adapter_cross(a), want->shape[2]);
        assert_int_equal(ip_adapter_width(a), in->shape[in->rank - 1]);
        if (ip_adapter_project(a, in->shape[0], seen, in->data, got.data, &err) != ATTN_OK) {
            fail_msg("%s", err.text);
        }
        compare(kinds[i], &got, want);
        assert_int_equal(ip_adapter_family(a, 20, &err), ATTN_OK);
        assert_int_equal(ip_adapter_family(a, 768, &err), ATTN_UNSUPPORTED);
        assert_non_null(strstr(err.text, "Stable Diffusion 1.x"));
        free(got.data);
        ip_adapter_close(a);
    }
    safetensors_close(inputs);
    safetensors_close(golden);
}

/* -- a folder that is wrong in one thing ------------------------------------------------------- */

static char scratch[] = "/tmp/attnplug-vision-XXXXXX";

static void text_write(const char *name, const char *text, size_t n)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", scratch, name);
    (void)unlink(path); /* it may be a link */
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static char *text_read(const char *path, size_t *n)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    (void)fseek(file, 0, SEEK_END);
    *n = (size_t)ftell(file);
    rewind(file);
    char *text = calloc(*n + 1, 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, *n, file), *n);
    (void)fclose(file);
    return text;
}

static attn_status part_open(struct machine *m, const char *part, attn_error *err)
{
    struct image_encoder *e = NULL;
    struct safety_checker *s = NULL;
    const struct model_source source = {.folder = scratch};
    attn_status status = strcmp(part, "safety_checker") == 0
                             ? safety_checker_open(m->compute, &source, NULL, &s, err)
                             : image_encoder_open(m->compute, scratch, NULL, &e, err);
    image_encoder_close(e);
    safety_checker_close(s);
    return status;
}

static void refused(struct machine *m, const char *part, const char *named)
{
    ATTN_ERROR_ON(err, 512);
    attn_status status = part_open(m, part, &err);
    if (status == ATTN_OK || !strstr(err.text, named) || strchr(err.text, '\n')) {
        fail_msg("%s: status %d, \"%s\", expected \"%s\"", part, status, err.text, named);
    }
}

static void broken_parts(void **state)
{
    static const struct {
        const char *part, *from, *to, *named;
    } cases[] = {
        {"image_encoder", "\"hidden_act\": \"quick_gelu\"", "\"hidden_act\": \"relu\"",
         "hidden_act"},
        {"image_encoder", "\"num_attention_heads\": 4", "\"num_attention_heads\": 5",
         "num_attention_heads"},
        {"image_encoder", "\"num_channels\": 3", "\"num_channels\": 4", "num_channels"},
        {"image_encoder", "\"patch_size\": 10", "\"patch_size\": 31", "patch_size"},
        {"image_encoder", "\"patch_size\": 10", "\"patch_size\": 0", "patch_size"},
        {"image_encoder", "\"patch_size\": 10", "\"patch_size\": 6", "patch_embedding.weight"},
        {"image_encoder", "\"image_size\": 30", "\"image_size\": 40", "position_embedding"},
        {"image_encoder", "\"image_size\": 30", "\"image_size\": 99999999", "image_size"},
        {"image_encoder", "\"projection_dim\": 24", "\"projection_dim\": 25", "visual_projection"},
        {"image_encoder", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4", "layers.3"},
        {"image_encoder", "clip_vision_model", "siglip", "model_type"},
        {"safety_checker", "\"vision_config\"", "\"vision\"", "vision_config"},
        {"safety_checker", "\"vision_config\": {", "\"vision_config\": 3, \"v\": {",
         "vision_config"},
        {"safety_checker", "\"vision_config\": {",
         "\"vision_config_dict\": {\"hidden_act\": \"relu\"}, \"vision_config\": {",
         "config.json: vision_config_dict: hidden_act"},
        {"safety_checker", "\"projection_dim\": 16", "\"projection_dim\": 17", "[17"},
        {"safety_checker", "\"hidden_size\": 16", "\"hidden_size\": 18", "[18"},
    };
    struct machine *m = *state;
    char path[512];
    size_t n;
    assert_non_null(mkdtemp(scratch));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        (void)snprintf(path, sizeof path, MODELS "%s/model.safetensors", cases[i].part);
        char *weights = text_read(path, &n);
        text_write("model.safetensors", weights, n);
        text_write("config.json", "{", 1);
        refused(m, cases[i].part, "config.json");
        (void)snprintf(path, sizeof path, MODELS "%s/config.json", cases[i].part);
        char *config = text_read(path, &(size_t){0});
        char *at = strstr(config, cases[i].from);
        char *edited = NULL;
        assert_non_null(at);
        *at = 0;
        const int length =
            asprintf(&edited, "%s%s%s", config, cases[i].to, at + strlen(cases[i].from));
        assert_true(length > 0);
        text_write("config.json", edited, (size_t)length);
        refused(m, cases[i].part, cases[i].named);
        *at = cases[i].from[0];
        text_write("config.json", config, strlen(config));
        text_write("model.safetensors", weights, n / 2);
        refused(m, cases[i].part, "model.safetensors");
        free(edited);
        free(config);
        free(weights);
    }
    (void)snprintf(path, sizeof path, "%s/model.safetensors", scratch);
    (void)unlink(path);
    refused(m, "safety_checker", "model.safetensors");
    text_write("pytorch_model.bin", "PK\3\4xxxx", 8);
    refused(m, "safety_checker", "pytorch_model.bin: a pickle");
    for (int i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", scratch,
                       i ? "config.json" : "pytorch_model.bin");
        (void)unlink(path);
    }
    refused(m, "safety_checker", "config.json");
    (void)rmdir(scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encoders),
        cmocka_unit_test(projections),
        cmocka_unit_test(broken_parts),
    };
    return cmocka_run_group_tests(tests, machine_open, machine_close);
}
