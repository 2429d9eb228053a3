/* Image prompts' files that are wrong, and models that they do not fit: what is refused, in which
 * words. */
#include "image_model.h"

static void adapter_spoil(const char *path, const char *name, const char *renamed, int cut)
{
    safetensors_tensor all[64];
    size_t n = 0;
    char from[PATH];
    ATTN_ERROR_ON(err, 512);
    safetensors *file;
    snprintf(from, sizeof from, "%s/models/tiny-image/ip-adapter.safetensors", golden_folder);
    assert_int_equal(safetensors_open(from, &file, &err), ATTN_OK);
    for (size_t i = 0; i < safetensors_count(file); i++) {
        all[n] = *safetensors_at(file, i);
        const int is = strcmp(all[n].name, name) == 0;
        all[n].name = is && renamed ? renamed : all[n].name;
        all[n].bytes = 0;
        all[n].shape[0] -= is && cut;
        n += !is || renamed || cut;
    }
    assert_int_equal(safetensors_write(path, all, n, NULL, 0, &err), ATTN_OK);
    safetensors_close(file);
}

static void test_bad_adapters(void **state)
{
    static const struct {
        const char *name, *renamed;
        int cut;
        const char *said;
    } cases[] = {
        {"image_proj.proj.weight", NULL, 0, "no IP-Adapter that is known"},
        {"image_proj.proj.weight", NULL, 1, "image_proj.proj.weight"},
        {"image_proj.proj.bias", NULL, 0, "image_proj.proj.bias"},
        {"image_proj.norm.weight", NULL, 1, "image_proj"},
        {"ip_adapter.1.to_k_ip.weight", NULL, 0, "ip_adapter.1.to_k_ip.weight"},
        {"ip_adapter.1.to_v_ip.weight", NULL, 0, "ip_adapter.1.to_v_ip.weight"},
        {"ip_adapter.7.to_k_ip.weight", NULL, 0, "3 cross-attention layers"},
        {"ip_adapter.7.to_v_ip.weight", NULL, 1, "ip_adapter.7.to_v_ip.weight"},
    };
    char path[] = "/tmp/attnplug-adapter-XXXXXX";
    int number = mkstemp(path);
    attn_sag_ip_adapter given = {path, 1};
    attn_sag_open_options o = {.size = sizeof o,
                               .model = model,
                               .n_threads = 1,
                               .flags = ATTN_SAG_NO_SAFETY_CHECKER,
                               .ip_adapters = &given,
                               .n_ip_adapters = 1};
    (void)state;
    assert_true(number >= 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        adapter_spoil(path, cases[i].name, cases[i].renamed, cases[i].cut);
        open_refused(&o, path, cases[i].said);
    }
    adapter_spoil(path, "none", NULL, 0);
    assert_int_equal(truncate(path, 9000), 0);
    open_refused(&o, path, "");
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fwrite("PK\3\4and so on", 1, 13, file);
    fclose(file);
    open_refused(&o, path, "a pickle");
    unlink(path);
    open_refused(&o, path, "No such file");
    close(number);
    given.file = NULL;
    open_refused(&o, "IP-Adapter 0", "no file");
    o.n_ip_adapters = 33;
    open_refused(&o, "33", "32");
}

static void test_bad_surroundings(void **state)
{
    char adapter[PATH];
    char other[PATH];
    snprintf(adapter, sizeof adapter, "%s/models/tiny-image/ip-adapter.safetensors", golden_folder);
    snprintf(other, sizeof other, "%s/models/tiny-sd2", golden_folder);
    const attn_sag_ip_adapter given = {adapter, 1};
    attn_sag_open_options o = {
        .size = sizeof o, .model = other, .ip_adapters = &given, .n_ip_adapters = 1};
    char encoder[PATH];
    const attn_sag_processor fused = {.glob = "*attn2",
                                      .spec = {.size = sizeof fused.spec, .processor = "fused"}};
    (void)state;
    snprintf(encoder, sizeof encoder, "%s/models/tiny-image/image_encoder_gelu", golden_folder);
    o.image_encoder = "/no/such/encoder";
    open_refused(&o, "/no/such/encoder", "");
    o.image_encoder = encoder;
    open_refused(&o, "CLIPImageProcessor's defaults", "32 x 32"); /* tiny-sd2 has no processor */
    o.image_encoder = NULL;
    o.model = model;
    o.flags = ATTN_SAG_NO_SAFETY_CHECKER;
    o.image_encoder = encoder;
    open_refused(&o, "feature_extractor/preprocessor_config.json", "32 x 32");
    o.image_encoder = NULL;
    o.processors = &fused;
    o.n_processors = 1;
    open_refused(&o, "fused", "IP-Adapter");
    o.n_processors = 0;
    /* for prompt embeddings of another width: said before any layer is looked at */
    part_link("tiny-sd2", "unet");
    part_link("tiny-sd2", "text_encoder");
    open_refused(&o, adapter, "prompt embeddings of 20");
    part_link("tiny-sd1", "unet");
    part_link("tiny-sd1", "text_encoder");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bad_adapters),
                                       cmocka_unit_test(test_bad_surroundings)};
    arguments_take(argc, argv);
    return cmocka_run_group_tests(tests, setup, teardown);
}
