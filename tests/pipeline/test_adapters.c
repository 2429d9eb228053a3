/* Adapters in the whole pipeline, against diffusers' (tools/golden/adapters.py): LoRA in self-
 * attention guidance, new tokens in prompts; and what is refused.
 *
 * Arguments: the golden folder, the built-in model's folder, the folder of plugins. */
#include "golden.h"

#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attn_sag.h"
#include "tokenizer.h"

static const char *golden_folder, *demo_folder, *plugin_folder;
static attn_registry *registry;
static char scratch[] = "/tmp/attnplug-adapters-XXXXXX";

static int group_setup(void **state)
{
    (void)state;
    registry = plugins_open(plugin_folder);
    return registry && mkdtemp(scratch) ? 0 : -1;
}

static int group_teardown(void **state)
{
    (void)state;
    attn_registry_close(registry);
    return rmdir(scratch);
}

/* golden/<name>.safetensors */
static char *golden_file(const char *name)
{
    char *path = NULL;
    assert_true(asprintf(&path, "%s/%s.safetensors", golden_folder, name) > 0);
    return path;
}

static char *file_new(const char *name, const safetensors_tensor *tensors, size_t n,
                      const safetensors_text *texts, size_t n_texts)
{
    ATTN_ERROR_ON(err, 512);
    char *path = NULL;
    assert_true(asprintf(&path, "%s/%s", scratch, name) > 0);
    if (safetensors_write(path, tensors, n, texts, n_texts, &err)) {
        fail_msg("%s", err.text);
    }
    return path;
}

static void file_remove(char *path)
{
    (void)unlink(path);
    free(path);
}

static attn_sag *open_with(const char *model, const attn_sag_open_options *wanted)
{
    ATTN_ERROR_ON(err, 4096);
    char path[4096];
    attn_sag *sag = NULL;
    attn_sag_open_options o = *wanted;
    snprintf(path, sizeof path, "%s/models/%s", golden_folder, model);
    o.size = sizeof o;
    o.model = strcmp(model, "emoji-128") == 0 ? demo_folder : path;
    if (attn_sag_open(registry, &o, &sag, &err)) {
        fail_msg("%s", err.text);
    }
    return sag;
}

static void open_refused(const char *model, const attn_sag_open_options *wanted, attn_status status,
                         const char *named)
{
    ATTN_ERROR_ON(err, 4096);
    char path[4096];
    attn_sag *sag = NULL;
    attn_sag_open_options o = *wanted;
    snprintf(path, sizeof path, "%s/models/%s", golden_folder, model);
    o.size = sizeof o;
    o.model = strcmp(model, "emoji-128") == 0 ? demo_folder : path;
    assert_int_equal(attn_sag_open(registry, &o, &sag, &err), status);
    assert_null(sag);
    if (!strstr(err.text, named)) {
        fail_msg("\"%s\" does not have \"%s\"", err.text, named);
    }
}

/* -- LoRA -------------------------------------------------------------------------------------- */

static void guided_run(attn_sag *sag, const safetensors *golden, double lora_scale,
                       attn_sag_result *result)
{
    ATTN_ERROR_ON(err, 1024);
    json_t *s = json_loads(safetensors_metadata(golden, "settings"), 0, NULL);
    const attn_tensor embeds = tensor_view(golden_get(golden, "prompt_embeds"));
    const attn_tensor negative = tensor_view(golden_get(golden, "negative_prompt_embeds"));
    const attn_tensor masks = tensor_view(golden_get(golden, "mask"));
    assert_non_null(s);
    const uint64_t seed =
        (uint64_t)json_integer_value(json_array_get(json_object_get(s, "seed"), 0));
    const attn_param kwargs = {.name = "scale", .kind = ATTN_PARAM_FLOAT, .f = lora_scale};
    const attn_sag_run_options o = {
        .size = sizeof o,
        .flags = ATTN_SAG_SET_GUIDANCE | ATTN_SAG_SET_SAG,
        .prompt_embeds = &embeds,
        .negative_prompt_embeds = &negative,
        .height = (uint32_t)json_integer_value(json_object_get(s, "height")),
        .width = (uint32_t)json_integer_value(json_object_get(s, "width")),
        .num_inference_steps =
            (uint32_t)json_integer_value(json_object_get(s, "num_inference_steps")),
        .guidance_scale = json_number_value(json_object_get(s, "guidance_scale")),
        .sag_scale = json_number_value(json_object_get(s, "sag_scale")),
        .seeds = &seed,
        .n_seeds = 1,
        .sag_masks = &masks,
        .cross_attention_kwargs = &kwargs,
        .n_cross_attention_kwargs = 1};
    json_decref(s);
    if (attn_sag_run(sag, &o, result, &err)) {
        fail_msg("%s", err.text);
    }
}

static void result_check(const safetensors *golden, const attn_sag_result *result, const char *how)
{
    const safetensors_tensor *latents = golden_get(golden, "final_latents");
    const safetensors_tensor *image = golden_get(golden, "image");
    const uint8_t *want = image->data;
    const float *got = result->images.data;
    int largest = 0;
    double error = relative_l2(result->latents.data, latents->data, latents->bytes / sizeof(float));
    for (size_t i = 0; i < image->bytes; i++) {
        int d = abs((int)lrintf(got[i] * 255.0f) - want[i]);
        largest = d > largest ? d : largest;
    }
    print_message("sag with LoRA, %-28s latents %.2g, pixels %d/255\n", how, error, largest);
    assert_true(error <= 1e-4);
    assert_true(largest <= 2);
}

/* The stored run has LoRA at 0.8: by the file's scale, by the call's, and by both; and again after
 * a run with another. */
static void guidance_with_lora(void **state)
{
    char *file = golden_file("lora_tiny-sd1");
    safetensors *golden = golden_open(golden_folder, "adapters_sag_tiny-sd1");
    (void)state;
    for (int i = 0; i < 3; i++) {
        static const double scales[3][2] = {{0.8, 1.0}, {1.0, 0.8}, {-1.6, -0.5}};
        static const char *const how[] = {"scale of the file", "scale of the call", "both"};
        const attn_sag_lora lora = {.file = file, .scale = scales[i][0]};
        attn_sag *sag =
            open_with("tiny-sd1", &(const attn_sag_open_options){.loras = &lora, .n_loras = 1});
        attn_sag_result result = {.size = sizeof result};
        guided_run(sag, golden, 0.1, &result);
        attn_sag_result_free(&result);
        result = (attn_sag_result){.size = sizeof result};
        guided_run(sag, golden, scales[i][1], &result);
        result_check(golden, &result, how[i]);
        attn_sag_result_free(&result);
        attn_sag_close(sag);
    }
    safetensors_close(golden);
    free(file);
}

/* Under whatever processor a layer has. */
static void lora_under_any_processor(void **state)
{
    static const char *const names[] = {"AttnProcessor",
                                        "SlicedAttnProcessor",
                                        "XFormersAttnProcessor",
                                        "lora",
                                        "CustomDiffusionAttnProcessor2_0",
                                        "lora+standard"};
    char *file = golden_file("lora_tiny-sd1");
    safetensors *golden = golden_open(golden_folder, "adapters_sag_tiny-sd1");
    const attn_sag_lora lora = {.file = file, .scale = 0.8};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const attn_param slices = {.name = "slice_size", .kind = ATTN_PARAM_INT, .i = 2};
        const int sliced = strncmp(names[i], "Sliced", 6) == 0;
        const attn_sag_processor p = {.spec = {.size = sizeof p.spec,
                                               .processor = names[i],
                                               .params = sliced ? &slices : NULL,
                                               .n_params = (uint32_t)sliced}};
        attn_sag *sag = open_with(
            "tiny-sd1", &(const attn_sag_open_options){
                            .loras = &lora, .n_loras = 1, .processors = &p, .n_processors = 1});
        attn_sag_result result = {.size = sizeof result};
        guided_run(sag, golden, 1.0, &result);
        result_check(golden, &result, names[i]);
        attn_sag_result_free(&result);
        attn_sag_close(sag);
    }
    safetensors_close(golden);
    free(file);
}

/* A processor that packs its weights would lose the terms. */
static void packed_weights_are_refused(void **state)
{
    char *file = golden_file("lora_tiny-sd1");
    const attn_sag_lora lora = {.file = file, .scale = 1};
    const attn_sag_processor p = {.spec = {.size = sizeof p.spec, .processor = "fused"}};
    (void)state;
    open_refused("tiny-sd1",
                 &(const attn_sag_open_options){
                     .loras = &lora, .n_loras = 1, .processors = &p, .n_processors = 1},
                 ATTN_UNSUPPORTED, "low-rank terms");
    free(file);
}

static void log_keep(void *ctx, int32_t level, const char *text)
{
    (void)level;
    text_append(ctx, 4096, text);
}

static void lora_that_does_not_fit(void **state)
{
    static const float zeros[64];
    char log[4096] = "";
    char *file = golden_file("lora_tiny-sd1");
    attn_sag_lora lora = {.file = file, .scale = 1};
    attn_sag_open_options o = {.loras = &lora, .n_loras = 1};
    (void)state;
    /* 28 in place of 20 */
    open_refused("tiny-sd2", &o, ATTN_UNSUPPORTED, "prompt embeddings of 20");
    const safetensors_tensor unknown[] = {
        {.name = "unet.mid_block.nothing.lora_A.weight",
         .dtype = {2, 32},
         .rank = 2,
         .shape = {2, 8},
         .data = zeros},
        {.name = "unet.mid_block.nothing.lora_B.weight",
         .dtype = {2, 32},
         .rank = 2,
         .shape = {8, 2},
         .data = zeros},
    };
    char *made = file_new("unknown.safetensors", unknown, 2, NULL, 0);
    lora.file = made;
    open_refused("tiny-sd1", &o, ATTN_INVALID, "unet.mid_block.nothing.lora_A.weight");
    open_refused("tiny-sd1", &o, ATTN_INVALID, "unet.mid_block.nothing.lora_B.weight");
    o.flags = ATTN_SAG_LORA_IGNORE_UNKNOWN;
    o.log = log_keep;
    o.log_ctx = log;
    attn_sag_close(open_with("tiny-sd1", &o));
    assert_non_null(strstr(log, "2 of its 2 tensors fit nothing"));
    file_remove(made);
    free(file);
}

/* -- textual inversion ------------------------------------------------------------------------- */

static const char *const tokens[] = {"<cat-toy>", "<new1>", "style.of.me"};
enum { TOKENS = sizeof tokens / sizeof *tokens, MOST_PROMPTS = 16 };

/* Each token as a file of one of the three forms. */
static char *token_file(const safetensors *golden, int i)
{
    char name[64];
    safetensors_tensor t = *golden_get(golden, "%s", tokens[i]);
    const int32_t code = 265;
    const safetensors_text metadata = {"name", tokens[i]};
    const safetensors_tensor both[] = {
        t, {.name = "string_to_token.*", .dtype = {0, 32}, .rank = 0, .data = &code}};
    safetensors_tensor pair[2] = {both[0], both[1]};
    switch (i) {
    case 0:
        return file_new("diffusers.safetensors", &t, 1, NULL, 0);
    case 1:
        pair[0].name = "string_to_param.*";
        return file_new("a1111.safetensors", pair, 2, &metadata, 1);
    default:
        snprintf(name, sizeof name, "%s.safetensors", tokens[i]);
        t.name = "emb_params";
        return file_new(name, &t, 1, NULL, 0);
    }
}

static void prompts_with_new_tokens(void **state)
{
    ATTN_ERROR_ON(err, 1024);
    safetensors *golden = golden_open(golden_folder, "inversion_emoji-128");
    const safetensors_tensor *states = golden_get(golden, "states");
    json_t *texts = json_loads(safetensors_metadata(golden, "prompts"), 0, NULL);
    const char *prompts[MOST_PROMPTS];
    attn_sag_inversion inversions[TOKENS] = {0};
    char *files[TOKENS];
    attn_tensor embeds;
    (void)state;
    for (int i = 0; i < TOKENS; i++) {
        files[i] = token_file(golden, i);
        inversions[i].file = files[i];
    }
    const uint32_t n = (uint32_t)states->shape[0];
    for (uint32_t i = 0; i < n; i++) {
        prompts[i] = json_string_value(json_array_get(texts, i));
    }
    attn_sag *sag = open_with("emoji-128", &(const attn_sag_open_options){.inversions = inversions,
                                                                          .n_inversions = TOKENS});
    if (attn_sag_encode(sag, prompts, n, 0, &embeds, NULL, 0, &err)) {
        fail_msg("%s", err.text);
    }
    const size_t part = (size_t)(states->shape[1] * states->shape[2]);
    for (uint32_t i = 0; i < n; i++) {
        const float *got =
            (const float *)embeds.data + (size_t)i * (size_t)(embeds.shape[1] * embeds.shape[2]);
        double error = relative_l2(got, (const float *)states->data + i * part, part);
        print_message("%-32s %.2g\n", prompts[i], error);
        assert_true(error <= 1e-5);
    }
    attn_sag_embeds_free(&embeds);
    attn_sag_close(sag);
    for (int i = 0; i < TOKENS; i++) {
        file_remove(files[i]);
    }
    json_decref(texts);
    safetensors_close(golden);
}

/* The ids of every prompt, without a model. */
static void ids_of_new_tokens(void **state)
{
    ATTN_ERROR_ON(err, 512);
    safetensors *golden = golden_open(golden_folder, "inversion_emoji-128");
    const safetensors_tensor *stored = golden_get(golden, "ids");
    json_t *texts = json_loads(safetensors_metadata(golden, "prompts"), 0, NULL);
    char folder[4096];
    tokenizer *t = NULL;
    int32_t ids[77];
    (void)state;
    snprintf(folder, sizeof folder, "%s/tokenizer", demo_folder);
    assert_int_equal(tokenizer_open(folder, &t, &err), ATTN_OK);
    int32_t next = tokenizer_highest_id(t) + 1;
    for (int i = 0; i < TOKENS; i++) {
        const safetensors_tensor *v = golden_get(golden, "%s", tokens[i]);
        const int32_t count = v->rank == 2 ? (int32_t)v->shape[0] : 1;
        assert_int_equal(tokenizer_add(t, tokens[i], next, count, &err), ATTN_OK);
        next += count;
    }
    assert_int_equal(tokenizer_highest_id(t), next - 1);
    assert_int_equal(stored->shape[0], json_array_size(texts));
    for (size_t i = 0; i < json_array_size(texts); i++) {
        const char *text = json_string_value(json_array_get(texts, i));
        char *cut = NULL;
        assert_int_equal(tokenizer_encode(t, text, ids, &cut, &err), ATTN_OK);
        free(cut);
        if (memcmp(ids, (const int32_t *)stored->data + i * 77, sizeof ids) != 0) {
            for (int k = 0; k < 77; k++) {
                print_message("%d/%d ", ids[k],
                              ((const int32_t *)stored->data)[i * 77 + (size_t)k]);
            }
            fail_msg("ids of \"%s\"", text);
        }
    }
    /* A name twice, or one that a longer one has as its second vector. */
    assert_int_equal(tokenizer_add(t, "<new1>", next, 1, &err), ATTN_INVALID);
    assert_int_equal(tokenizer_add(t, "<cat-toy>_2", next, 1, &err), ATTN_INVALID);
    assert_int_equal(tokenizer_add(t, "heart</w>", next, 1, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "in the tokenizer's vocabulary already"));
    tokenizer_close(t);
    json_decref(texts);
    safetensors_close(golden);
}

/* Another name than the file's, and a file that is wrong. */
static void inversions_refused(void **state)
{
    static const float zeros[512];
    safetensors_tensor t = {
        .name = "<x>", .dtype = {2, 32}, .rank = 2, .shape = {1, 192}, .data = zeros};
    attn_sag_inversion inversion = {0};
    const attn_sag_open_options o = {.inversions = &inversion, .n_inversions = 1};
    safetensors_tensor two[] = {t, t};
    struct {
        const char *name;
        int64_t rank, rows, width;
        safetensors_dtype dtype;
        attn_status status;
        const char *named;
    } wrong[] = {
        {"<x>", 2, 1, 100, {2, 32}, ATTN_UNSUPPORTED, "prompt embeddings of 100"},
        {"<x>", 3, 1, 192, {2, 32}, ATTN_INVALID, "rank 3"},
        {"<x>", 2, 0, 192, {2, 32}, ATTN_INVALID, "0 vectors"},
        {"<x>", 2, 1, 192, {0, 32}, ATTN_INVALID, "I32"},
        {"a b", 2, 1, 192, {2, 32}, ATTN_INVALID, "a space"},
        {"heart</w>", 2, 1, 192, {2, 32}, ATTN_INVALID, "already"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        t.name = wrong[i].name;
        t.rank = (uint32_t)wrong[i].rank;
        t.dtype = wrong[i].dtype;
        t.shape[0] = wrong[i].rows;
        t.shape[1] = wrong[i].width;
        t.shape[2] = 1;
        char *file = file_new("wrong.safetensors", &t, 1, NULL, 0);
        inversion.file = file;
        open_refused("emoji-128", &o, wrong[i].status, wrong[i].named);
        file_remove(file);
    }
    two[1].name = "<y>";
    char *file = file_new("two.safetensors", two, 2, NULL, 0);
    inversion.file = file;
    open_refused("emoji-128", &o, ATTN_INVALID, "both <x> and <y>");
    file_remove(file);
    two[0].name = "clip_g";
    two[1].name = "clip_l";
    file = file_new("xl.safetensors", two, 2, NULL, 0);
    inversion.file = file;
    open_refused("emoji-128", &o, ATTN_UNSUPPORTED, "Stable Diffusion XL");
    file_remove(file);
    file = file_new("one.safetensors", two, 1, NULL, 0);
    inversion.file = file;
    open_refused("tiny-sd1", &o, ATTN_INVALID, "needs a model with a tokenizer");
    inversion.token = "<mine>";
    attn_sag_close(open_with("emoji-128", &o));
    file_remove(file);
    inversion.file = "/no/such/file";
    open_refused("emoji-128", &o, ATTN_NOT_FOUND, "/no/such/file");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guidance_with_lora),         cmocka_unit_test(lora_under_any_processor),
        cmocka_unit_test(packed_weights_are_refused), cmocka_unit_test(lora_that_does_not_fit),
        cmocka_unit_test(ids_of_new_tokens),          cmocka_unit_test(prompts_with_new_tokens),
        cmocka_unit_test(inversions_refused),
    };
    assert_int_equal(argc, 4);
    golden_folder = argv[1];
    demo_folder = argv[2];
    plugin_folder = argv[3];
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
