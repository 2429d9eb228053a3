/* Stored layers, the words that name a processor, masks and slices: what is read, and what is
 * refused with which words. */
#include "attention_config.h"
#include "attention_mask.h"
#include "attn_layer.h"
#include "plugin.h"
#include "safetensors.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char text[512];
static attn_error err = {sizeof err, sizeof text, text, 0};

static void expect(attn_status got, attn_status status, const char *words)
{
    if (got != status || !strstr(text, words))
        fail_msg("got %d, \"%s\"; expected %d and \"%s\"", got, text, status, words);
    *text = '\0';
}

/* -- words ------------------------------------------------------------------------------------- */

static void words_are_read(void **state)
{
    (void)state;
    struct processor_words w;
    assert_int_equal(
        processor_words_parse("lora+IPAdapterAttnProcessor:rank=4,scale.0=0.5,train_kv=false,"
                              "attention_op=math,network_alpha=None,scale=-1e-3",
                              &w, &err),
        ATTN_OK);
    assert_string_equal(w.spec.processor, "lora+IPAdapterAttnProcessor");
    assert_int_equal(w.spec.n_params, 5);
    assert_string_equal(w.params[0].name, "rank");
    assert_int_equal(w.params[0].kind, ATTN_PARAM_INT);
    assert_int_equal(w.params[0].i, 4);
    assert_string_equal(w.params[1].name, "scale.0");
    assert_int_equal(w.params[1].kind, ATTN_PARAM_FLOAT);
    assert_true(w.params[1].f == 0.5);
    assert_int_equal(w.params[2].kind, ATTN_PARAM_INT);
    assert_int_equal(w.params[2].i, 0);
    assert_int_equal(w.params[3].kind, ATTN_PARAM_TEXT);
    assert_string_equal(w.params[3].text, "math");
    assert_true(w.params[4].f == -1e-3);
    processor_words_clear(&w);
}

static void words_that_do_not_fit(void **state)
{
    (void)state;
    struct processor_words w;
    expect(processor_words_parse("", &w, &err), ATTN_INVALID, "names no processor");
    expect(processor_words_parse(":rank=4", &w, &err), ATTN_INVALID, "names no processor");
    expect(processor_words_parse("lora:rank", &w, &err), ATTN_INVALID, "\"rank\" is not of");
    expect(processor_words_parse("lora:rank=", &w, &err), ATTN_INVALID, "\"rank\" has no value");
    expect(processor_words_parse("lora:=4", &w, &err), ATTN_INVALID, "not of the form");
    expect(processor_words_parse("lora:rank=4,", &w, &err), ATTN_INVALID, "not of the form");
}

/* -- the constructor's arguments --------------------------------------------------------------- */

static void arguments_that_do_not_fit(void **state)
{
    (void)state;
    struct attention_config c;
    static const char *const bad[][2] = {
        {"{", "config"},
        {"[]", "not a JSON object"},
        {"{}", "query_dim is missing"},
        {"{\"query_dim\": 0}", "query_dim is not a whole number"},
        {"{\"query_dim\": 8.5}", "query_dim is not a whole number"},
        {"{\"query_dim\": 8, \"head\": 2}", "no argument \"head\""},
        {"{\"query_dim\": 8, \"bias\": 1}", "bias is neither true nor false"},
        {"{\"query_dim\": 8, \"eps\": \"x\"}", "eps is not a finite number"},
        {"{\"query_dim\": 8, \"cross_attention_norm\": \"rms\"}",
         "cross_attention_norm is \"rms\""},
        {"{\"query_dim\": 8, \"only_cross_attention\": true}", "wants added_kv_proj_dim"},
        {"{\"query_dim\": 8, \"norm_num_groups\": 3}", "3 does not divide query_dim 8"},
        {"{\"query_dim\": 8, \"out_dim\": 9, \"dim_head\": 4}", "does not divide out_dim 9"},
        {"{\"query_dim\": 8, \"out_dim\": 12, \"dim_head\": 4, \"residual_connection\": true}",
         "residual_connection"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect(attention_config_parse(bad[i][0], &c, &err), ATTN_INVALID, bad[i][1]);
    assert_int_equal(attention_config_parse("{\"query_dim\": 8, \"heads\": null}", &c, &err),
                     ATTN_OK);
    assert_int_equal(c.heads, 8);
    assert_int_equal(c.cross_attention_dim, 8);
}

/* -- files ------------------------------------------------------------------------------------- */

/* A copy of a stored layer without the tensor `left_out`, or with one more. */
static attn_status reopen(const char *stored, const char *left_out, const safetensors_tensor *more,
                          const char *config)
{
    enum { MOST = 128 };
    char from[1024], to[] = "/tmp/stored_layer_XXXXXX";
    safetensors *file = NULL;
    safetensors_tensor tensors[MOST];
    size_t n = 0;
    struct layer_file *layer = NULL;
    (void)snprintf(from, sizeof from, "%s/processors/%s.safetensors",
                   getenv("ATTNPLUG_TEST_GOLDEN"), stored);
    assert_int_equal(safetensors_open(from, &file, &err), ATTN_OK);
    for (size_t i = 0; i < safetensors_count(file); i++)
        if (!left_out || strcmp(safetensors_at(file, i)->name, left_out) != 0)
            tensors[n++] = *safetensors_at(file, i);
    if (more)
        tensors[n++] = *more;
    safetensors_text texts[1] = {
        {"config", config ? config : safetensors_metadata(file, "config")}};
    int fd = mkstemp(to);
    assert_true(fd >= 0);
    (void)close(fd);
    assert_int_equal(safetensors_write(to, tensors, n, texts, *texts[0].value ? 1 : 0, &err),
                     ATTN_OK);
    attn_status status = layer_file_open(to, &layer, &err);
    layer_file_close(layer);
    safetensors_close(file);
    (void)unlink(to);
    return status;
}

static void files_that_do_not_fit(void **state)
{
    (void)state;
    static const float numbers[4] = {1, 2, 3, 4};
    const safetensors_tensor extra = {.name = "attn.to_qq.weight",
                                      .dtype = {ATTN_CODE_FLOAT, 32},
                                      .rank = 1,
                                      .shape = {4},
                                      .data = numbers};
    const safetensors_tensor bias = {.name = "attn.to_q.bias",
                                     .dtype = {ATTN_CODE_FLOAT, 32},
                                     .rank = 1,
                                     .shape = {4},
                                     .data = numbers};
    const safetensors_tensor whole = {
        .name = "temb", .dtype = {ATTN_CODE_INT, 32}, .rank = 1, .shape = {4}, .data = numbers};
    const safetensors_tensor empty = {.name = "temb",
                                      .dtype = {ATTN_CODE_FLOAT, 32},
                                      .rank = 4,
                                      .shape = {0, INT64_C(1) << 62, INT64_C(1) << 62, 2}};
    const char *layer = "AttnProcessor_cross";
    struct layer_file *none = NULL;
    assert_int_equal(reopen(layer, NULL, NULL, NULL), ATTN_OK);
    expect(reopen(layer, "attn.to_k.weight", NULL, NULL), ATTN_INVALID, "to_k.weight is missing");
    expect(reopen(layer, "hidden_states", NULL, NULL), ATTN_INVALID, "hidden_states is missing");
    expect(reopen(layer, NULL, &extra, NULL), ATTN_INVALID, "attn.to_qq.weight");
    expect(reopen(layer, NULL, &bias, NULL), ATTN_INVALID, "to_q.bias is there");
    expect(reopen(layer, NULL, &whole, NULL), ATTN_INVALID, "temb is of type I32");
    expect(reopen(layer, NULL, &empty, NULL), ATTN_INVALID, "temb has a side of 0");
    expect(reopen(layer, NULL, NULL, "{\"query_dim\": 16}"), ATTN_INVALID, "to_q.weight");
    expect(reopen(layer, NULL, NULL, ""), ATTN_INVALID, "no \"config\"");
    assert_int_not_equal(layer_file_open("/nowhere/layer.safetensors", &none, &err), ATTN_OK);
    assert_null(none);
}

/* -- masks ------------------------------------------------------------------------------------- */

static attn_tensor mask_of(float *data, uint32_t rank, int64_t a, int64_t b, int64_t c)
{
    attn_tensor t = {.data = data, .code = ATTN_CODE_FLOAT, .bits = 32, .lanes = 1, .rank = rank};
    const int64_t shape[3] = {a, b, c};
    int64_t step = 1;
    for (uint32_t i = rank; i-- > 0;) {
        t.shape[i] = shape[i];
        t.stride[i] = step;
        step *= shape[i];
    }
    return t;
}

static float bias_at(const attn_tensor *b, int64_t i, int64_t j, int64_t k, int64_t l)
{
    return ((const float *)
                b->data)[i * b->stride[0] + j * b->stride[1] + k * b->stride[2] + l * b->stride[3]];
}

/* [B * heads, N, L] has a row for each head; [B, 1, L] one for all; short ones are padded. */
static void masks_become_biases(void **state)
{
    (void)state;
    float data[6 * 2 * 3];
    attn_tensor bias;
    float *owned = NULL;
    for (int i = 0; i < 36; i++)
        data[i] = (float)i;
    attn_tensor rows = mask_of(data, 3, 6, 2, 3);
    assert_int_equal(attention_bias(&rows, 2, 3, 2, 3, &bias, &owned, &err), ATTN_OK);
    assert_null(owned);
    for (int64_t b = 0; b < 2; b++)
        for (int64_t h = 0; h < 3; h++)
            for (int64_t q = 0; q < 2; q++)
                for (int64_t k = 0; k < 3; k++)
                    assert_true(bias_at(&bias, b, h, q, k) == data[((b * 3 + h) * 2 + q) * 3 + k]);
    attn_tensor one = mask_of(data, 3, 2, 1, 3);
    assert_int_equal(attention_bias(&one, 2, 3, 4, 5, &bias, &owned, &err), ATTN_OK);
    assert_non_null(owned);
    for (int64_t b = 0; b < 2; b++)
        for (int64_t k = 0; k < 5; k++)
            assert_true(bias_at(&bias, b, 2, 3, k) == (k < 3 ? data[b * 3 + k] : 0));
    free(owned);
    attn_tensor flat = mask_of(data, 2, 1, 3, 0);
    assert_int_equal(attention_bias(&flat, 2, 3, 4, 3, &bias, &owned, &err), ATTN_OK);
    assert_true(bias_at(&bias, 1, 2, 3, 2) == data[2]);
}

static void masks_that_do_not_fit(void **state)
{
    (void)state;
    float data[64] = {0};
    attn_tensor bias, m = mask_of(data, 3, 3, 1, 4);
    float *owned = NULL;
    expect(attention_bias(&m, 2, 2, 4, 4, &bias, &owned, &err), ATTN_INVALID, "does not broadcast");
    m = mask_of(data, 3, 2, 1, 5);
    expect(attention_bias(&m, 2, 2, 4, 4, &bias, &owned, &err), ATTN_INVALID, "5 keys");
    m = mask_of(data, 1, 4, 0, 0);
    expect(attention_bias(&m, 2, 2, 4, 4, &bias, &owned, &err), ATTN_INVALID, "rank 1");
    m = mask_of(data, 3, 2, 1, 4);
    m.code = ATTN_CODE_UINT;
    m.bits = 8;
    expect(attention_bias(&m, 2, 2, 4, 4, &bias, &owned, &err), ATTN_INVALID, "not fp32");
    assert_null(owned);
}

/* -- slices ------------------------------------------------------------------------------------ */

static void slices_that_do_not_fit(void **state)
{
    (void)state;
    static const struct {
        const char *words, *text;
    } bad[] = {{"SlicedAttnProcessor:slice_size=7", "slice_size is 7, larger than batch 2 times"},
               {"SlicedAttnProcessor:slice_size=0", "above 0"},
               {"SlicedAttnProcessor:slice_size=some", "auto, max or a number"},
               {"standard:slice_size=2", "of the op sliced"},
               {"standard:attention_op=nothing", "nothing"},
               {"sliced", "an op, not a processor"}};
    const char *folder = getenv("ATTNPLUG_TEST_PLUGINS");
    const attn_registry_options options = {.size = sizeof options,
                                           .flags =
                                               ATTN_REGISTRY_ONLY_PATHS | ATTN_REGISTRY_TRUST_ALL,
                                           .paths = &folder,
                                           .n_paths = 1};
    const attn_device cpu = {.type = ATTN_DEVICE_CPU, .runtime = "cpu"};
    attn_registry *registry = NULL;
    attn_computer *computer = NULL;
    struct stored_layer s;
    stored_get(&s, "AttnProcessor_self");
    assert_int_equal(attn_registry_open(&options, &registry, &err), ATTN_OK);
    assert_int_equal(attn_computer_open(registry, &cpu, 1, &computer, &err), ATTN_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct processor_words w;
        attn_bound *bound = NULL;
        assert_int_equal(processor_words_parse(bad[i].words, &w, &err), ATTN_OK);
        attn_status status = attn_layer_bind(computer, &s.file->layer, &w.spec, &bound, &err);
        if (status == ATTN_OK) {
            attn_layer_call call = stored_call(&s);
            status = attn_layer_run(bound, &call, &err);
        }
        if (status == ATTN_OK || !strstr(text, bad[i].text))
            fail_msg("%s: %d, \"%s\"", bad[i].words, status, text);
        attn_layer_unbind(bound);
        processor_words_clear(&w);
    }
    attn_computer_close(computer);
    attn_registry_close(registry);
    stored_close(&s);
}

/* -- order of life ----------------------------------------------------------------------------- */

/* Through the registry a binding with plans stays until they are gone: nothing runs after unbind.
 */
static void unbind_waits_for_plans(void **state)
{
    (void)state;
    const char *folder = getenv("ATTNPLUG_TEST_PLUGINS");
    const attn_registry_options options = {.size = sizeof options,
                                           .flags =
                                               ATTN_REGISTRY_ONLY_PATHS | ATTN_REGISTRY_TRUST_ALL,
                                           .paths = &folder,
                                           .n_paths = 1};
    const attn_device cpu = {.type = ATTN_DEVICE_CPU, .runtime = "cpu"};
    attn_registry *registry = NULL;
    attn_host_processor *processor = NULL;
    attn_host_binding *binding = NULL, *second = NULL;
    attn_host_layer_plan *plan = NULL;
    struct fake_compute *fake = malloc(sizeof *fake);
    struct stored_layer s;
    assert_non_null(fake);
    fake_init(fake);
    stored_get(&s, "AttnProcessor_self");
    attn_work work = fake_bind_work(fake, &err), dry = {.size = sizeof dry, .flags = ATTN_WORK_DRY};
    dry.host = fake;
    assert_int_equal(attn_registry_open(&options, &registry, &err), ATTN_OK);
    assert_int_equal(attn_host_processor_open(registry, "org.attnplug.standard", &cpu, &fake->host,
                                              NULL, 0, &processor, &err),
                     ATTN_OK);
    assert_int_equal(
        attn_host_processor_bind(processor, &s.file->layer, NULL, 0, &work, &binding, &err),
        ATTN_OK);
    assert_int_equal(
        attn_host_processor_bind(processor, &s.file->layer, NULL, 0, &work, &second, &err),
        ATTN_OK);
    attn_layer_call call = stored_call(&s);
    call.hidden.data = call.out.data = NULL;
    call.work = &dry;
    assert_int_equal(attn_host_processor_prepare(binding, &call, &plan), ATTN_OK);
    assert_int_equal(attn_host_processor_unbind(binding), ATTN_BUSY);
    assert_int_equal(attn_host_processor_close(processor), ATTN_BUSY);
    attn_host_processor_release(plan);
    assert_int_equal(attn_host_processor_unbind(binding), ATTN_OK);
    assert_int_equal(attn_host_processor_close(processor),
                     ATTN_BUSY); /* the second is still there */
    assert_int_equal(attn_host_processor_unbind(second), ATTN_OK);
    assert_int_equal(attn_host_processor_close(processor), ATTN_OK);
    attn_registry_close(registry);
    stored_close(&s);
    free(fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_read),
        cmocka_unit_test(words_that_do_not_fit),
        cmocka_unit_test(arguments_that_do_not_fit),
        cmocka_unit_test(files_that_do_not_fit),
        cmocka_unit_test(masks_become_biases),
        cmocka_unit_test(masks_that_do_not_fit),
        cmocka_unit_test(slices_that_do_not_fit),
        cmocka_unit_test(unbind_waits_for_plans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
