/* What a checkpoint's shapes say: Stable Diffusion's own models in their full sizes, as files of
 * nothing but holes.  Expected are the config.json files that diffusers' format has for them. */
#include "machine.h"

#include "checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST = 1024, NAME = 128 };

/* Tensors of fp16 without data. */
struct listing {
    char names[MOST][NAME];
    int64_t shapes[MOST][4];
    uint32_t ranks[MOST];
    size_t n;
};

/* Sizes of 0 end a shape. */
static void add(struct listing *l, const char *name, int64_t a, int64_t b, int64_t c)
{
    const int64_t shape[] = {a, b, c, c};
    assert_true(l->n < MOST);
    (void)snprintf(l->names[l->n], NAME, "%s", name);
    memcpy(l->shapes[l->n], shape, sizeof(shape));
    l->ranks[l->n++] = c ? 4 : b ? 2 : 1;
}

/* One resnet's first convolution, and where depth says so an attention's tensors that tell. */
static void add_block(struct listing *l, const char *where, int64_t channels, int attention,
                      int64_t context, int linear)
{
    char name[NAME];
    (void)snprintf(name, NAME, "%s.0.in_layers.2.weight", where);
    add(l, name, channels, channels, 3);
    if (attention) {
        (void)snprintf(name, NAME, "%s.1.transformer_blocks.0.attn2.to_k.weight", where);
        add(l, name, channels, context, 0);
        (void)snprintf(name, NAME, "%s.1.proj_in.weight", where);
        add(l, name, channels, channels, linear ? 0 : 1);
    }
}

static void add_unet(struct listing *l, int64_t context, int linear)
{
    static const int64_t channels[] = {320, 640, 1280, 1280};
    char where[NAME / 2];
    int64_t block = 1;
    add(l, "model.diffusion_model.input_blocks.0.0.weight", 320, 4, 3);
    add(l, "model.diffusion_model.out.2.weight", 4, 320, 3);
    for (int level = 0; level < 4; level++) {
        for (int i = 0; i < 2; i++) {
            (void)snprintf(where, sizeof(where), "model.diffusion_model.input_blocks.%d",
                           (int)block++);
            add_block(l, where, channels[level], level < 3, context, linear);
        }
        if (level < 3) {
            (void)snprintf(where, sizeof(where),
                           "model.diffusion_model.input_blocks.%d.0.op.weight", (int)block++);
            add(l, where, channels[level], channels[level], 3);
        }
    }
    add_block(l, "model.diffusion_model.middle_block", 1280, 1, context, linear);
    for (int i = 0; i < 12; i++) {
        (void)snprintf(where, sizeof(where), "model.diffusion_model.output_blocks.%d", i);
        add_block(l, where, channels[3 - i / 3], i >= 3, context, linear);
    }
}

static void add_vae(struct listing *l)
{
    static const int64_t channels[] = {128, 256, 512, 512};
    char name[NAME];
    add(l, "first_stage_model.decoder.conv_in.weight", 512, 4, 3);
    add(l, "first_stage_model.decoder.conv_out.weight", 3, 128, 3);
    for (int level = 0; level < 4; level++) {
        for (int i = 0; i < 3; i++) {
            (void)snprintf(name, NAME, "first_stage_model.decoder.up.%d.block.%d.conv1.weight",
                           level, i);
            add(l, name, channels[level], channels[level], 3);
        }
    }
}

static void add_clip(struct listing *l, int layers)
{
    char name[NAME];
    add(l, "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", 49408, 768,
        0);
    add(l, "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight", 77, 768,
        0);
    for (int i = 0; i < layers; i++) {
        (void)snprintf(name, NAME,
                       "cond_stage_model.transformer.text_model.encoder.layers.%d.mlp.fc1.weight",
                       i);
        add(l, name, 3072, 768, 0);
    }
}

static void add_openclip(struct listing *l, int layers)
{
    char name[NAME];
    add(l, "cond_stage_model.model.token_embedding.weight", 49408, 1024, 0);
    add(l, "cond_stage_model.model.positional_embedding", 77, 1024, 0);
    for (int i = 0; i < layers; i++) {
        (void)snprintf(name, NAME,
                       "cond_stage_model.model.transformer.resblocks.%d.mlp.c_fc.weight", i);
        add(l, name, 4096, 1024, 0);
    }
}

/* The file: a header, and as many bytes as it promises, none of them written. */
static void listing_write(const struct listing *l, const char *path)
{
    uint64_t at = 0;
    char *text = NULL;
    size_t size = 0;
    FILE *header = open_memstream(&text, &size);
    FILE *file = fopen(path, "wb");
    assert_non_null(header);
    assert_non_null(file);
    (void)fputc('{', header);
    for (size_t i = 0; i < l->n; i++) {
        uint64_t bytes = 2;
        (void)fprintf(header, "%s\"%s\":{\"dtype\":\"F16\",\"shape\":[", i ? "," : "", l->names[i]);
        for (uint32_t k = 0; k < l->ranks[i]; k++) {
            (void)fprintf(header, "%s%lld", k ? "," : "", (long long)l->shapes[i][k]);
            bytes *= (uint64_t)l->shapes[i][k];
        }
        (void)fprintf(header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                      (unsigned long long)(at + bytes));
        at += bytes;
    }
    (void)fputc('}', header);
    assert_int_equal(fclose(header), 0);
    uint64_t length = size;
    assert_int_equal(fwrite(&length, sizeof(length), 1, file), 1);
    assert_int_equal(fwrite(text, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(truncate(path, (off_t)(8 + size + at)), 0);
    free(text);
}

/* Every key of `expected` has that value. */
static void expect_config(const struct checkpoint *c, enum model_part part, const char *expected)
{
    ATTN_ERROR_ON(err, 512);
    json_t *config = NULL;
    json_t *wanted = json_loads(expected, 0, NULL);
    const char *key;
    json_t *value;
    assert_non_null(wanted);
    assert_int_equal(checkpoint_config(c, part, &config, &err), ATTN_OK);
    json_object_foreach(wanted, key, value)
    {
        if (!json_equal(value, json_object_get(config, key))) {
            char *found = json_dumps(json_object_get(config, key), JSON_ENCODE_ANY);
            fail_msg("%s is %s", key, found ? found : "not set");
        }
    }
    json_decref(wanted);
    json_decref(config);
}

static attn_status listing_open(const struct listing *l, struct checkpoint **c, attn_error *err)
{
    char path[] = "/tmp/attnplug-shapes-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)close(fd);
    listing_write(l, path);
    const attn_status status = checkpoint_open(path, 0, c, err);
    (void)unlink(path);
    return status;
}

static struct checkpoint *recognise(const struct listing *l)
{
    ATTN_ERROR_ON(err, 512);
    struct checkpoint *c = NULL;
    if (listing_open(l, &c, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    return c;
}

#define UNET_OF_BOTH                                                                               \
    "\"in_channels\": 4, \"out_channels\": 4, \"block_out_channels\": [320, 640, 1280, 1280],"     \
    "\"down_block_types\": [\"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\","                   \
    " \"CrossAttnDownBlock2D\", \"DownBlock2D\"], \"up_block_types\": [\"UpBlock2D\","             \
    " \"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\"],"                    \
    "\"layers_per_block\": 2, \"class_embed_type\": null,"                                         \
    "\"transformer_layers_per_block\": [1, 1, 1, 1], "

#define VAE_OF_BOTH                                                                                \
    "{\"block_out_channels\": [128, 256, 512, 512], \"layers_per_block\": 2,"                      \
    "\"latent_channels\": 4, \"in_channels\": 3, \"out_channels\": 3, \"scaling_factor\": "        \
    "0.18215}"

static void stable_diffusion_1(void **state)
{
    struct listing *l = calloc(1, sizeof(*l));
    struct checkpoint *c;
    (void)state;
    assert_non_null(l);
    add_unet(l, 768, 0);
    add_vae(l);
    add_clip(l, 12);
    c = recognise(l);
    expect_config(c, PART_UNET,
                  "{" UNET_OF_BOTH "\"sample_size\": 64, \"cross_attention_dim\": 768,"
                  "\"attention_head_dim\": [8, 8, 8, 8], \"use_linear_projection\": false}");
    expect_config(c, PART_VAE, VAE_OF_BOTH);
    expect_config(c, PART_TEXT,
                  "{\"hidden_size\": 768, \"num_hidden_layers\": 12, \"num_attention_heads\": 12,"
                  "\"intermediate_size\": 3072, \"hidden_act\": \"quick_gelu\","
                  "\"vocab_size\": 49408, \"max_position_embeddings\": 77}");
    expect_config(c, PART_SCHEDULER,
                  "{\"prediction_type\": \"epsilon\", \"beta_start\": 0.00085, \"beta_end\": 0.012,"
                  "\"beta_schedule\": \"scaled_linear\", \"steps_offset\": 1,"
                  "\"set_alpha_to_one\": false, \"clip_sample\": false}");
    checkpoint_close(c);
    free(l);
}

/* With OpenCLIP's last layer in the file and without. */
static void stable_diffusion_2(void **state)
{
    (void)state;
    for (int layers = 23; layers <= 24; layers++) {
        struct listing *l = calloc(1, sizeof(*l));
        struct checkpoint *c;
        assert_non_null(l);
        add_unet(l, 1024, 1);
        add_vae(l);
        add_openclip(l, layers);
        c = recognise(l);
        expect_config(c, PART_UNET,
                      "{" UNET_OF_BOTH "\"sample_size\": 96, \"cross_attention_dim\": 1024,"
                      "\"attention_head_dim\": [5, 10, 20, 20], \"use_linear_projection\": true}");
        expect_config(c, PART_VAE, VAE_OF_BOTH);
        expect_config(c, PART_TEXT,
                      "{\"hidden_size\": 1024, \"num_hidden_layers\": 23,"
                      "\"num_attention_heads\": 16, \"intermediate_size\": 4096,"
                      "\"hidden_act\": \"gelu\", \"vocab_size\": 49408}");
        expect_config(c, PART_SCHEDULER, "{\"prediction_type\": \"v_prediction\"}");
        checkpoint_close(c);
        free(l);
    }
}

/* A text encoder that lacks what tells its sizes: named as that kind of file names it. */
static void text_encoders_incomplete(void **state)
{
    static const struct {
        int openclip;
        const char *without, *named;
    } cases[] = {
        {0, "token_embedding", "transformer.text_model.embeddings.token_embedding.weight"},
        {0, "position_embedding", "transformer.text_model.embeddings.position_embedding.weight"},
        {0, "mlp", "transformer.text_model.encoder.layers.0.mlp.fc1.weight"},
        {1, "token_embedding", "cond_stage_model.model.token_embedding.weight"},
        {1, "positional_embedding", "cond_stage_model.model.positional_embedding "},
        {1, "mlp", "cond_stage_model.model.transformer.resblocks.0.mlp.c_fc.weight"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        ATTN_ERROR_ON(err, 512);
        struct listing *l = calloc(1, sizeof(*l));
        struct checkpoint *c = NULL;
        assert_non_null(l);
        add_unet(l, 768, 0);
        add_vae(l);
        const size_t before = l->n;
        (cases[i].openclip ? add_openclip : add_clip)(l, 1);
        for (size_t k = before; k < l->n; k++) {
            if (strstr(l->names[k], cases[i].without)) {
                l->names[k][strlen(l->names[k]) - 1] = '_';
            }
        }
        assert_int_equal(listing_open(l, &c, &err), ATTN_NOT_FOUND);
        if (!strstr(err.text, cases[i].named)) {
            fail_msg("\"%s\" does not name %s", err.text, cases[i].named);
        }
        assert_null(c);
        free(l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stable_diffusion_1),
        cmocka_unit_test(stable_diffusion_2),
        cmocka_unit_test(text_encoders_incomplete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
