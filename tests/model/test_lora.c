/* LoRA files against diffusers 0.26.3: every form of names, UNet and text encoder, one and several,
 * any scale; and what is refused. */
#include "adapted.h"
#include "stored_number.h"
#include "text_encoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct lora_set *set_load(const struct lora_choice *choices, uint32_t n)
{
    ATTN_ERROR_ON(err, 4096);
    struct lora_set *set = NULL;
    if (lora_set_open(choices, n, &set, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    return set;
}

static double text_error(struct text_encoder *t, const char *model, const char *name)
{
    ATTN_ERROR_ON(err, 512);
    safetensors *inputs = golden_open("text_encoder", model);
    safetensors *outputs = golden_open("adapters", model);
    const safetensors_tensor *expected = golden_find(outputs, name);
    const safetensors_tensor *ids = golden_find(inputs, "input_ids");
    attn_tensor out = poisoned(3, expected->shape);
    double error;
    if (text_encoder_run(t, 1, (const int32_t *)ids->data + 77, 0, out.data, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    error = relative_l2(out.data, expected->data, count_of(&out));
    free(out.data);
    safetensors_close(outputs);
    safetensors_close(inputs);
    return error;
}

static struct text_encoder *text_load(struct machine *m, const char *model, struct lora_set *set)
{
    ATTN_ERROR_ON(err, 4096);
    char folder[512];
    struct text_encoder *t = NULL;
    model_folder(folder, model, "text_encoder");
    const struct model_source source = {.folder = folder};
    if (text_encoder_open_adapted(m->compute, &source, NULL, set, &t, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    return t;
}

static void text_scale(struct text_encoder *t, const struct lora_set *set, double scale)
{
    float scales[LORA_MOST_FILES];
    lora_set_scales(set, LORA_TEXT_ENCODER, scale, scales);
    text_encoder_set_scales(t, scales, lora_set_count(set));
}

static void within(const char *what, const char *model, double error)
{
    print_message("%-34s %-9s %.2e\n", what, model, error);
    assert_true(error <= 1e-5);
}

/* -- against diffusers ------------------------------------------------------------------------- */

static void compare(struct machine *m, const char *model, const char *path, const char *how)
{
    ATTN_ERROR_ON(err, 4096);
    const struct lora_choice choice = {path, 1.0, 1.0};
    struct lora_set *set = set_load(&choice, 1);
    const struct unet_processors processors = {.loras = set};
    struct unet *u = unet_load(m, model, &processors);
    struct text_encoder *t = text_load(m, model, set);
    if (lora_set_done(set, 0, NULL, NULL, &err) != ATTN_OK) {
        fail_msg("%s: %s", how, err.text);
    }
    within(how, model, unet_error(m, u, model, "unet.lora", set, 1.0));
    within("  scale -0.6", model, unet_error(m, u, model, "unet.lora_scaled", set, -0.6));
    text_scale(t, set, 1.0);
    within("  text encoder", model, text_error(t, model, "text.lora"));
    text_scale(t, set, 0.3);
    within("  text encoder, scale 0.3", model, text_error(t, model, "text.lora_scaled"));
    text_encoder_close(t);
    unet_close(u);
    lora_set_close(set);
}

static void kohya_as_diffusers(void **state)
{
    char path[512];
    compare(*state, "tiny-sd1", golden_path(path, "lora_tiny-sd1"), "kohya");
    compare(*state, "tiny-sd2", golden_path(path, "lora_tiny-sd2"), "kohya");
}

static void several_at_once(void **state)
{
    struct machine *m = *state;
    char first[512];
    char second[512];
    const struct lora_choice choices[] = {
        {golden_path(first, "lora_tiny-sd1"), 0.7, 0.7},
        {golden_path(second, "lora_plain_tiny-sd1"), 1.2, 0.0},
    };
    struct lora_set *set = set_load(choices, 2);
    const struct unet_processors processors = {.loras = set};
    struct unet *u = unet_load(m, "tiny-sd1", &processors);
    within("two files", "tiny-sd1", unet_error(m, u, "tiny-sd1", "unet.both", set, 1.0));
    unet_close(u);
    lora_set_close(set);
    set = set_load(&choices[1], 1);
    u = unet_load(m, "tiny-sd1", &(const struct unet_processors){.loras = set});
    within("attention processors, old", "tiny-sd1",
           unet_error(m, u, "tiny-sd1", "unet.plain", set, 1 / 1.2));
    unet_close(u);
    lora_set_close(set);
}

/* One file as twelve of them, whose scales sum to 1; and no more than there are slots. */
static void many_at_once(void **state)
{
    enum { MANY = 12 };
    struct machine *m = *state;
    char path[512];
    struct lora_choice choices[LORA_MOST_FILES + 1];
    struct lora_set *set = NULL;
    struct unet *u;
    ATTN_ERROR_ON(err, 512);
    golden_path(path, "lora_tiny-sd1");
    for (int i = 0; i <= LORA_MOST_FILES; i++) {
        choices[i] = (struct lora_choice){path, i ? 0.25 / (MANY - 1) : 0.75, 1.0};
    }
    set = set_load(choices, MANY);
    u = unet_load(m, "tiny-sd1", &(const struct unet_processors){.loras = set});
    within("12 files", "tiny-sd1", unet_error(m, u, "tiny-sd1", "unet.lora", set, 1.0));
    unet_close(u);
    lora_set_close(set);
    lora_set_close(set_load(choices, LORA_MOST_FILES));
    set = NULL;
    assert_int_equal(lora_set_open(choices, LORA_MOST_FILES + 1, &set, &err), ATTN_UNSUPPORTED);
    assert_non_null(strstr(err.text, "at most 64"));
}

/* -- forms of names ---------------------------------------------------------------------------- */

enum form { PEFT, PEFT_RAW, DIFFUSERS, OLD, OLD_UNET_PREFIX, FORMS };
static const char *const form_names[FORMS] = {"PEFT", "PEFT, as it saves itself", "diffusers",
                                              "diffusers, old", "unet. before the old"};

/* The model's own name of the module that kohya calls `stem`. */
static char *module_find(const safetensors *weights, const char *stem)
{
    for (size_t i = 0; i < safetensors_count(weights); i++) {
        const char *name = safetensors_at(weights, i)->name;
        const size_t n = strlen(name);
        if (n <= 7 || strcmp(name + n - 7, ".weight") != 0 || strlen(stem) != n - 7) {
            continue;
        }
        size_t k = 0;
        while (k < n - 7 && (name[k] == '.' ? '_' : name[k]) == stem[k]) {
            k++;
        }
        if (k == n - 7) {
            return strndup(name, n - 7);
        }
    }
    fail_msg("no module %s", stem);
    return NULL;
}

/* How diffusers of old called the projections of an attention. */
static char *old_name(const char *module, const char *part, const char *processor)
{
    static const char *const targets[][2] = {
        {".to_q", ".to_q"},   {".to_k", ".to_k"},   {".to_v", ".to_v"},   {".to_out.0", ".to_out"},
        {".q_proj", ".to_q"}, {".k_proj", ".to_k"}, {".v_proj", ".to_v"}, {".out_proj", ".to_out"}};
    char *name = NULL;
    const size_t n = strlen(module);
    for (size_t i = 0; i < sizeof(targets) / sizeof(*targets); i++) {
        const size_t cut = strlen(targets[i][0]);
        if (n > cut && strcmp(module + n - cut, targets[i][0]) == 0) {
            assert_true(asprintf(&name, "%.*s%s%s_lora.%s.weight", (int)(n - cut), module,
                                 processor, targets[i][1], part) > 0);
            return name;
        }
    }
    return NULL;
}

static char *name_in(enum form form, int text, const char *module, int up)
{
    const char *part = up ? "up" : "down";
    char *name = NULL;
    char *old;
    switch (form) {
    case PEFT:
        assert_true(asprintf(&name, "%s%s.lora_%c.weight", text ? "text_encoder." : "unet.", module,
                             up ? 'B' : 'A') > 0);
        return name;
    case PEFT_RAW:
        assert_true(asprintf(&name, "base_model.model.%s.lora_%c.default.weight", module,
                             up ? 'B' : 'A') > 0);
        return name;
    case DIFFUSERS:
        assert_true(asprintf(&name, "%s%s.%s.%s.weight", text ? "text_encoder." : "unet.", module,
                             text ? "lora_linear_layer" : "lora", part) > 0);
        return name;
    default:
        old = old_name(module, part, text ? "" : ".processor");
        if (!old) {
            assert_true(asprintf(&old, "%s.%s.%s.weight", module,
                                 text ? "lora_linear_layer" : "lora", part) > 0);
        }
        assert_true(asprintf(&name, "%s%s",
                             text                      ? "text_encoder."
                             : form == OLD_UNET_PREFIX ? "unet."
                                                       : "",
                             old) > 0);
        free(old);
        return name;
    }
}

/* A kohya file in another form; those have no alphas, so up carries them. */
static char *rekeyed(const char *model, enum form form)
{
    ATTN_ERROR_ON(err, 512);
    char path[512];
    char name[64];
    safetensors *kohya = NULL;
    safetensors *weights[2] = {0};
    (void)snprintf(name, sizeof(name), "lora_%s", model);
    assert_int_equal(safetensors_open(golden_path(path, name), &kohya, &err), ATTN_OK);
    for (int i = 0; i < 2; i++) {
        char folder[512];
        char file[640];
        model_folder(folder, model, i ? "text_encoder" : "unet");
        (void)snprintf(file, sizeof(file), "%s/%s.safetensors", folder,
                       i ? "model" : "diffusion_pytorch_model");
        assert_int_equal(safetensors_open(file, &weights[i], &err), ATTN_OK);
    }
    const size_t count = safetensors_count(kohya);
    safetensors_tensor *made = calloc(count, sizeof(*made));
    assert_non_null(made);
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        const safetensors_tensor *t = safetensors_at(kohya, i);
        const int text = strncmp(t->name, "lora_te_", 8) == 0;
        const int up = strstr(t->name, ".lora_up.weight") != NULL;
        if (!up && !strstr(t->name, ".lora_down.weight")) {
            continue;
        }
        char *stem = strndup(t->name, (size_t)(strchr(t->name, '.') - t->name));
        assert_non_null(stem);
        char alpha_name[256];
        (void)snprintf(alpha_name, sizeof(alpha_name), "%s.alpha", stem);
        const safetensors_tensor *alpha = safetensors_find(kohya, alpha_name);
        const float rank = (float)t->shape[1];
        const float factor = up && alpha ? stored_number(alpha, 0) / rank : 1.0f;
        char *module = module_find(weights[text], stem + (text ? 8 : 10));
        float *values = malloc(2 * t->bytes);
        assert_non_null(values);
        for (uint64_t k = 0; k < t->bytes / 2; k++) {
            values[k] = factor * stored_number(t, k);
        }
        made[n] = *t;
        made[n].name = name_in(form, text, module, up);
        made[n].dtype.bits = 32;
        made[n].data = values;
        made[n++].bytes = 2 * t->bytes;
        free(module);
        free(stem);
    }
    char *file = file_write(made, n);
    for (size_t i = 0; i < n; i++) {
        free((char *)(uintptr_t)made[i].name);
        free((void *)(uintptr_t)made[i].data);
    }
    free(made);
    safetensors_close(weights[1]);
    safetensors_close(weights[0]);
    safetensors_close(kohya);
    return file;
}

static void every_form_of_names(void **state)
{
    for (int form = 0; form < FORMS; form++) {
        char *file = rekeyed("tiny-sd1", (enum form)form);
        compare(*state, "tiny-sd1", file, form_names[form]);
        file_remove(file);
    }
}

/* -- files that are wrong ---------------------------------------------------------------------- */

#define TO_Q "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
#define FOLD "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"

static const float zeros[4096];

static safetensors_tensor matrix(const char *name, int64_t rows, int64_t columns)
{
    return (safetensors_tensor){
        .name = name, .dtype = {2, 32}, .rank = 2, .shape = {rows, columns}, .data = zeros};
}

static void has(const char *text, const char *named)
{
    if (!strstr(text, named)) {
        fail_msg("\"%s\" does not have \"%s\"", text, named);
    }
}

static void file_refused(const safetensors_tensor *tensors, size_t n, const char *named)
{
    ATTN_ERROR_ON(err, 1024);
    struct lora_set *set = NULL;
    char *path = file_write(tensors, n);
    const struct lora_choice choice = {path, 1, 1};
    assert_int_equal(lora_set_open(&choice, 1, &set, &err), ATTN_INVALID);
    assert_null(set);
    has(err.text, named);
    has(err.text, path);
    file_remove(path);
}

static void pairs_that_do_not_match(void **state)
{
    static const float infinite = (float)INFINITY;
    safetensors_tensor t[3] = {matrix("unet." TO_Q ".lora_A.weight", 2, 16),
                               matrix("unet." TO_Q ".lora_B.weight", 16, 2)};
    (void)state;
    file_refused(t, 1, "without the up weight");
    file_refused(t + 1, 1, "without the down weight");
    t[1].shape[1] = 3;
    file_refused(t, 2, "is of rank 2, but");
    t[1] = matrix("unet." TO_Q ".lora_B.weight", 16, 0);
    file_refused(t, 2, "an empty side");
    t[1] = matrix("unet." TO_Q ".lora_B.weight", 16, 2);
    t[1].rank = 3;
    t[1].shape[2] = 1;
    file_refused(t, 2, "rank 3");
    t[1].rank = 4;
    t[1].shape[2] = t[1].shape[3] = 3;
    file_refused(t, 2, "convolution of 3 x 3");
    t[1] = matrix("unet." TO_Q ".lora_B.weight", 16, 2);
    t[1].dtype = (safetensors_dtype){0, 32};
    file_refused(t, 2, "I32");
    t[1] = matrix("unet." TO_Q ".lora_B.weight", 16, 2);
    t[2] = matrix(FOLD ".lora_up.weight", 16, 2); /* the same part by another name */
    file_refused(t, 3, "the same part of one module");
    t[2] = matrix("unet." TO_Q ".alpha", 2, 1);
    file_refused(t, 3, "not a single finite number");
    t[2] = (safetensors_tensor){
        .name = "unet." TO_Q ".alpha", .dtype = {2, 32}, .rank = 0, .data = &infinite};
    file_refused(t, 3, "not a single finite number");
    file_refused(t + 2, 1, "without the down and up weights");
}

static void scales_that_are_no_numbers(void **state)
{
    ATTN_ERROR_ON(err, 1024);
    struct lora_set *set = NULL;
    char path[512];
    struct lora_choice choice = {golden_path(path, "lora_tiny-sd1"), (double)NAN, 1};
    (void)state;
    assert_int_equal(lora_set_open(&choice, 1, &set, &err), ATTN_INVALID);
    choice = (struct lora_choice){path, 1, (double)INFINITY};
    assert_int_equal(lora_set_open(&choice, 1, &set, &err), ATTN_INVALID);
    has(err.text, "finite");
    choice.file = NULL;
    assert_int_equal(lora_set_open(&choice, 1, &set, &err), ATTN_INVALID);
    assert_null(set);
}

/* Files that open, in a model that they do not fit. */
static void model_refused(struct machine *m, const safetensors_tensor *tensors, attn_status status,
                          const char *named)
{
    char *path = file_write(tensors, 2);
    const struct lora_choice choice = {path, 1, 1};
    struct lora_set *set = set_load(&choice, 1);
    unet_refused(m, "tiny-sd1", &(const struct unet_processors){.loras = set}, status, named);
    lora_set_close(set);
    file_remove(path);
}

static void another_model(void **state)
{
    safetensors_tensor t[] = {matrix(FOLD ".lora_down.weight", 2, 16),
                              matrix(FOLD ".lora_up.weight", 17, 2)};
    model_refused(*state, t, ATTN_INVALID,
                  "lora_up.weight is [17, 2], this model's module takes "
                  "[16, 2]");
    t[0].shape[1] = 12;
    t[1].shape[0] = 16;
    model_refused(*state, t, ATTN_INVALID, "is [2, 12]");
    t[0].name = "lora_unet_mid_block_resnets_0_conv1.lora_down.weight";
    t[1].name = "lora_unet_mid_block_resnets_0_conv1.lora_up.weight";
    t[0].shape[1] = 16;
    model_refused(*state, t, ATTN_INVALID, "takes [2, 16, 3, 3]");
    t[0].name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight";
    t[1].name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight";
    t[0].shape[1] = 1024;
    model_refused(*state, t, ATTN_UNSUPPORTED, "Stable Diffusion 2.x");
    t[0].name = "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight";
    t[1].name = "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight";
    model_refused(*state, t, ATTN_UNSUPPORTED, "Stable Diffusion XL");
    t[0].name = "transformer.single_blocks.0.attn.to_q.lora_A.weight";
    t[1].name = "transformer.single_blocks.0.attn.to_q.lora_B.weight";
    model_refused(*state, t, ATTN_UNSUPPORTED, "Flux");
}

/* What nobody took is listed, up to a length. */
static void names_that_fit_nothing(void **state)
{
    ATTN_ERROR_ON(err, 4096);
    enum { N = 200 };
    safetensors_tensor t[N];
    char names[N][64];
    (void)state;
    for (int i = 0; i < N; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "lora_unet_nowhere_%03d.lora_%s.weight", i / 2,
                       i % 2 ? "up" : "down");
        t[i] = i % 2 ? matrix(names[i], 4, 1) : matrix(names[i], 1, 4);
    }
    char *path = file_write(t, N);
    const struct lora_choice choice = {path, 1, 1};
    struct lora_set *set = set_load(&choice, 1);
    assert_int_equal(lora_set_done(set, 0, NULL, NULL, &err), ATTN_INVALID);
    has(err.text, "200 of its 200 tensors fit nothing");
    has(err.text, names[0]);
    has(err.text, names[1]);
    has(err.text, " more");
    assert_int_equal(lora_set_done(set, 1, NULL, NULL, &err), ATTN_OK);
    lora_set_close(set);
    file_remove(path);
}

static void other_methods(void **state)
{
    ATTN_ERROR_ON(err, 4096);
    static const char *const names[][2] = {
        {FOLD ".hada_w1_a", "LoHa"}, {FOLD ".dora_scale", "DoRA"}, {FOLD ".lokr_w1", "LoKr"}};
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        safetensors_tensor t[] = {matrix(FOLD ".lora_down.weight", 2, 16),
                                  matrix(FOLD ".lora_up.weight", 16, 2), matrix(names[i][0], 2, 2)};
        char *path = file_write(t, 3);
        const struct lora_choice choice = {path, 1, 1};
        struct lora_set *set = set_load(&choice, 1);
        struct lora_pair pair;
        /* Half of a method would be wrong: none of it is taken. */
        assert_int_equal(lora_set_take(set, 0, LORA_UNET, TO_Q, &pair), 0);
        assert_int_equal(lora_set_done(set, 0, NULL, NULL, &err), ATTN_INVALID);
        has(err.text, names[i][1]);
        has(err.text, "3 of its 3");
        lora_set_close(set);
        file_remove(path);
    }
}

static void not_safetensors(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *ending;
        attn_status status;
        const char *named;
    } files[] = {
        {"PK\003\004data", 8, ".safetensors", ATTN_UNSUPPORTED, "a pickle"},
        {"\200\002}q", 4, ".pt", ATTN_UNSUPPORTED, "convert it"},
        {"PK\003\004data", 8, ".bin", ATTN_UNSUPPORTED, "a pickle"},
        {"PK\003\004data", 8, ".pt", ATTN_UNSUPPORTED, "a pickle"},
        {"", 0, ".safetensors", ATTN_INVALID, "0 bytes"},
        {"\100\0\0\0\0\0\0\0{\"a\":", 13, ".safetensors", ATTN_INVALID, "cut short"},
        {"\377\377\377\377\377\377\377\177{}", 10, ".safetensors", ATTN_INVALID, "the most"},
        {"\017\0\0\0\0\0\0\0{\"a\":1,\"a\":2} ", 23, ".safetensors", ATTN_INVALID, "duplicate"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        ATTN_ERROR_ON(err, 2048);
        struct lora_set *set = NULL;
        char *path = file_of_bytes(files[i].bytes, files[i].n, files[i].ending);
        const struct lora_choice choice = {path, 1, 1};
        assert_int_equal(lora_set_open(&choice, 1, &set, &err), files[i].status);
        assert_null(set);
        has(err.text, files[i].named);
        file_remove(path);
    }
}

/* Each length of a good file but the whole is refused. */
static void truncated(void **state)
{
    ATTN_ERROR_ON(err, 1024);
    char path[512];
    static char bytes[65536];
    FILE *f = fopen(golden_path(path, "lora_plain_tiny-sd1"), "rb");
    (void)state;
    assert_non_null(f);
    const size_t n = fread(bytes, 1, sizeof(bytes), f);
    (void)fclose(f);
    for (size_t cut = 0; cut < n; cut += 97) {
        struct lora_set *set = NULL;
        char *file = file_of_bytes(bytes, cut, ".safetensors");
        const struct lora_choice choice = {file, 1, 1};
        assert_int_equal(lora_set_open(&choice, 1, &set, &err), ATTN_INVALID);
        file_remove(file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kohya_as_diffusers),
        cmocka_unit_test(several_at_once),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(every_form_of_names),
        cmocka_unit_test(pairs_that_do_not_match),
        cmocka_unit_test(scales_that_are_no_numbers),
        cmocka_unit_test(another_model),
        cmocka_unit_test(names_that_fit_nothing),
        cmocka_unit_test(other_methods),
        cmocka_unit_test(not_safetensors),
        cmocka_unit_test(truncated),
    };
    return cmocka_run_group_tests(tests, machine_open, machine_close);
}
