/* What is wrong with a model folder or a request is said by name, and leaves the pipeline usable.
 *
 * Arguments: the built-in model's folder, the folder of plugins. */
#include "golden.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attn_sag.h"

static char *demo_folder;
static char *plugin_folder;
static attn_registry *registry;
static attn_sag *shared; /* the built-in model, for requests */

/* A model folder whose parts are links into the built-in one, until a test replaces some. */
static char scratch[] = "/tmp/attnplug-model-XXXXXX";
static const char *const parts[] = {"tokenizer", "text_encoder", "unet", "vae", "scheduler"};
enum { PARTS = sizeof parts / sizeof *parts };

static void path_of(char *path, size_t size, const char *folder, const char *part, const char *file)
{
    snprintf(path, size, "%s/%s%s%s", folder, part, file ? "/" : "", file ? file : "");
}

static void part_remove(const char *part)
{
    char path[512];
    path_of(path, sizeof path, scratch, part, NULL);
    DIR *folder = NULL;
    struct stat info;
    if (lstat(path, &info) == 0 && S_ISDIR(info.st_mode) && (folder = opendir(path))) {
        for (struct dirent *e; (e = readdir(folder));) {
            char file[1024];
            path_of(file, sizeof file, path, e->d_name, NULL);
            unlink(file);
        }
        closedir(folder);
        rmdir(path);
    }
    unlink(path);
}

static void part_link(const char *part)
{
    char from[512];
    char to[512];
    part_remove(part);
    path_of(from, sizeof from, demo_folder, part, NULL);
    path_of(to, sizeof to, scratch, part, NULL);
    assert_int_equal(symlink(from, to), 0);
}

/* Replaces a part by a real folder of links to its files, but for `file`, which gets `text`
 * (NULL: is missing). */
static void part_spoil(const char *part, const char *file, const char *text, size_t bytes)
{
    char from[512];
    char path[512];
    part_remove(part);
    path_of(path, sizeof path, scratch, part, NULL);
    assert_int_equal(mkdir(path, 0700), 0);
    path_of(from, sizeof from, demo_folder, part, NULL);
    DIR *folder = opendir(from);
    assert_non_null(folder);
    for (struct dirent *e; (e = readdir(folder));) {
        char source[1024];
        char target[1024];
        path_of(source, sizeof source, from, e->d_name, NULL);
        path_of(target, sizeof target, path, e->d_name, NULL);
        if (e->d_name[0] != '.' && strcmp(e->d_name, file) != 0) {
            assert_int_equal(symlink(source, target), 0);
        }
    }
    closedir(folder);
    if (text) {
        char target[1024];
        path_of(target, sizeof target, path, file, NULL);
        FILE *out = fopen(target, "wb");
        assert_non_null(out);
        assert_int_equal(fwrite(text, 1, bytes, out), bytes);
        assert_int_equal(fclose(out), 0);
    }
}

/* A file of the built-in model, NUL-terminated; the caller's to free. */
static char *part_read(const char *part, const char *file, size_t *bytes)
{
    char folder[512];
    char path[1024];
    path_of(folder, sizeof folder, demo_folder, part, NULL);
    path_of(path, sizeof path, folder, file, NULL);
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    fseek(in, 0, SEEK_END);
    *bytes = (size_t)ftell(in);
    rewind(in);
    char *text = malloc(*bytes + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, *bytes, in), *bytes);
    text[*bytes] = 0;
    fclose(in);
    return text;
}

/* Replaces `from` by `to` in a part's JSON file. */
static void part_edit(const char *part, const char *file, const char *from, const char *to)
{
    size_t bytes;
    char *text = part_read(part, file, &bytes);
    char *at = strstr(text, from);
    char *edited = NULL;
    assert_non_null(at);
    *at = 0;
    int n = asprintf(&edited, "%s%s%s", text, to, at + strlen(from));
    assert_true(n > 0);
    part_spoil(part, file, edited, (size_t)n);
    free(edited);
    free(text);
}

static attn_sag_open_options open_options(const char *model)
{
    return (attn_sag_open_options){.size = sizeof(attn_sag_open_options), .model = model};
}

static void open_refused(const attn_sag_open_options *options, attn_status status,
                         const char *first, const char *second)
{
    ATTN_ERROR_ON(err, 2048);
    attn_sag *sag = NULL;
    attn_status got = attn_sag_open(registry, options, &sag, &err);
    if (got != status || !strstr(err.text, first) || !strstr(err.text, second) ||
        strchr(err.text, '\n')) {
        fail_msg("status %d, \"%s\"; expected %d, \"%s\", \"%s\"", got, err.text, status, first,
                 second);
    }
    assert_null(sag);
}

static void folder_refused(attn_status status, const char *first, const char *second)
{
    attn_sag_open_options options = open_options(scratch);
    open_refused(&options, status, first, second);
    for (int i = 0; i < PARTS; i++) {
        part_link(parts[i]);
    }
}

static int suite_setup(void **state)
{
    ATTN_ERROR_ON(err, 1024);
    attn_sag_open_options model = open_options(demo_folder);
    (void)state;
    for (int i = 0; i < PARTS; i++) {
        part_link(parts[i]);
    }
    registry = plugins_open(plugin_folder);
    if (!registry || attn_sag_open(registry, &model, &shared, &err)) {
        print_error("%s\n", err.text);
        return -1;
    }
    return 0;
}

static int suite_teardown(void **state)
{
    (void)state;
    attn_sag_close(shared);
    attn_registry_close(registry);
    for (int i = 0; i < PARTS; i++) {
        part_remove(parts[i]);
    }
    return 0;
}

static void test_folders(void **state)
{
    attn_sag_open_options o = open_options("/tmp/attnplug-no-such-folder/model");
    (void)state;
    open_refused(&o, ATTN_NOT_FOUND, "/tmp/attnplug-no-such-folder/model",
                 "expected a model's folder");
    o.model = "/dev/null";
    open_refused(&o, ATTN_INVALID, "/dev/null", "not a regular file");
    char pipe[512]; /* that nobody writes to */
    path_of(pipe, sizeof pipe, scratch, "model.safetensors", NULL);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    o.model = pipe;
    open_refused(&o, ATTN_INVALID, pipe, "not a regular file");
    unlink(pipe);
    o.model = NULL;
    open_refused(&o, ATTN_INVALID, "model", "none given");
    o = open_options(demo_folder);
    o.device = "tpu";
    open_refused(&o, ATTN_UNSUPPORTED, "device: tpu", "cpu");
    o = open_options(demo_folder);
    o.dtype = "f8";
    open_refused(&o, ATTN_UNSUPPORTED, "dtype: f8", "f32");
    o = open_options(demo_folder);
    o.scheduler = "NoScheduler";
    open_refused(&o, ATTN_UNSUPPORTED, "NoScheduler", "DDIMScheduler");
}

static void test_missing_files(void **state)
{
    static const char *const files[][2] = {
        {"tokenizer", "vocab.json"},
        {"tokenizer", "merges.txt"},
        {"text_encoder", "config.json"},
        {"text_encoder", "model.safetensors"},
        {"unet", "config.json"},
        {"unet", "diffusion_pytorch_model.safetensors"},
        {"vae", "config.json"},
        {"vae", "diffusion_pytorch_model.safetensors"},
        {"scheduler", "scheduler_config.json"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        part_spoil(files[i][0], files[i][1], NULL, 0);
        folder_refused(ATTN_NOT_FOUND, files[i][0], files[i][1]);
    }
}

static void test_broken_files(void **state)
{
    static const char lie[] = "\xff\xff\xff\xff\xff\xff\xff\x7f{}";
    size_t bytes;
    (void)state;
    part_spoil("unet", "config.json", "{\"a\": ", 6);
    folder_refused(ATTN_INVALID, "unet/config.json", "line 1");
    part_spoil("scheduler", "scheduler_config.json", "[]", 2);
    folder_refused(ATTN_INVALID, "scheduler_config.json", "JSON object");
    part_spoil("vae", "diffusion_pytorch_model.safetensors", lie, sizeof lie - 1);
    folder_refused(ATTN_INVALID, "vae/diffusion_pytorch_model.safetensors", "header");
    char *weights = part_read("unet", "diffusion_pytorch_model.safetensors", &bytes);
    part_spoil("unet", "diffusion_pytorch_model.safetensors", weights, bytes / 2);
    free(weights);
    folder_refused(ATTN_INVALID, "unet/diffusion_pytorch_model.safetensors", "cut short");
}

static void test_foreign_settings(void **state)
{
    (void)state;
    part_edit("scheduler", "scheduler_config.json", "DDIMScheduler", "LCMScheduler");
    folder_refused(ATTN_UNSUPPORTED, "LCMScheduler", "DDIMScheduler");
    part_edit("unet", "config.json", "CrossAttnDownBlock2D", "SkipDownBlock2D");
    folder_refused(ATTN_UNSUPPORTED, "SkipDownBlock2D", "config.json");
    part_edit("unet", "config.json", "\"cross_attention_dim\": 192",
              "\"cross_attention_dim\": 200");
    folder_refused(ATTN_INVALID, "200", "192");
    part_edit("text_encoder", "config.json", "\"hidden_size\": 192", "\"hidden_size\": 196");
    folder_refused(ATTN_INVALID, "196", "192");
    part_edit("tokenizer", "tokenizer_config.json", "\"model_max_length\": 77",
              "\"model_max_length\": 78");
    folder_refused(ATTN_INVALID, "78", "77");
}

static void test_processors(void **state)
{
    attn_sag_processor p = {.glob = "*.attn9",
                            .spec = {.size = sizeof p.spec, .processor = "standard"}};
    attn_sag_open_options o = open_options(demo_folder);
    (void)state;
    o.processors = &p;
    o.n_processors = 1;
    open_refused(&o, ATTN_NOT_FOUND, "*.attn9", "no attention layer");
    p.glob = "*.attn1";
    p.spec.processor = "standart";
    ATTN_ERROR_ON(err, 2048);
    attn_sag *sag = NULL;
    assert_int_not_equal(attn_sag_open(registry, &o, &sag, &err), ATTN_OK);
    assert_non_null(strstr(err.text, "standart"));
    assert_null(sag);
}

static attn_sag_run_options good_request(void)
{
    static const char *const prompts[] = {"red heart"};
    return (attn_sag_run_options){.size = sizeof(attn_sag_run_options),
                                  .prompts = prompts,
                                  .n_prompts = 1,
                                  .height = 32,
                                  .width = 48,
                                  .num_inference_steps = 2};
}

/* A registry on a folder that has every plugin but one. */
static attn_registry *registry_without(const char *missing, char *folder)
{
    DIR *all = opendir(plugin_folder);
    assert_true(all && mkdtemp(folder));
    for (struct dirent *e; (e = readdir(all));) {
        char from[1024];
        char to[1024];
        path_of(from, sizeof from, plugin_folder, e->d_name, NULL);
        path_of(to, sizeof to, folder, e->d_name, NULL);
        if (e->d_name[0] != '.' && strcmp(e->d_name, missing) != 0) {
            assert_int_equal(symlink(from, to), 0);
        }
    }
    closedir(all);
    attn_registry *some = plugins_open(folder);
    assert_non_null(some);
    return some;
}

static void folder_clear(const char *path)
{
    DIR *folder = opendir(path);
    assert_non_null(folder);
    for (struct dirent *e; (e = readdir(folder));) {
        char file[1024];
        path_of(file, sizeof file, path, e->d_name, NULL);
        unlink(file);
    }
    closedir(folder);
    rmdir(path);
}

/* Nothing computes attention outside a plugin: with a file gone there is no picture. */
static void test_plugin_gone(void **state)
{
    static const struct {
        const char *file, *op;
    } cases[] = {
        {"standard.so", NULL}, {"math.so", "math"}, {"memory_efficient.so", "memory_efficient"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ATTN_ERROR_ON(err, 2048);
        char folder[] = "/tmp/attnplug-plugins-XXXXXX";
        attn_registry *some = registry_without(cases[i].file, folder);
        attn_sag_open_options o = open_options(demo_folder);
        attn_sag_run_options request = good_request();
        attn_sag_result result = {.size = sizeof result};
        attn_sag *sag = NULL;
        o.op = cases[i].op;
        attn_status status = attn_sag_open(some, &o, &sag, &err);
        if (!status) {
            status = attn_sag_run(sag, &request, &result, &err);
        }
        if (!status || !strstr(err.text, cases[i].file)) {
            fail_msg("without %s: status %d, \"%s\"", cases[i].file, status, err.text);
        }
        attn_sag_close(sag);
        attn_registry_close(some);
        folder_clear(folder);
    }
}

static void run_refused(const attn_sag_run_options *o, attn_status status, const char *first,
                        const char *second)
{
    ATTN_ERROR_ON(err, 1024);
    attn_sag_result result = {.size = sizeof result};
    attn_status got = attn_sag_run(shared, o, &result, &err);
    if (got != status || !strstr(err.text, first) || !strstr(err.text, second) ||
        strchr(err.text, '\n')) {
        fail_msg("status %d, \"%s\"; expected %d, \"%s\", \"%s\"", got, err.text, status, first,
                 second);
    }
    assert_null(result.owner);
    attn_sag_result_free(&result);
}

static void test_prompts(void **state)
{
    static const char *const bad[] = {"red \xff heart"};
    static const char *const two[] = {"a", "b"};
    attn_sag_run_options o = good_request();
    (void)state;
    o.n_prompts = 0;
    run_refused(&o, ATTN_INVALID, "prompt", "at least one");
    o = good_request();
    o.prompts = bad;
    run_refused(&o, ATTN_INVALID, "UTF-8", "offset 4");
    o = good_request();
    o.negative_prompts = bad;
    o.n_negative = 1;
    run_refused(&o, ATTN_INVALID, "UTF-8", "offset 4");
    o.negative_prompts = two;
    o.n_negative = 2;
    run_refused(&o, ATTN_INVALID, "negative_prompt: 2", "expected none, 1 or 1");
}

static void test_numbers(void **state)
{
    const uint64_t seeds[2] = {1, 2};
    attn_sag_run_options o = good_request();
    (void)state;
    o.flags = ATTN_SAG_SET_GUIDANCE;
    o.guidance_scale = NAN;
    run_refused(&o, ATTN_INVALID, "guidance_scale", "nan");
    o = good_request();
    o.flags = ATTN_SAG_SET_SAG;
    o.sag_scale = INFINITY;
    run_refused(&o, ATTN_INVALID, "sag_scale", "inf");
    o = good_request();
    o.eta = 1.5;
    run_refused(&o, ATTN_INVALID, "eta: 1.5", "0 to 1");
    o = good_request();
    o.width = 130;
    run_refused(&o, ATTN_INVALID, "width: 130", "multiple of");
    o = good_request();
    o.height = 16;
    run_refused(&o, ATTN_INVALID, "height: 16", "self-attention guidance");
    o = good_request();
    o.height = 4000000000u;
    run_refused(&o, ATTN_INVALID, "height: 4000000000", "up to");
    o = good_request();
    o.num_inference_steps = 1001;
    run_refused(&o, ATTN_INVALID, "num_inference_steps: 1001", "1000");
    o = good_request();
    o.num_images_per_prompt = 4000000000u;
    run_refused(&o, ATTN_INVALID, "num_images_per_prompt", "at most");
    o = good_request();
    o.num_images_per_prompt = 65536;
    o.height = o.width = 524288;
    run_refused(&o, ATTN_INVALID, "65536 pictures of 524288 x 524288", "more latents");
    o = good_request();
    o.seeds = seeds;
    o.n_seeds = 2;
    run_refused(&o, ATTN_INVALID, "seed: 2", "expected 1 or 1");
}

static void test_tensors(void **state)
{
    float data[16] = {0};
    attn_tensor t = {.data = data,
                     .shape = {1, 4, 2, 2},
                     .stride = {16, 4, 2, 1},
                     .device_type = ATTN_DEVICE_CPU,
                     .code = ATTN_CODE_FLOAT,
                     .bits = 32,
                     .lanes = 1,
                     .rank = 4};
    attn_sag_run_options o = good_request();
    (void)state;
    o.latents = &t;
    run_refused(&o, ATTN_INVALID, "latents: [1, 4, 2, 2]", "expected [1, 4, 8, 12]");
    t.bits = 16;
    run_refused(&o, ATTN_INVALID, "latents", "f32");
    t.bits = 32;
    t.rank = 3;
    run_refused(&o, ATTN_INVALID, "latents", "rank 4");
    o = good_request();
    o.prompt_embeds = &t;
    run_refused(&o, ATTN_INVALID, "prompt and prompt_embeds", "one of them");
    o.prompts = NULL;
    o.n_prompts = 0;
    run_refused(&o, ATTN_INVALID, "prompt_embeds: [1, 4, 2]", "192");
    /* sizes whose products have more than 64 bits, by strides of 0 */
    attn_tensor wide = {.data = data,
                        .shape = {1, INT64_C(1) << 60, 192},
                        .device_type = ATTN_DEVICE_CPU,
                        .code = ATTN_CODE_FLOAT,
                        .bits = 32,
                        .lanes = 1,
                        .rank = 3};
    o.prompt_embeds = &wide;
    run_refused(&o, ATTN_INVALID, "prompt_embeds: [1, 1152921504606846976, 192]", "tokens");
    wide.shape[0] = INT64_C(1) << 60;
    wide.shape[1] = 77;
    o.num_images_per_prompt = 16;
    run_refused(&o, ATTN_INVALID, "1152921504606846976 prompts", "at most 65536");
    o = good_request();
    o.height = o.width = 0;
    wide.shape[0] = 1;
    wide.shape[1] = 4;
    wide.shape[2] = wide.shape[3] = INT64_MAX;
    wide.rank = 4;
    o.latents = &wide;
    run_refused(&o, ATTN_INVALID, "height: 9223372036854775807", "up to 524288");
    o = good_request();
    o.negative_prompt_embeds = &t;
    run_refused(&o, ATTN_INVALID, "negative_prompt_embeds: [1, 4, 2]", "[1, 77, 192]");
    o = good_request();
    o.sag_masks = &t;
    run_refused(&o, ATTN_INVALID, "sag_masks", "bytes [2, 1,");
}

static int32_t stop_at_once(void *ctx, uint32_t step, uint32_t n_steps, float timestep,
                            const attn_tensor *latents)
{
    (void)n_steps;
    (void)timestep;
    assert_int_equal(latents->rank, 4);
    assert_int_equal(step, 0);
    ++*(int *)ctx;
    return 1;
}

static int32_t cancel_from_outside(void *ctx, uint32_t step, uint32_t n_steps, float timestep,
                                   const attn_tensor *latents)
{
    (void)step;
    (void)n_steps;
    (void)timestep;
    (void)latents;
    ++*(int *)ctx;
    attn_sag_cancel(shared);
    return 0;
}

static void test_cancel(void **state)
{
    int calls = 0;
    attn_sag_run_options o = good_request();
    (void)state;
    o.callback = stop_at_once;
    o.callback_ctx = &calls;
    run_refused(&o, ATTN_CANCELLED, "after 1 of 2 steps", "");
    assert_int_equal(calls, 1);
    o.callback = cancel_from_outside;
    run_refused(&o, ATTN_CANCELLED, "after 1 of 2 steps", "");
    assert_int_equal(calls, 2);
}

/* As a decoder in halves does whose activations leave their range. */
static void test_decoder_of_nan(void **state)
{
    static const char file[] = "diffusion_pytorch_model.safetensors";
    ATTN_ERROR_ON(err, 1024);
    char path[512];
    safetensors *weights = NULL;
    attn_sag *sag = NULL;
    attn_sag_result result = {.size = sizeof result};
    attn_sag_run_options request = good_request();
    const attn_sag_open_options o = open_options(scratch);
    size_t bytes;
    (void)state;
    path_of(path, sizeof path, demo_folder, "vae", file);
    assert_int_equal(safetensors_open(path, &weights, &err), ATTN_OK);
    const safetensors_tensor *bias = golden_get(weights, "decoder.conv_out.bias");
    char *text = part_read("vae", file, &bytes);
    char *at = memmem(text, bytes, bias->data, bias->bytes);
    assert_non_null(at);
    memcpy(at, &(const float){NAN}, sizeof(float));
    part_spoil("vae", file, text, bytes);
    assert_int_equal(attn_sag_open(registry, &o, &sag, &err), ATTN_OK);
    assert_int_equal(attn_sag_run(sag, &request, &result, &err), ATTN_INTERNAL);
    assert_non_null(strstr(err.text, "the decoder's pixels are not numbers"));
    assert_null(result.owner);
    request.output_type = "latent";
    assert_int_equal(attn_sag_run(sag, &request, &result, &err), ATTN_OK);
    attn_sag_result_free(&result);
    attn_sag_close(sag);
    free(text);
    safetensors_close(weights);
    part_link("vae");
}

/* After all that was refused the pipeline still draws, and says what a long prompt lost. */
static void test_long_prompt(void **state)
{
    ATTN_ERROR_ON(err, 1024);
    char prompt[1024] = "";
    const char *const prompts[] = {prompt};
    attn_sag_result result = {.size = sizeof result};
    attn_sag_run_options o = good_request();
    (void)state;
    for (int i = 0; i < 40; i++) {
        text_append(prompt, sizeof prompt, "red heart ");
    }
    text_append(prompt, sizeof prompt, "rocket");
    o.prompts = prompts;
    o.output_type = "latent";
    assert_int_equal(attn_sag_run(shared, &o, &result, &err), ATTN_OK);
    assert_non_null(strstr(result.warning, "77 tokens"));
    assert_non_null(strstr(result.warning, "red heart rocket\""));
    assert_int_equal(result.images.rank, 0);
    assert_int_equal(result.latents.shape[2], 8);
    attn_sag_result_free(&result);
    attn_sag_result_free(&result);
    attn_sag_result_free(NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_folders),        cmocka_unit_test(test_missing_files),
        cmocka_unit_test(test_broken_files),   cmocka_unit_test(test_foreign_settings),
        cmocka_unit_test(test_processors),     cmocka_unit_test(test_plugin_gone),
        cmocka_unit_test(test_prompts),        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_tensors),        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_decoder_of_nan), cmocka_unit_test(test_long_prompt),
    };
    /* Whole paths, since the tests link to them. */
    demo_folder = argc == 3 ? realpath(argv[1], NULL) : NULL;
    plugin_folder = argc == 3 ? realpath(argv[2], NULL) : NULL;
    if (!demo_folder || !plugin_folder || !mkdtemp(scratch)) {
        return 2;
    }
    int failures = cmocka_run_group_tests(tests, suite_setup, suite_teardown);
    rmdir(scratch);
    free(demo_folder);
    free(plugin_folder);
    return failures;
}
