/* Models that are not what they say: each is refused with a text that names the file, the thing and
 * what was expected, and nothing is left behind. */
#include "broken.h"
#include "text_encoder.h"
#include "unet.h"
#include "vae.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static attn_status part_open(struct machine *m, const char *part, const char *folder,
                             attn_error *err)
{
    attn_status status;
    if (strcmp(part, "unet") == 0) {
        struct unet *u = NULL;
        status = unet_open(m->compute, folder, NULL, &u, err);
        unet_close(u);
    } else if (strcmp(part, "vae") == 0) {
        struct vae *v = NULL;
        status = vae_open(m->compute, folder, NULL, &v, err);
        vae_close(v);
    } else {
        struct text_encoder *t = NULL;
        status = text_encoder_open(m->compute, folder, NULL, &t, err);
        text_encoder_close(t);
    }
    return status;
}

/* named: words that the text must hold, separated by '|'. */
static void expect(struct machine *m, const char *part, const char *folder, attn_status expected,
                   const char *named)
{
    ATTN_ERROR_ON(err, 512);
    const attn_status status = part_open(m, part, folder, &err);
    char words[512];
    char *rest = words;
    char *word;
    if (status != expected) {
        fail_msg("%s: status %d, expected %d: %s", part, status, expected, err.text);
    }
    assert_null(strchr(err.text, '\n'));
    (void)snprintf(words, sizeof(words), "%s", named);
    while ((word = strsep(&rest, "|"))) {
        if (!strstr(err.text, word)) {
            fail_msg("\"%s\" does not name %s", err.text, word);
        }
    }
}

static const char *const parts[] = {"unet", "vae", "text_encoder"};
static const char *const some_tensor[] = {
    "up_blocks.1.attentions.0.transformer_blocks.0.ff.net.2.weight",
    "decoder.mid_block.attentions.0.to_q.weight",
    "text_model.encoder.layers.2.mlp.fc1.weight",
};

static void missing_files(void **state)
{
    for (size_t i = 0; i < 3; i++) {
        struct broken b = broken_copy("tiny-sd1", parts[i]);
        char config[320];
        (void)snprintf(config, sizeof(config), "%s/config.json", b.folder);
        assert_int_equal(unlink(b.file), 0);
        expect(*state, parts[i], b.folder, ATTN_NOT_FOUND, b.file);
        assert_int_equal(unlink(config), 0);
        expect(*state, parts[i], b.folder, ATTN_NOT_FOUND, config);
        broken_remove(&b);
        expect(*state, parts[i], b.folder, ATTN_NOT_FOUND, b.folder);
    }
}

static void a_file_in_place_of_the_folder(void **state)
{
    for (size_t i = 0; i < 3; i++) {
        struct broken b = broken_copy("tiny-sd1", parts[i]);
        expect(*state, parts[i], b.file, ATTN_INVALID, "not a folder");
        broken_remove(&b);
    }
}

static void configs_that_are_no_config(void **state)
{
    static const struct {
        const char *text, *named;
    } cases[] = {
        {"", "config.json|line 1"},
        {"{\"a\": 1", "config.json"},
        {"[1, 2]", "config.json|object"},
        {"{\"act_fn\": \"silu\", \"act_fn\": \"relu\"}", "config.json|act_fn"},
    };
    for (size_t i = 0; i < 3; i++) {
        for (size_t c = 0; c < sizeof(cases) / sizeof(*cases); c++) {
            struct broken b = broken_copy("tiny-sd1", parts[i]);
            broken_write_config(&b, cases[c].text);
            expect(*state, parts[i], b.folder, ATTN_INVALID, cases[c].named);
            broken_remove(&b);
        }
    }
}

static void tensors_that_are_not_as_they_should_be(void **state)
{
    for (size_t i = 0; i < 3; i++) {
        static const struct {
            enum change change;
            attn_status status;
            const char *named;
        } cases[] = {
            {CHANGE_DROP, ATTN_NOT_FOUND, "no tensor"},
            {CHANGE_NAME, ATTN_NOT_FOUND, "no tensor"},
            {CHANGE_SHAPE, ATTN_INVALID, "["},
            {CHANGE_DTYPE, ATTN_INVALID, "I64|F32, F16 or BF16"},
        };
        for (size_t c = 0; c < sizeof(cases) / sizeof(*cases); c++) {
            struct broken b = broken_copy("tiny-sd1", parts[i]);
            char named[512];
            (void)snprintf(named, sizeof(named), "%s|%s|%s", b.file, some_tensor[i],
                           cases[c].named);
            broken_tensor(&b, some_tensor[i], cases[c].change);
            expect(*state, parts[i], b.folder, cases[c].status, named);
            broken_remove(&b);
        }
    }
}

static void a_file_cut_short(void **state)
{
    for (size_t i = 0; i < 3; i++) {
        struct broken b = broken_copy("tiny-sd1", parts[i]);
        assert_int_equal(truncate(b.file, 5000), 0);
        expect(*state, parts[i], b.folder, ATTN_INVALID, b.file);
        broken_remove(&b);
    }
}

/* One key set to something that is not supported, or that the tensors contradict. */
struct lie {
    const char *part, *key, *json;
    attn_status status;
    const char *named;
};

static const struct lie unsupported[] = {
    {"unet", "_class_name", "\"UNet3DConditionModel\"", ATTN_UNSUPPORTED, "UNet3DConditionModel"},
    {"unet", "down_block_types", "[\"AttnDownBlock2D\", \"DownBlock2D\", \"DownBlock2D\"]",
     ATTN_UNSUPPORTED, "AttnDownBlock2D|CrossAttnDownBlock2D"},
    {"unet", "up_block_types", "[\"UpBlock2D\", \"KUpBlock2D\", \"UpBlock2D\"]", ATTN_UNSUPPORTED,
     "KUpBlock2D|CrossAttnUpBlock2D"},
    {"unet", "mid_block_type", "\"UNetMidBlock2DSimpleCrossAttn\"", ATTN_UNSUPPORTED,
     "UNetMidBlock2DSimpleCrossAttn"},
    {"unet", "act_fn", "\"mish\"", ATTN_UNSUPPORTED, "mish|silu"},
    {"unet", "addition_embed_type", "\"text_time\"", ATTN_UNSUPPORTED, "text_time"},
    {"unet", "class_embed_type", "\"timestep\"", ATTN_UNSUPPORTED, "timestep"},
    {"unet", "encoder_hid_dim", "32", ATTN_UNSUPPORTED, "32"},
    {"unet", "dual_cross_attention", "true", ATTN_UNSUPPORTED, "true"},
    {"unet", "attention_type", "\"gated\"", ATTN_UNSUPPORTED, "gated"},
    {"unet", "time_embedding_type", "\"fourier\"", ATTN_UNSUPPORTED, "fourier"},
    {"unet", "num_class_embeds", "1000", ATTN_UNSUPPORTED, "1000"},
    {"unet", "class_embed_type", "\"projection\"", ATTN_UNSUPPORTED, "projection"},
    {"unet", "resnet_time_scale_shift", "\"spatial\"", ATTN_UNSUPPORTED, "spatial|scale_shift"},
    {"unet", "resnet_out_scale_factor", "2", ATTN_UNSUPPORTED, "2"},
    {"unet", "conv_in_kernel", "4", ATTN_UNSUPPORTED, "4|odd"},
    {"unet", "an_option_of_the_future", "3", ATTN_UNSUPPORTED, "3"},
    {"vae", "_class_name", "\"AsymmetricAutoencoderKL\"", ATTN_UNSUPPORTED, "Asymmetric"},
    {"vae", "up_block_types", "[\"UpDecoderBlock2D\", \"AttnUpDecoderBlock2D\", \"A\"]",
     ATTN_UNSUPPORTED, "AttnUpDecoderBlock2D|UpDecoderBlock2D"},
    {"vae", "act_fn", "\"relu\"", ATTN_UNSUPPORTED, "relu"},
    {"vae", "use_post_quant_conv", "false", ATTN_UNSUPPORTED, "false"},
    {"vae", "shift_factor", "0.1", ATTN_UNSUPPORTED, "0.1"},
    {"text_encoder", "hidden_act", "\"gelu_new\"", ATTN_UNSUPPORTED, "gelu_new|quick_gelu"},
    {"text_encoder", "model_type", "\"t5\"", ATTN_UNSUPPORTED, "t5"},
};

static const struct lie invalid[] = {
    {"unet", "block_out_channels", "[8, 12]", ATTN_INVALID, "list of 2 texts"},
    {"unet", "block_out_channels", "8", ATTN_INVALID, "list"},
    {"unet", "block_out_channels", "[8, 12, 0]", ATTN_INVALID, "0"},
    {"unet", "block_out_channels", "[8, 12, 18]", ATTN_INVALID, "18"},
    {"unet", "down_block_types", "[\"DownBlock2D\"]", ATTN_INVALID, "3 texts"},
    {"unet", "attention_head_dim", "[2, 2]", ATTN_INVALID, "list of 3"},
    {"unet", "attention_head_dim", "5", ATTN_INVALID, "heads"},
    {"unet", "attention_head_dim", "\"8\"", ATTN_INVALID, "number"},
    {"unet", "layers_per_block", "0", ATTN_INVALID, "0"},
    {"unet", "layers_per_block", "3", ATTN_NOT_FOUND, "resnets.2"},
    {"unet", "norm_num_groups", "5", ATTN_INVALID, "groups"},
    {"unet", "norm_eps", "\"small\"", ATTN_INVALID, "small"},
    {"unet", "time_embedding_dim", "48", ATTN_INVALID, "time_embedding.linear_1"},
    {"unet", "cross_attention_dim", "21", ATTN_INVALID, "attn2.to_k"},
    {"unet", "in_channels", "5", ATTN_INVALID, "conv_in"},
    {"unet", "use_linear_projection", "true", ATTN_INVALID, "proj_in"},
    {"unet", "use_linear_projection", "1", ATTN_INVALID, "true or false"},
    {"unet", "only_cross_attention", "true", ATTN_INVALID, "attn1.to_k"},
    {"unet", "downsample_padding", "2", ATTN_INVALID, "2"},
    {"unet", "mid_block_scale_factor", "0", ATTN_INVALID, "not 0"},
    {"vae", "latent_channels", "8", ATTN_INVALID, "post_quant_conv"},
    {"vae", "block_out_channels", "[4, 4, 12]", ATTN_INVALID, "12"},
    {"vae", "layers_per_block", "9", ATTN_NOT_FOUND, "resnets.3"},
    {"vae", "norm_num_groups", "3", ATTN_INVALID, "groups"},
    {"vae", "scaling_factor", "0", ATTN_INVALID, "more than 0"},
    {"vae", "scaling_factor", "true", ATTN_INVALID, "number"},
    {"text_encoder", "hidden_size", "24", ATTN_INVALID, "token_embedding"},
    {"text_encoder", "vocab_size", "100", ATTN_INVALID, "token_embedding"},
    {"text_encoder", "vocab_size", "99.5", ATTN_INVALID, "99.5"},
    {"text_encoder", "max_position_embeddings", "78", ATTN_INVALID, "position_embedding"},
    {"text_encoder", "num_attention_heads", "3", ATTN_INVALID, "divisor"},
    {"text_encoder", "num_hidden_layers", "4", ATTN_NOT_FOUND, "layers.3"},
    {"text_encoder", "num_hidden_layers", "-1", ATTN_INVALID, "-1"},
    {"text_encoder", "intermediate_size", "64", ATTN_INVALID, "fc1"},
};

static void lies(void **state, const struct lie *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct broken b = broken_copy("tiny-sd1", list[i].part);
        broken_set(&b, list[i].key, list[i].json);
        expect(*state, list[i].part, b.folder, list[i].status, list[i].named);
        if (list[i].status == ATTN_UNSUPPORTED) {
            expect(*state, list[i].part, b.folder, list[i].status, list[i].key);
        }
        broken_remove(&b);
    }
}

static void options_that_are_not_supported(void **state)
{
    lies(state, unsupported, sizeof(unsupported) / sizeof(*unsupported));
}

static void configs_that_lie(void **state)
{
    lies(state, invalid, sizeof(invalid) / sizeof(*invalid));
}

/* -- what has to be taken ---------------------------------------------------------------------- */

static void what_means_nothing_is_taken(void **state)
{
    static const struct lie harmless[] = {
        {"unet", "class_embed_type", "null", ATTN_OK, ""},
        {"unet", "resnet_out_scale_factor", "1", ATTN_OK, ""},
        {"unet", "dropout", "0.1", ATTN_OK, ""},
        {"unet", "time_cond_proj_dim", "256", ATTN_OK, ""},
        {"unet", "decay", "0.9999", ATTN_OK, ""},
        {"unet", "_name_or_path", "\"somewhere\"", ATTN_OK, ""},
        {"unet", "an_option_of_the_future", "false", ATTN_OK, ""},
        {"unet", "attention_head_dim", "[2, 2, 2]", ATTN_OK, ""},
        {"vae", "use_quant_conv", "true", ATTN_OK, ""},
        {"vae", "latents_mean", "null", ATTN_OK, ""},
        {"text_encoder", "top_k", "50", ATTN_OK, ""},
    };
    lies(state, harmless, sizeof(harmless) / sizeof(*harmless));
}

static void defaults_are_those_of_diffusers(void **state)
{
    struct broken b = broken_copy("tiny-sd1", "unet");
    broken_set(&b, "layers_per_block", NULL); /* 2, as the model has it */
    broken_set(&b, "freq_shift", NULL);
    broken_set(&b, "norm_eps", NULL);
    expect(*state, "unet", b.folder, ATTN_OK, "");
    broken_remove(&b);
}

static void a_tensor_without_use_is_told(void **state)
{
    struct machine *m = *state;
    struct broken b = broken_copy("tiny-sd1", "vae");
    m->log[0] = '\0';
    broken_tensor(&b, "encoder.conv_in.bias", CHANGE_NAME); /* of the encoder: not told */
    expect(m, "vae", b.folder, ATTN_OK, "");
    assert_string_equal(m->log, "");
    broken_tensor(&b, "quant_conv.bias", CHANGE_NAME);
    expect(m, "vae", b.folder, ATTN_OK, "");
    broken_remove(&b);

    b = broken_copy("tiny-sd1", "text_encoder");
    broken_set(&b, "num_hidden_layers", "2");
    expect(m, "text_encoder", b.folder, ATTN_OK, "");
    assert_non_null(strstr(m->log, b.file));
    assert_non_null(strstr(m->log, "text_model.encoder.layers.2."));
    broken_remove(&b);
}

/* fp16 variants carry it in their name. */
static void the_fp16_variant_is_found(void **state)
{
    struct broken b = broken_copy("tiny-sd1", "text_encoder");
    char variant[320];
    (void)snprintf(variant, sizeof(variant), "%s/model.fp16.safetensors", b.folder);
    assert_int_equal(rename(b.file, variant), 0);
    expect(*state, "text_encoder", b.folder, ATTN_OK, "");
    assert_int_equal(unlink(variant), 0);
    broken_remove(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_files),
        cmocka_unit_test(a_file_in_place_of_the_folder),
        cmocka_unit_test(configs_that_are_no_config),
        cmocka_unit_test(tensors_that_are_not_as_they_should_be),
        cmocka_unit_test(a_file_cut_short),
        cmocka_unit_test(options_that_are_not_supported),
        cmocka_unit_test(configs_that_lie),
        cmocka_unit_test(what_means_nothing_is_taken),
        cmocka_unit_test(defaults_are_those_of_diffusers),
        cmocka_unit_test(a_tensor_without_use_is_told),
        cmocka_unit_test(the_fp16_variant_is_found),
    };
    return cmocka_run_group_tests(tests, machine_open, machine_close);
}
