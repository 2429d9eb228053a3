/* A picture whose attention runs through the stand-in: as many calls as the UNet has attentions,
 * but for SAG's own layer, and the picture is that of fp32.  Argument: the model's folder. */
#include "attn_sag.h"
#include "error.h"
#include "fakecann.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { STEPS = 2, MAX_VALUES = 3 * 256 * 256 };

static const char *model;

struct picture {
    float values[MAX_VALUES];
    size_t n;
};
static struct picture plain, npu;

struct told {
    int fp32, key_mass;
};

static void hear(void *ctx, int32_t level, const char *text)
{
    struct told *t = ctx;
    (void)level;
    t->fp32 += strstr(text, "fp32 takes auto") != NULL;
    t->key_mass += strstr(text, "does not give key_mass") != NULL;
}

static attn_sag *open_with(attn_registry *registry, const char *dtype, const char *processor,
                           struct told *told, attn_error *err)
{
    attn_sag *sag = NULL;
    const attn_sag_processor p = {NULL, {.size = sizeof(attn_layer_spec), .processor = processor}};
    const attn_sag_open_options o = {.size = sizeof o,
                                     .model = model,
                                     .dtype = dtype,
                                     .n_processors = 1,
                                     .processors = &p,
                                     .log = hear,
                                     .log_ctx = told};
    attn_status status = attn_sag_open(registry, &o, &sag, err);
    return status == ATTN_OK ? sag : NULL;
}

static attn_status draw(attn_sag *sag, struct picture *picture, attn_error *err)
{
    const char *prompt = "a red heart";
    const attn_sag_run_options o = {
        .size = sizeof o, .prompts = &prompt, .n_prompts = 1, .num_inference_steps = STEPS};
    attn_sag_result r = {.size = sizeof r};
    attn_status status = attn_sag_run(sag, &o, &r, err);
    if (status != ATTN_OK)
        return status;
    picture->n = (size_t)(r.images.shape[1] * r.images.shape[2] * r.images.shape[3]);
    assert_true(picture->n <= MAX_VALUES);
    memcpy(picture->values, r.images.data, picture->n * sizeof(float));
    attn_sag_result_free(&r);
    return ATTN_OK;
}

/* Attention layers, and those that npu_flash took in the last forward pass. */
static int layers(attn_sag *sag)
{
    const char *layer, *processor, *op;
    int n = 0;
    while (attn_sag_layer(sag, (uint32_t)n, &layer, &processor, &op) == ATTN_OK)
        n++;
    return n;
}

static void run(const char *dtype, const char *processor, struct picture *picture,
                uint64_t *expected, struct told *told)
{
    ATTN_ERROR_ON(err, 1024);
    attn_registry *registry = NULL;
    const attn_registry_options o = {.size = sizeof o, .log = hear, .log_ctx = told};
    assert_int_equal(attn_registry_open(&o, &registry, &err), ATTN_OK);
    attn_sag *sag = open_with(registry, dtype, processor, told, &err);
    if (!sag || draw(sag, picture, &err) != ATTN_OK)
        fail_msg("%s", err.text);
    /* Each step runs the UNet on the latents, where one layer gives key_mass, and on the blurred
     * ones, where none does. */
    *expected = (uint64_t)(STEPS * (2 * layers(sag) - 1));
    attn_sag_close(sag);
    attn_registry_close(registry);
}

static void test_picture(void **state)
{
    struct told told = {0};
    uint64_t expected = 0, none;
    (void)state;
    run("f32", "AttnProcessor2_0", &plain, &none, &told);
    assert_int_equal(fakecann_calls("aclnnFlashAttentionScore"), 0);
    run("f16", "AttnProcessorNPU", &npu, &expected, &told);
    print_message("%llu calls, expected %llu\n",
                  (unsigned long long)fakecann_calls("aclnnFlashAttentionScore"),
                  (unsigned long long)expected);
    assert_true(expected > 0);
    assert_int_equal(fakecann_calls("aclnnFlashAttentionScore"), expected);
    assert_int_equal(told.key_mass, 1);
    assert_int_equal(told.fp32, 0);
    assert_int_equal(npu.n, plain.n);
    double sum = 0.0, size = 0.0;
    for (size_t i = 0; i < npu.n; i++) {
        sum += pow((double)npu.values[i] - (double)plain.values[i], 2.0);
        size += pow((double)plain.values[i], 2.0);
    }
    print_message("picture: relative L2 %.2e\n", sqrt(sum / size));
    assert_true(sqrt(sum / size) < 1e-2);
    assert_true(sum > 0.0); /* halves were computed with */
    assert_int_equal(fakecann_violations(), 0);
    fakecann_live_counts l = fakecann_live();
    assert_int_equal(l.allocations + l.tensors + l.scalars + l.executors + l.devices, 0);
}

/* In fp32 the name takes auto, and says so once. */
static void test_fp32(void **state)
{
    struct told told = {0};
    uint64_t before = fakecann_calls(NULL), none;
    (void)state;
    run("f32", "AttnProcessorNPU", &npu, &none, &told);
    assert_int_equal(fakecann_calls(NULL), before);
    assert_int_equal(told.fp32, 1);
    assert_memory_equal(npu.values, plain.values, plain.n * sizeof(float));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_picture),
        cmocka_unit_test(test_fp32),
    };
    if (argc != 2)
        return 2;
    model = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
