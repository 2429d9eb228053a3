/* Processors alone, over a compute that holds them to the contract: dry runs plan what real runs
 * do, keys are kept, requests reach the layer's own attention, and nothing is lost on a failure. */
#include "plugin.h"

#include <glob.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const processors[] = {"standard", "fused",      "lora",       "custom_diffusion",
                                         "added_kv", "ip_adapter", "cross_frame"};
enum { PROCESSORS = sizeof processors / sizeof *processors, PARAMS = 64 };

/* -- heads and creation ------------------------------------------------------------------------ */

static void heads_say_what_they_are(void **state)
{
    (void)state;
    for (int i = 0; i < PROCESSORS; i++) {
        struct plugin p;
        char id[64];
        plugin_open(&p, processors[i]);
        const attn_head *head = &p.api->head;
        (void)snprintf(id, sizeof id, "org.attnplug.%s", processors[i]);
        assert_int_equal(head->magic, ATTN_MAGIC);
        assert_int_equal(head->abi, ATTN_ABI);
        assert_int_equal(head->size, sizeof *p.api);
        assert_string_equal(head->id, id);
        /* fused packs what terms would hang on; lora brings terms of its own. */
        int without = strcmp(processors[i], "fused") == 0 || strcmp(processors[i], "lora") == 0;
        assert_int_equal((head->flags & ATTN_HEAD_TERMS) != 0, !without);
        const attn_param_list *list = p.api->query("attn.params/1");
        assert_non_null(list);
        assert_null(p.api->query("attn.nothing/1"));
        plugin_close(&p);
    }
}

static void create_wants_compute(void **state)
{
    (void)state;
    const attn_host bare = {.size = sizeof bare, .max_threads = 1};
    const attn_device cpu = {.type = ATTN_DEVICE_CPU, .runtime = "cpu"};
    const attn_param param = param_int("rank", 4);
    for (int i = 0; i < PROCESSORS; i++) {
        struct plugin p;
        attn_processor *none = NULL;
        plugin_open(&p, processors[i]);
        assert_int_equal(p.api->create(&bare, &cpu, NULL, 0, &none, &p.err), ATTN_UNSUPPORTED);
        assert_non_null(strstr(p.text, "attn.compute/1"));
        assert_int_equal(p.api->create(&p.fake.host, &cpu, &param, 1, &none, &p.err), ATTN_INVALID);
        assert_non_null(strstr(p.text, "rank"));
        assert_null(none);
        plugin_close(&p);
    }
}

/* -- every stored layer ------------------------------------------------------------------------ */

/* Compositions need the library. */
static int runs_alone(const struct stored_layer *s)
{
    return !strchr(s->words.spec.processor, '+');
}

struct requests {
    float *lse, *key_mass, *probs;
    int64_t batch, heads, queries, keys;
};

static attn_tensor request_tensor(float **memory, uint32_t rank, const int64_t *shape)
{
    attn_tensor t = {.device_type = ATTN_DEVICE_CPU,
                     .code = ATTN_CODE_FLOAT,
                     .bits = 32,
                     .lanes = 1,
                     .rank = rank};
    int64_t count = 1;
    for (uint32_t i = rank; i-- > 0;) {
        t.shape[i] = shape[i];
        t.stride[i] = count;
        count *= shape[i];
    }
    *memory = malloc((size_t)(count + 1) * sizeof **memory);
    assert_non_null(*memory);
    memset(*memory, 0xff, (size_t)count * sizeof **memory);
    t.data = *memory;
    return t;
}

static void ask(struct requests *r, const struct stored_layer *s, const char *processor,
                attn_layer_call *call)
{
    const attn_tensor *h = &s->file->hidden;
    r->batch = h->shape[0];
    r->heads = s->file->layer.heads;
    r->queries = h->rank == 4 ? h->shape[2] * h->shape[3] : h->shape[1];
    r->keys = layer_file_keys(s->file, processor, 3);
    const int64_t shape[4] = {r->batch, r->heads, r->queries, r->keys};
    const int64_t mass[2] = {r->batch, r->keys};
    call->lse = request_tensor(&r->lse, 3, shape);
    call->probs = request_tensor(&r->probs, 4, shape);
    call->key_mass = request_tensor(&r->key_mass, 2, mass);
}

/* key_mass is the mean over heads of the column sums of probs, and rows of probs sum to 1. */
static void check_requests(const struct requests *r)
{
    for (int64_t b = 0; b < r->batch; b++)
        for (int64_t j = 0; j < r->keys; j++) {
            double mass = 0;
            for (int64_t row = 0; row < r->heads * r->queries; row++)
                mass += (double)r->probs[(b * r->heads * r->queries + row) * r->keys + j];
            double got = (double)r->key_mass[b * r->keys + j];
            assert_true(fabs(got - mass / (double)r->heads) <= 1e-5 * (1 + fabs(got)));
        }
    for (int64_t row = 0; row < r->batch * r->heads * r->queries; row++) {
        double sum = 0;
        for (int64_t j = 0; j < r->keys; j++)
            sum += (double)r->probs[row * r->keys + j];
        assert_true(fabs(sum - 1) <= 1e-5);
        assert_true(isfinite(r->lse[row]));
    }
    free(r->lse);
    free(r->key_mass);
    free(r->probs);
}

/* The processor's file for a stored layer: "lora" runs those with added projections too. */
static const char *file_of(const struct stored_layer *s)
{
    return strncmp(s->name.processor, "lora", 4) == 0 ? "lora" : s->base;
}

static void stored_layers_hold_the_contract(void **state)
{
    (void)state;
    char pattern[1024];
    glob_t files;
    (void)snprintf(pattern, sizeof pattern, "%s/processors/*.safetensors",
                   getenv("ATTNPLUG_TEST_GOLDEN"));
    assert_int_equal(glob(pattern, 0, NULL, &files), 0);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        struct stored_layer s;
        struct plugin p;
        struct requests r;
        attn_binding *b = NULL;
        attn_param params[PARAMS];
        char name[128];
        (void)snprintf(name, sizeof name, "%s", strrchr(files.gl_pathv[i], '/') + 1);
        *strrchr(name, '.') = '\0';
        stored_get(&s, name);
        if (runs_alone(&s)) {
            plugin_open(&p, file_of(&s));
            uint32_t n = stored_params(&s, params, PARAMS);
            if (plugin_bind(&p, &s.file->layer, params, n, &b) != ATTN_OK)
                fail_msg("%s: %s", name, p.text);
            attn_layer_call call = stored_call(&s);
            ask(&r, &s, s.base, &call);
            plugin_run(&p, b, &call);
            if (!(stored_error(&s) <= 2e-6))
                fail_msg("%s: relative error %g", name, stored_error(&s));
            check_requests(&r);
            p.api->unbind(b);
            plugin_close(&p);
        }
        stored_close(&s);
    }
    globfree(&files);
}

/* -- kept keys --------------------------------------------------------------------------------- */

static void scale_tensor(const attn_tensor *t, float factor)
{
    float *data = t->data;
    for (int64_t i = 0; i < tensor_count(t); i++)
        data[i] *= factor;
}

/* A run with SAME gives what a whole run gives, with fewer linears, also on new hidden states. */
static void same_keeps_keys(const char *file, const char *stored, uint32_t saved)
{
    struct plugin p;
    struct stored_layer s;
    attn_param params[PARAMS];
    attn_binding *b = NULL;
    struct fake_run run = {0};
    stored_get(&s, stored);
    plugin_open(&p, file);
    uint32_t n = stored_params(&s, params, PARAMS);
    assert_int_equal(plugin_bind(&p, &s.file->layer, params, n, &b), ATTN_OK);
    attn_layer_call call = stored_call(&s);
    assert_int_equal(fake_prepare(&run, &p.fake, p.api, b, &call), ATTN_OK);
    call.flags = ATTN_LAYER_CALL_SAME;
    assert_int_equal(fake_execute(&run, &call), ATTN_INVALID);
    assert_non_null(strstr(run.text, "ATTN_LAYER_CALL_SAME"));
    call.flags = 0;
    assert_int_equal(fake_execute(&run, &call), ATTN_OK);
    uint32_t whole = p.fake.count[FAKE_LINEAR];
    scale_tensor(&s.file->hidden, 0.5f);
    assert_int_equal(fake_execute(&run, &call), ATTN_OK);
    float *expected = malloc((size_t)s.out_count * sizeof *expected);
    assert_non_null(expected);
    memcpy(expected, s.out, (size_t)s.out_count * sizeof *expected);
    call = stored_call(&s);
    call.flags = ATTN_LAYER_CALL_SAME;
    if (fake_execute(&run, &call) != ATTN_OK)
        fail_msg("%s: %s", stored, run.text);
    assert_int_equal(p.fake.count[FAKE_LINEAR], whole - saved);
    assert_memory_equal(s.out, expected, (size_t)s.out_count * sizeof *expected);
    free(expected);
    fake_release(&run);
    p.api->unbind(b);
    plugin_close(&p);
    stored_close(&s);
}

static void keys_are_kept(void **state)
{
    (void)state;
    same_keeps_keys("standard", "AttnProcessor_norm_cross_group", 2);
    same_keeps_keys("fused", "FusedAttnProcessor2_0_norm_cross_layer", 1);
    same_keeps_keys("lora", "LoRAAttnProcessor_cross_alpha", 2);
    same_keeps_keys("custom_diffusion", "CustomDiffusionAttnProcessor_cross", 2);
    same_keeps_keys("added_kv", "AttnAddedKVProcessor_text", 2);
    same_keeps_keys("added_kv", "AttnAddedKVProcessor_only_cross", 2);
    same_keeps_keys("ip_adapter", "IPAdapterAttnProcessor_two", 6);
    same_keeps_keys("cross_frame", "CrossFrameAttnProcessor_cross", 2);
}

/* In a self layer there is nothing to keep: the flag changes nothing. */
static void same_in_a_self_layer(void **state)
{
    (void)state;
    struct plugin p;
    struct stored_layer s;
    attn_binding *b = NULL;
    struct fake_run run = {0};
    stored_get(&s, "AttnProcessor_self");
    plugin_open(&p, "standard");
    assert_int_equal(plugin_bind(&p, &s.file->layer, NULL, 0, &b), ATTN_OK);
    attn_layer_call call = stored_call(&s);
    call.flags = ATTN_LAYER_CALL_SAME;
    assert_int_equal(fake_prepare(&run, &p.fake, p.api, b, &call), ATTN_OK);
    assert_int_equal(fake_execute(&run, &call), ATTN_OK);
    assert_true(stored_error(&s) <= 2e-6);
    fake_release(&run);
    p.api->unbind(b);
    plugin_close(&p);
    stored_close(&s);
}

/* Two plans of one binding keep their own keys. */
static void plans_keep_apart(void **state)
{
    (void)state;
    struct plugin p;
    struct stored_layer s;
    attn_binding *b = NULL;
    struct fake_run one = {0}, other = {0};
    stored_get(&s, "AttnProcessor_cross");
    plugin_open(&p, "standard");
    assert_int_equal(plugin_bind(&p, &s.file->layer, NULL, 0, &b), ATTN_OK);
    attn_layer_call call = stored_call(&s);
    assert_int_equal(fake_prepare(&one, &p.fake, p.api, b, &call), ATTN_OK);
    assert_int_equal(fake_prepare(&other, &p.fake, p.api, b, &call), ATTN_OK);
    assert_int_equal(fake_execute(&one, &call), ATTN_OK);
    attn_layer_call changed = stored_call(&s);
    scale_tensor(&s.file->encoder, 0.25f);
    assert_int_equal(fake_execute(&other, &changed), ATTN_OK);
    assert_true(stored_error(&s) > 1e-3);
    call = stored_call(&s);
    call.flags = ATTN_LAYER_CALL_SAME;
    assert_int_equal(fake_execute(&one, &call), ATTN_OK);
    assert_true(stored_error(&s) <= 2e-6);
    fake_release(&one);
    fake_release(&other);
    p.api->unbind(b);
    plugin_close(&p);
    stored_close(&s);
}

/* -- memory ------------------------------------------------------------------------------------ */

/* out may be the memory of the hidden states. */
static void out_over_hidden(void **state)
{
    (void)state;
    static const char *const stored[][2] = {{"standard", "AttnProcessor_rescaled"},
                                            {"standard", "AttnProcessor_vae"},
                                            {"fused", "FusedAttnProcessor2_0_rescaled"},
                                            {"added_kv", "AttnAddedKVProcessor_text"}};
    for (size_t i = 0; i < sizeof stored / sizeof *stored; i++) {
        struct plugin p;
        struct stored_layer s;
        attn_binding *b = NULL;
        stored_get(&s, stored[i][1]);
        plugin_open(&p, stored[i][0]);
        assert_int_equal(plugin_bind(&p, &s.file->layer, NULL, 0, &b), ATTN_OK);
        attn_layer_call call = stored_call(&s);
        call.out = call.hidden;
        plugin_run(&p, b, &call);
        memcpy(s.out, call.hidden.data, (size_t)s.out_count * sizeof *s.out);
        assert_true(stored_error(&s) <= 2e-6);
        p.api->unbind(b);
        plugin_close(&p);
        stored_close(&s);
    }
}

/* NCHW with channels last in memory gives the same; rows that are cut out of a picture are refused.
 */
static void pictures_in_other_strides(void **state)
{
    (void)state;
    struct plugin p;
    struct stored_layer s;
    attn_binding *b = NULL;
    stored_get(&s, "AttnProcessor_cross_4d");
    plugin_open(&p, "standard");
    assert_int_equal(plugin_bind(&p, &s.file->layer, NULL, 0, &b), ATTN_OK);
    attn_layer_call call = stored_call(&s);
    attn_tensor last = call.hidden;
    const int64_t c = last.shape[1], h = last.shape[2], w = last.shape[3];
    last.stride[0] = h * w * c;
    last.stride[1] = 1;
    last.stride[2] = w * c;
    last.stride[3] = c;
    float *memory = malloc((size_t)s.out_count * sizeof *memory);
    assert_non_null(memory);
    for (int64_t i = 0; i < s.out_count; i++) {
        int64_t x = i % w, y = i / w % h, ch = i / (w * h) % c, n = i / (w * h * c);
        memory[n * last.stride[0] + ch + y * last.stride[2] + x * last.stride[3]] =
            ((const float *)call.hidden.data)[i];
    }
    last.data = memory;
    last.align = 0;
    call.hidden = last;
    plugin_run(&p, b, &call);
    assert_true(stored_error(&s) <= 2e-6);
    call.hidden.stride[2] += c; /* as if it lay in a wider picture */
    plugin_prepare_refuses(&p, b, &call, ATTN_UNSUPPORTED, "rows of a picture");
    free(memory);
    p.api->unbind(b);
    plugin_close(&p);
    stored_close(&s);
}

/* An allocation that fails leaves nothing behind, and the binding works on. */
static void memory_runs_out(void **state)
{
    (void)state;
    struct plugin p;
    struct stored_layer s;
    attn_binding *b = NULL;
    struct fake_run run = {0};
    stored_get(&s, "AttnProcessor_cross");
    plugin_open(&p, "standard");
    assert_int_equal(plugin_bind(&p, &s.file->layer, NULL, 0, &b), ATTN_OK);
    attn_layer_call call = stored_call(&s);
    p.fake.refuse_alloc_at = 1;
    assert_int_equal(fake_prepare(&run, &p.fake, p.api, b, &call), ATTN_NOMEM);
    assert_null(run.plan);
    plugin_run(&p, b, &call);
    assert_true(stored_error(&s) <= 2e-6);
    p.api->unbind(b);
    plugin_close(&p);
    plugin_open(&p, "fused");
    p.fake.refuse_alloc_at = 1;
    assert_int_equal(plugin_bind(&p, &s.file->layer, NULL, 0, &b), ATTN_NOMEM);
    plugin_close(&p);
    stored_close(&s);
    stored_get(&s, "LoRAAttnProcessor_self");
    for (uint64_t at = 1; at <= 2; at++) {
        attn_param params[PARAMS];
        uint32_t n = stored_params(&s, params, PARAMS - 1);
        params[n++] = param_int("merged", 1);
        plugin_open(&p, "lora");
        p.fake.refuse_alloc_at = at;
        assert_int_equal(plugin_bind(&p, &s.file->layer, params, n, &b), ATTN_NOMEM);
        plugin_close(&p);
    }
    stored_close(&s);
}

/* -- refusals that come through ---------------------------------------------------------------- */

static void attend_refuses(void **state)
{
    (void)state;
    static const char *const stored[][2] = {
        {"standard", "AttnProcessor_self"},
        {"fused", "FusedAttnProcessor2_0_self"},
        {"lora", "LoRAAttnProcessor_self"},
        {"custom_diffusion", "CustomDiffusionAttnProcessor_self"},
        {"added_kv", "AttnAddedKVProcessor_text"},
        {"ip_adapter", "IPAdapterAttnProcessor_one"},
        {"cross_frame", "CrossFrameAttnProcessor_frames"}};
    for (size_t i = 0; i < sizeof stored / sizeof *stored; i++) {
        struct plugin p;
        struct stored_layer s;
        struct requests r;
        attn_param params[PARAMS];
        attn_binding *b = NULL;
        struct fake_run run = {0};
        stored_get(&s, stored[i][1]);
        plugin_open(&p, stored[i][0]);
        uint32_t n = stored_params(&s, params, PARAMS);
        assert_int_equal(plugin_bind(&p, &s.file->layer, params, n, &b), ATTN_OK);
        attn_layer_call call = stored_call(&s);
        ask(&r, &s, s.base, &call);
        p.fake.refuse_attend = ATTN_UNSUPPORTED;
        assert_int_equal(fake_prepare(&run, &p.fake, p.api, b, &call), ATTN_UNSUPPORTED);
        assert_non_null(strstr(run.text, "does not give key_mass"));
        fake_release(&run);
        free(r.lse);
        free(r.key_mass);
        free(r.probs);
        p.api->unbind(b);
        plugin_close(&p);
        stored_close(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_say_what_they_are),
        cmocka_unit_test(create_wants_compute),
        cmocka_unit_test(stored_layers_hold_the_contract),
        cmocka_unit_test(keys_are_kept),
        cmocka_unit_test(same_in_a_self_layer),
        cmocka_unit_test(plans_keep_apart),
        cmocka_unit_test(out_over_hidden),
        cmocka_unit_test(pictures_in_other_strides),
        cmocka_unit_test(memory_runs_out),
        cmocka_unit_test(attend_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
