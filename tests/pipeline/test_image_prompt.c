/* Pictures as prompts, and pictures that are kept back: whole pipelines on tiny-sd1 with the parts
 * of tiny-image, against diffusers 0.26.3.
 *
 * Arguments: the folder of stored references, that of plugins. */
#include "golden.h"

#include <jansson.h>
#include <unistd.h>

#include "attn_sag.h"
#include "image_processor.h"
#include "safety_checker.h"

static const char *golden_folder;
static const char *plugin_folder;
static attn_registry *registry;

/* tiny-sd1 with an image encoder, a safety checker and a feature extractor: links. */
static char model[] = "/tmp/attnplug-pictures-XXXXXX";
static char said[4096]; /* what was logged since it was last emptied */

static void remember(void *ctx, int32_t level, const char *text)
{
    (void)ctx;
    (void)level;
    text_append(said, sizeof said, text);
    text_append(said, sizeof said, "\n");
}

static void part_link(const char *from, const char *part)
{
    char source[4096];
    char target[256];
    char folder[4096];
    if (golden_folder[0] == '/') {
        snprintf(folder, sizeof folder, "%s", golden_folder);
    } else {
        char *here = realpath(golden_folder, NULL);
        assert_non_null(here);
        snprintf(folder, sizeof folder, "%s", here);
        free(here);
    }
    snprintf(target, sizeof target, "%s/%s", model, part);
    unlink(target);
    if (from) {
        assert_true(snprintf(source, sizeof source, "%.3000s/models/%s/%s", folder, from, part) >
                    0);
        assert_int_equal(symlink(source, target), 0);
    }
}

static void index_write(const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/model_index.json", model);
    unlink(path);
    FILE *file = text ? fopen(path, "w") : NULL;
    if (file) {
        fputs(text, file);
        assert_int_equal(fclose(file), 0);
    }
}

static int setup(void **state)
{
    ATTN_ERROR_ON(err, 1024);
    const char *paths[] = {plugin_folder};
    const attn_registry_options options = {.size = sizeof options,
                                           .flags =
                                               ATTN_REGISTRY_ONLY_PATHS | ATTN_REGISTRY_TRUST_ALL,
                                           .paths = paths,
                                           .n_paths = 1};
    (void)state;
    if (!mkdtemp(model) || attn_registry_open(&options, &registry, &err)) {
        print_error("%s\n", err.text);
        return -1;
    }
    static const char *const own[] = {"unet", "vae", "text_encoder", "scheduler"};
    for (size_t i = 0; i < 4; i++) {
        part_link("tiny-sd1", own[i]);
    }
    part_link("tiny-image", "image_encoder");
    part_link("tiny-image", "safety_checker");
    part_link("tiny-image", "feature_extractor");
    return 0;
}

static int teardown(void **state)
{
    static const char *const parts[] = {"unet",
                                        "vae",
                                        "text_encoder",
                                        "scheduler",
                                        "image_encoder",
                                        "safety_checker",
                                        "feature_extractor"};
    (void)state;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        part_link(NULL, parts[i]);
    }
    index_write(NULL);
    rmdir(model);
    attn_registry_close(registry);
    return 0;
}

static attn_tensor tensor_at(const safetensors_tensor *t, const void *data)
{
    attn_tensor r = {.data = (void *)(uintptr_t)data,
                     .device_type = ATTN_DEVICE_CPU,
                     .code = t->dtype.code,
                     .bits = t->dtype.bits,
                     .lanes = 1,
                     .rank = t->rank};
    int64_t stride = 1;
    for (uint32_t i = t->rank; i-- > 0;) {
        r.shape[i] = t->shape[i];
        r.stride[i] = stride;
        stride *= t->shape[i];
    }
    return r;
}

static attn_tensor tensor_of_golden(const safetensors *file, const char *name)
{
    const safetensors_tensor *t = golden_get(file, "%s", name);
    return tensor_at(t, t->data);
}

/* -- image prompts ----------------------------------------------------------------------------- */

enum { MOST = 4, PATH = 4608 };

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
        c->masks = tensor_at(mask, mask->data);
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
    attn_tensor given = tensor_at(states, states->data);
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

/* -- files that are wrong ---------------------------------------------------------------------- */

static void open_refused(const attn_sag_open_options *o, const char *first, const char *second)
{
    ATTN_ERROR_ON(err, 1024);
    attn_sag *sag = NULL;
    attn_status status = attn_sag_open(registry, o, &sag, &err);
    if (!status || !strstr(err.text, first) || !strstr(err.text, second) ||
        strchr(err.text, '\n')) {
        fail_msg("status %d, \"%s\"; expected \"%s\", \"%s\"", status, err.text, first, second);
    }
    assert_null(sag);
}

/* The plain adapter with a tensor left out, cut by a row, or renamed. */
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

/* -- the safety checker ------------------------------------------------------------------------ */

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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pictures),     cmocka_unit_test(test_processors),
        cmocka_unit_test(test_scales),       cmocka_unit_test(test_batch),
        cmocka_unit_test(test_bad_calls),    cmocka_unit_test(test_embeds),
        cmocka_unit_test(test_bad_adapters), cmocka_unit_test(test_bad_surroundings),
        cmocka_unit_test(test_checker),      cmocka_unit_test(test_flagged),
        cmocka_unit_test(test_wishes),
    };
    assert_true(argc == 3);
    golden_folder = argv[1];
    plugin_folder = argv[2];
    return cmocka_run_group_tests(tests, setup, teardown);
}
