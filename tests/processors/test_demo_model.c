/* The built-in model's latents through each processor that its layers can have, with SAG: all of
 * them compute the plain layer here, so that they give the same latents and the same key_mass.
 *
 *   test_processors_demo_model MODEL [STEPS]
 */
#include "attn_sag.h"
#include "plugin.h"
#include "safetensors.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 64, RANK = 3, TEXT = 512 };

static const char *model;
static uint32_t steps = 2;
static attn_registry *registry;
static char text[TEXT];
static attn_error err = {sizeof err, sizeof text, text, 0};

/* One picture's latents and key_mass. */
struct drawn {
    attn_sag_result result;
    attn_sag *sag;
};

static void draw(struct drawn *d, const attn_sag_processor *processors, uint32_t n)
{
    const char *prompt = "red heart";
    const uint64_t seed = 7;
    const attn_sag_open_options open = {.size = sizeof open,
                                        .model = model,
                                        .n_threads = 1,
                                        .n_processors = n,
                                        .processors = processors};
    const attn_sag_run_options run = {.size = sizeof run,
                                      .output_type = "latent",
                                      .prompts = &prompt,
                                      .n_prompts = 1,
                                      .num_inference_steps = steps,
                                      .seeds = &seed,
                                      .n_seeds = 1};
    *d = (struct drawn){.result = {.size = sizeof d->result}};
    if (attn_sag_open(registry, &open, &d->sag, &err) != ATTN_OK ||
        attn_sag_run(d->sag, &run, &d->result, &err) != ATTN_OK)
        fail_msg("%s", text);
}

static void drawn_free(struct drawn *d)
{
    attn_sag_result_free(&d->result);
    attn_sag_close(d->sag);
}

static struct drawn plain;

static int open_all(void **state)
{
    (void)state;
    const char *folder = getenv("ATTNPLUG_TEST_PLUGINS");
    const attn_registry_options options = {.size = sizeof options,
                                           .flags =
                                               ATTN_REGISTRY_ONLY_PATHS | ATTN_REGISTRY_TRUST_ALL,
                                           .paths = &folder,
                                           .n_paths = 1};
    if (attn_registry_open(&options, &registry, &err) != ATTN_OK)
        return -1;
    draw(&plain, NULL, 0);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    drawn_free(&plain);
    attn_registry_close(registry);
    return 0;
}

/* The same latents and key_mass as the plain layers', and every layer has the processor. */
static void expect_same(const attn_sag_processor *processors, uint32_t n, const char *id)
{
    struct drawn d;
    const char *layer, *processor, *op;
    draw(&d, processors, n);
    for (uint32_t i = 0; attn_sag_layer(d.sag, i, &layer, &processor, &op) == ATTN_OK; i++)
        assert_string_equal(processor, id);
    const attn_sag_result *a = &plain.result, *b = &d.result;
    double latents = relative_error(b->latents.data, a->latents.data, tensor_count(&a->latents));
    double mass = relative_error(b->key_mass.data, a->key_mass.data, tensor_count(&a->key_mass));
    print_message("%s: latents differ by %.2g, key_mass by %.2g\n", id, latents, mass);
    assert_true(latents <= 1e-5);
    assert_true(mass <= 1e-5);
    drawn_free(&d);
}

static void same_through(const char *name, const char *id)
{
    const attn_sag_processor all = {.spec = {.size = sizeof all.spec, .processor = name}};
    expect_same(&all, 1, id);
}

static void fused(void **state)
{
    (void)state;
    same_through("fused", "org.attnplug.fused");
}

/* Untrained, as where no file is given. */
static void custom_diffusion(void **state)
{
    (void)state;
    same_through("custom_diffusion", "org.attnplug.custom_diffusion");
}

/* A batch no larger than batch_size is as many videos of one frame. */
static void cross_frame(void **state)
{
    (void)state;
    same_through("cross_frame", "org.attnplug.cross_frame");
}

/* -- LoRA with weights, at scale 0 ------------------------------------------------------------- */

static const char *const linears[] = {"to_q", "to_k", "to_v", "to_out"};
enum { LINEARS = 4, TENSORS = 2 * LINEARS, PARAMS = TENSORS + 1 };

/* An adapter on every linear of one layer. */
struct adapter {
    char glob[160], names[TENSORS][48];
    attn_tensor tensors[TENSORS];
    attn_param params[PARAMS];
};

static attn_tensor random_matrix(int64_t rows, int64_t columns)
{
    float *data = malloc((size_t)(rows * columns) * sizeof *data);
    assert_non_null(data);
    for (int64_t i = 0; i < rows * columns; i++)
        data[i] = (float)rand() / (float)RAND_MAX - 0.5f; /* NOLINT: any numbers will do */
    return (attn_tensor){.data = data,
                         .shape = {rows, columns},
                         .stride = {columns, 1},
                         .device_type = ATTN_DEVICE_CPU,
                         .code = ATTN_CODE_FLOAT,
                         .bits = 32,
                         .lanes = 1,
                         .rank = 2};
}

static void adapter_fill(struct adapter *a, const safetensors *weights, const char *layer)
{
    (void)snprintf(a->glob, sizeof a->glob, "%s", layer);
    for (int i = 0; i < LINEARS; i++) {
        char name[256];
        (void)snprintf(name, sizeof name, "%s.%s%s.weight", layer, linears[i], i == 3 ? ".0" : "");
        const safetensors_tensor *w = safetensors_find(weights, name);
        if (!w)
            fail_msg("no %s", name);
        a->tensors[2 * i] = random_matrix(RANK, w->shape[1]);
        a->tensors[2 * i + 1] = random_matrix(w->shape[0], RANK);
        for (int part = 0; part < 2; part++) {
            (void)snprintf(a->names[2 * i + part], sizeof a->names[0], "%s_lora.%s.weight",
                           linears[i], part ? "up" : "down");
            a->params[2 * i + part] =
                param_tensor(a->names[2 * i + part], &a->tensors[2 * i + part]);
        }
    }
}

static uint32_t adapters_make(struct adapter *adapters, double scale)
{
    char path[1024];
    const char *layer, *processor, *op;
    safetensors *weights = NULL;
    uint32_t n = 0;
    (void)snprintf(path, sizeof path, "%s/unet/diffusion_pytorch_model.safetensors", model);
    if (safetensors_open(path, &weights, &err) != ATTN_OK)
        fail_msg("%s", text);
    for (; attn_sag_layer(plain.sag, n, &layer, &processor, &op) == ATTN_OK; n++) {
        assert_true(n < LAYERS);
        adapter_fill(&adapters[n], weights, layer);
        adapters[n].params[TENSORS] = param_float("scale", scale);
    }
    safetensors_close(weights);
    return n;
}

static void adapters_free(struct adapter *adapters, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        for (int t = 0; t < TENSORS; t++)
            free(adapters[i].tensors[t].data);
    free(adapters);
}

static void lora_on(attn_sag_processor *processors, const struct adapter *adapters, uint32_t n,
                    const char *name)
{
    for (uint32_t i = 0; i < n; i++)
        processors[i] = (attn_sag_processor){.glob = adapters[i].glob,
                                             .spec = {.size = sizeof processors[i].spec,
                                                      .processor = name,
                                                      .params = adapters[i].params,
                                                      .n_params = PARAMS}};
}

static void lora_at_zero(void **state)
{
    (void)state;
    attn_sag_processor processors[LAYERS];
    struct adapter *adapters = calloc(LAYERS, sizeof *adapters);
    assert_non_null(adapters);
    uint32_t n = adapters_make(adapters, 0.0);
    assert_true(n > 0);
    lora_on(processors, adapters, n, "lora");
    expect_same(processors, n, "org.attnplug.standard");
    adapters_free(adapters, n);
}

/* And it is the scale alone that does it. */
static void lora_at_one(void **state)
{
    (void)state;
    struct drawn d;
    attn_sag_processor processors[LAYERS];
    struct adapter *adapters = calloc(LAYERS, sizeof *adapters);
    assert_non_null(adapters);
    uint32_t n = adapters_make(adapters, 1.0);
    lora_on(processors, adapters, n, "lora+standard");
    draw(&d, processors, n);
    const attn_tensor *a = &plain.result.latents, *b = &d.result.latents;
    assert_true(relative_error(b->data, a->data, tensor_count(a)) > 1e-2);
    drawn_free(&d);
    adapters_free(adapters, n);
}

/* A layer that lacks what its processor needs: the text names the layer and the tensor. */
static void layers_that_lack_something(void **state)
{
    (void)state;
    static const char *const wants[][2] = {{"ip_adapter", "to_k_ip.0.weight is missing"},
                                           {"added_kv", "add_k_proj.weight is missing"}};
    for (int i = 0; i < 2; i++) {
        attn_sag *sag = NULL;
        const attn_sag_processor one = {
            .glob = "*attn2", .spec = {.size = sizeof one.spec, .processor = wants[i][0]}};
        const attn_sag_open_options open = {.size = sizeof open,
                                            .model = model,
                                            .n_threads = 1,
                                            .n_processors = 1,
                                            .processors = &one};
        assert_int_equal(attn_sag_open(registry, &open, &sag, &err), ATTN_INVALID);
        assert_non_null(strstr(text, wants[i][1]));
        assert_non_null(strstr(text, "attn2"));
        assert_null(sag);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fused),       cmocka_unit_test(custom_diffusion),
        cmocka_unit_test(cross_frame), cmocka_unit_test(lora_at_zero),
        cmocka_unit_test(lora_at_one), cmocka_unit_test(layers_that_lack_something),
    };
    if (argc < 2)
        return 2;
    model = argv[1];
    if (argc > 2)
        steps = (uint32_t)strtoul(argv[2], NULL, 10);
    return cmocka_run_group_tests(tests, open_all, close_all);
}
