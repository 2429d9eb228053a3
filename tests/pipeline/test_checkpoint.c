/* Whole models in one file with original names: as diffusers converts and draws with them
 * (tools/golden/original.py), and files that are wrong in one thing each.
 *
 * Arguments: the golden folder, the folder of plugins. */
#include "original.h"

#include <jansson.h>
#include <unistd.h>

#include "attn_sag.h"

static const char *golden_folder;
static const char *plugin_folder;
static attn_registry *registry;
static char scratch[] = "/tmp/attnplug-checkpoint-XXXXXX";
static char path[64]; /* the checkpoint of the test that runs */

static int group_begin(void **state)
{
    (void)state;
    registry = plugins_open(plugin_folder);
    return registry ? 0 : -1;
}

static int group_end(void **state)
{
    (void)state;
    attn_registry_close(registry);
    return 0;
}

static char said[2048]; /* what the last opening logged */

static void on_log(void *ctx, int32_t level, const char *text)
{
    (void)ctx;
    (void)level;
    text_append(said, sizeof said, text);
    text_append(said, sizeof said, "\n");
}

static attn_status checkpoint_load(const char *prediction_type, uint32_t flags, attn_sag **sag,
                                   attn_error *err)
{
    said[0] = 0;
    const attn_sag_open_options options = {.size = sizeof options,
                                           .flags = flags,
                                           .model = path,
                                           .log = on_log,
                                           .scheduler = "DDIMScheduler",
                                           .prediction_type = prediction_type};
    return attn_sag_open(registry, &options, sag, err);
}

/* -- against diffusers ------------------------------------------------------------------------- */

static void embeds_compare(const safetensors *golden, attn_sag *sag, const char *what,
                           const char *name)
{
    ATTN_ERROR_ON(err, 512);
    const char *text = safetensors_metadata(golden, what);
    const safetensors_tensor *expected = golden_get(golden, "%s", name);
    attn_tensor embeds;
    if (attn_sag_encode(sag, &text, 1, 0, &embeds, NULL, 0, &err)) {
        fail_msg("%s", err.text);
    }
    const double d = relative_l2(embeds.data, expected->data, (size_t)expected->bytes / 4);
    print_message("%-24s relative L2 %.1e\n", name, d);
    assert_true(d <= 1e-5);
    attn_sag_embeds_free(&embeds);
}

static void draw(const safetensors *golden, attn_sag *sag, const char *expected_name)
{
    ATTN_ERROR_ON(err, 512);
    const char *prompt = safetensors_metadata(golden, "prompt");
    const char *negative = safetensors_metadata(golden, "negative_prompt");
    json_t *s = json_loads(safetensors_metadata(golden, "settings"), 0, NULL);
    const uint64_t seed = (uint64_t)json_integer_value(json_object_get(s, "seed"));
    const safetensors_tensor *latents = golden_get(golden, "%s", expected_name);
    const safetensors_tensor *image = golden_get(golden, "image");
    attn_sag_result result = {.size = sizeof result};
    const attn_sag_run_options o = {
        .size = sizeof o,
        .flags = ATTN_SAG_SET_GUIDANCE | ATTN_SAG_SET_SAG,
        .prompts = &prompt,
        .n_prompts = 1,
        .negative_prompts = &negative,
        .n_negative = 1,
        .seeds = &seed,
        .n_seeds = 1,
        .height = (uint32_t)json_integer_value(json_object_get(s, "height")),
        .width = (uint32_t)json_integer_value(json_object_get(s, "width")),
        .num_inference_steps =
            (uint32_t)json_integer_value(json_object_get(s, "num_inference_steps")),
        .guidance_scale = json_number_value(json_object_get(s, "guidance_scale")),
        .sag_scale = json_number_value(json_object_get(s, "sag_scale"))};
    if (attn_sag_run(sag, &o, &result, &err)) {
        fail_msg("%s", err.text);
    }
    const double d = relative_l2(result.latents.data, latents->data, (size_t)latents->bytes / 4);
    print_message("%-24s relative L2 %.1e\n", expected_name, d);
    assert_true(d <= 1e-4);
    if (strcmp(expected_name, "final_latents") == 0) {
        const float *pixels = result.images.data;
        const uint8_t *bytes = image->data;
        double worst = 0;
        for (size_t i = 0; i < image->bytes; i++) {
            const double off = fabs(rint(pixels[i] * 255.0) - bytes[i]);
            worst = off <= worst ? worst : off; /* a NaN counts */
        }
        print_message("%-24s %g/255 at most\n", "image", worst);
        assert_true(worst <= 2);
    }
    attn_sag_result_free(&result);
    json_decref(s);
}

static void matches(const char *kind, const char *prediction_type, int ema)
{
    ATTN_ERROR_ON(err, 512);
    safetensors *golden = golden_open(golden_folder, kind);
    struct original o = original_read(golden);
    const float hundred = 100;
    const safetensors_tensor scale = {.name = "cond_stage_model.model.logit_scale",
                                      .dtype = {ATTN_CODE_FLOAT, 32},
                                      .data = &hundred};
    attn_sag *sag = NULL;
    if (strcmp(kind, "original_ldm2") == 0) {
        original_add(&o, &scale); /* OpenCLIP's files have it */
    }
    original_write(&o, path);
    original_free(&o);
    if (checkpoint_load(prediction_type, ema ? ATTN_SAG_EMA : 0, &sag, &err)) {
        fail_msg("%s", err.text);
    }
    assert_string_equal(attn_sag_scheduler(sag), "DDIMScheduler");
    assert_string_equal(said, "");
    embeds_compare(golden, sag, "prompt", "prompt_embeds");
    embeds_compare(golden, sag, "negative_prompt", "negative_prompt_embeds");
    draw(golden, sag, ema ? "ema_latents" : "final_latents");
    attn_sag_close(sag);
    safetensors_close(golden);
    unlink(path);
}

static void stable_diffusion_1(void **state)
{
    (void)state;
    matches("original_ldm1", NULL, 0);
}

static void averaged_weights(void **state)
{
    (void)state;
    matches("original_ldm1", NULL, 1);
}

static void stable_diffusion_2(void **state)
{
    (void)state;
    matches("original_ldm2", "v_prediction", 0);
}

/* -- files that are wrong ---------------------------------------------------------------------- */

/* Opens the checkpoint: every one of `named`, separated by '|', has to be in the text. */
static void refused(uint32_t flags, attn_status expected, const char *named)
{
    ATTN_ERROR_ON(err, 1024);
    char words[256];
    char *rest = words;
    char *word;
    attn_sag *sag = (attn_sag *)&err; /* to see that it is set */
    const attn_status status = checkpoint_load(NULL, flags, &sag, &err);
    if (status != expected) {
        fail_msg("status %d, expected %d: %s", status, expected, err.text);
    }
    assert_null(sag);
    assert_null(strchr(err.text, '\n'));
    assert_non_null(strstr(err.text, path));
    assert_null(strstr(err.text, "safetensors/")); /* it is no folder */
    snprintf(words, sizeof words, "%s", named);
    while ((word = strsep(&rest, "|"))) {
        if (!strstr(err.text, word)) {
            fail_msg("\"%s\" does not say %s", err.text, word);
        }
    }
}

/* Another change to a whole model each. */
struct wrong {
    const char *drop;   /* tensors that begin so */
    const char *rename; /* this tensor .. */
    const char *to;     /* .. gets that name */
    const char *widen;  /* this tensor gets one more row */
    uint32_t flags;
    attn_status status;
    const char *named;
};

static const struct wrong wrongs[] = {
    {.drop = "model.diffusion_model.",
     .status = ATTN_UNSUPPORTED,
     .named = "model.diffusion_model"},
    {.drop = "first_stage_model.", .status = ATTN_NOT_FOUND, .named = "first_stage_model.decoder"},
    {.drop = "cond_stage_model.", .status = ATTN_NOT_FOUND, .named = "cond_stage_model"},
    {.drop = "model_ema.",
     .flags = ATTN_SAG_EMA,
     .status = ATTN_NOT_FOUND,
     .named = "averaged|model_ema"},
    {.drop = "model_ema.diffusion_modelout2weight",
     .flags = ATTN_SAG_EMA,
     .status = ATTN_NOT_FOUND,
     .named = "model_ema.diffusion_modelout2weight"},
    {.drop = "first_stage_model.decoder.mid.attn_1.q.weight",
     .status = ATTN_NOT_FOUND,
     .named = "decoder.mid_block.attentions.0.to_q.weight"},
    {.drop = "model.diffusion_model.time_embed.2.bias",
     .status = ATTN_NOT_FOUND,
     .named = "time_embedding.linear_2.bias"},
    {.drop = "model.diffusion_model.middle_block.1",
     .status = ATTN_NOT_FOUND,
     .named = "middle_block.1"},
    {.drop = "model.diffusion_model.input_blocks.4",
     .status = ATTN_UNSUPPORTED,
     .named = "level 1 has 0 residual blocks"},
    {.widen = "model.diffusion_model.input_blocks.1.0.emb_layers.1.weight",
     .status = ATTN_INVALID,
     .named = "down_blocks.0.resnets.0.time_emb_proj.weight|33"},
    {.widen = "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.bias",
     .status = ATTN_INVALID,
     .named = "mlp.fc1.bias|97"},
    {.widen = "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",
     .status = ATTN_INVALID,
     .named = ": CLIP's own tokenizer's model_max_length is 77|78 positions"},
    {.rename = "model.diffusion_model.out.0.bias",
     .to = "conditioner.embedders.0.x",
     .status = ATTN_UNSUPPORTED,
     .named = "Stable Diffusion XL"},
    {.rename = "model.diffusion_model.out.0.bias",
     .to = "lora_unet_x.lora_up.weight",
     .status = ATTN_UNSUPPORTED,
     .named = "LoRA"},
    {.rename = "model.diffusion_model.out.0.bias",
     .to = "control_model.x",
     .status = ATTN_UNSUPPORTED,
     .named = "ControlNet"},
    /* a second name for the same tensor of diffusers */
    {.rename = "model.diffusion_model.out.0.bias",
     .to = "model.diffusion_model.conv_norm_out.weight",
     .status = ATTN_INVALID,
     .named = "conv_norm_out.weight is there twice"},
};

static void wrong_contents(void **state)
{
    safetensors *golden = golden_open(golden_folder, "original_ldm1");
    struct original whole = original_read(golden);
    (void)state;
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
        const struct wrong *w = &wrongs[i];
        struct original o = original_copy(&whole);
        void *more = NULL;
        if (w->drop) {
            assert_true(original_drop(&o, w->drop) > 0);
        }
        if (w->rename) {
            original_find(&o, w->rename)->name = w->to;
        }
        if (w->widen) {
            safetensors_tensor *t = original_find(&o, w->widen);
            more = calloc(2, t->bytes + 4096);
            assert_non_null(more);
            t->data = more;
            t->shape[0]++;
            t->bytes = 0;
        }
        original_write(&o, path);
        original_free(&o);
        free(more);
        refused(w->flags, w->status, w->named);
    }
    original_free(&whole);
    safetensors_close(golden);
    unlink(path);
}

static void file_put(const void *bytes, size_t n)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static void wrong_files(void **state)
{
    static const char duplicate[] =
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}";
    static const char hostile[] = "{\"model.diffusion_model.input_blocks.0.0.weight\":{\"dtype\":"
                                  "\"F32\",\"shape\":[4611686018427387904,4,3,3],"
                                  "\"data_offsets\":[0,0]}}";
    const char *const headers[] = {duplicate, hostile};
    const char *const named[] = {"duplicate object key", "more bytes than 2^64"};
    safetensors *golden = golden_open(golden_folder, "original_ldm2");
    struct original o = original_read(golden);
    (void)state;
    original_write(&o, path);
    assert_int_equal(truncate(path, 1 << 20), 0);
    refused(0, ATTN_INVALID, "cut short");
    for (size_t i = 0; i < 2; i++) {
        char bytes[512] = {0};
        const size_t n = strlen(headers[i]);
        bytes[0] = (char)n;
        bytes[1] = (char)(n >> 8);
        memcpy(bytes + 8, headers[i], n);
        file_put(bytes, n + 8);
        refused(0, ATTN_INVALID, named[i]);
    }
    file_put("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10);
    refused(0, ATTN_INVALID, "header");
    file_put("", 0);
    refused(0, ATTN_INVALID, "0 bytes");
    /* torch.save's zip archive, whatever the file is called */
    file_put("PK\3\4 and more", 13);
    refused(0, ATTN_UNSUPPORTED, "pickle|torch.load|safetensors");
    original_free(&o);
    safetensors_close(golden);
    unlink(path);
}

/* An older pickle is told by its ending and its first opcode. */
static void a_bare_pickle(void **state)
{
    char kept[sizeof path];
    (void)state;
    memcpy(kept, path, sizeof kept);
    snprintf(path, sizeof path, "%s/model.ckpt", scratch);
    file_put("\x80\2}q\0.", 6);
    refused(0, ATTN_UNSUPPORTED, "pickle|torch.load");
    unlink(path);
    memcpy(path, kept, sizeof kept);
}

static void prompts_only(void **state)
{
    ATTN_ERROR_ON(err, 512);
    safetensors *golden = golden_open(golden_folder, "original_ldm1");
    struct original o = original_read(golden);
    attn_sag *sag = NULL;
    attn_sag_result result = {.size = sizeof result};
    const attn_sag_run_options run = {.size = sizeof run};
    const char *name;
    (void)state;
    original_write(&o, path);
    assert_int_equal(checkpoint_load(NULL, ATTN_SAG_PROMPTS_ONLY, &sag, &err), ATTN_OK);
    embeds_compare(golden, sag, "prompt", "prompt_embeds");
    assert_int_equal(attn_sag_run(sag, &run, &result, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "prompts only"));
    assert_int_equal(attn_sag_vae_encode(sag, NULL, NULL, &result.latents, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "no VAE"));
    assert_int_equal(attn_sag_layer(sag, 0, &name, &name, &name), ATTN_NOT_FOUND);
    assert_string_equal(attn_sag_scheduler(sag), "");
    attn_sag_close(sag);
    original_free(&o);
    safetensors_close(golden);
    unlink(path);
}

/* What diffusers gives such a file where nobody says: PNDM, and the prediction of its family. */
static void the_scheduler_of_a_file(void **state)
{
    ATTN_ERROR_ON(err, 1024);
    safetensors *golden = golden_open(golden_folder, "original_ldm1");
    struct original o = original_read(golden);
    attn_sag *sag = NULL;
    attn_sag_open_options options = {.size = sizeof options, .model = path};
    (void)state;
    original_write(&o, path);
    if (attn_sag_open(registry, &options, &sag, &err)) {
        fail_msg("%s", err.text);
    }
    assert_string_equal(attn_sag_scheduler(sag), "PNDMScheduler");
    attn_sag_close(sag);
    options.prediction_type = "velocity";
    assert_int_equal(attn_sag_open(registry, &options, &sag, &err), ATTN_UNSUPPORTED);
    assert_non_null(strstr(err.text, "velocity"));
    options.prediction_type = NULL;
    options.variant = "fp16";
    assert_int_equal(attn_sag_open(registry, &options, &sag, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "one file has no variants"));
    assert_null(sag);
    original_free(&o);
    safetensors_close(golden);
    unlink(path);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stable_diffusion_1), cmocka_unit_test(averaged_weights),
        cmocka_unit_test(stable_diffusion_2), cmocka_unit_test(wrong_contents),
        cmocka_unit_test(wrong_files),        cmocka_unit_test(a_bare_pickle),
        cmocka_unit_test(prompts_only),       cmocka_unit_test(the_scheduler_of_a_file),
    };
    if (argc != 3 || !mkdtemp(scratch)) {
        return 2;
    }
    golden_folder = argv[1];
    plugin_folder = argv[2];
    snprintf(path, sizeof path, "%s/model.safetensors", scratch);
    int failures = cmocka_run_group_tests(tests, group_begin, group_end);
    rmdir(scratch);
    return failures;
}
