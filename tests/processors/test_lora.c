/* LoRA through the library: scales that change from call to call, several adapters, merging, and
 * what cannot be combined. */
#include "attn_layer.h"
#include "plugin.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PARAMS = 64, TEXT = 512 };

static attn_registry *registry;
static attn_computer *computer;
static char text[TEXT];
static attn_error err = {sizeof err, sizeof text, text, 0};

static int library_open(void **state)
{
    (void)state;
    const char *folder = getenv("ATTNPLUG_TEST_PLUGINS");
    const attn_registry_options options = {.size = sizeof options,
                                           .flags =
                                               ATTN_REGISTRY_ONLY_PATHS | ATTN_REGISTRY_TRUST_ALL,
                                           .paths = &folder,
                                           .n_paths = 1};
    const attn_device cpu = {.type = ATTN_DEVICE_CPU, .runtime = "cpu"};
    return attn_registry_open(&options, &registry, &err) != ATTN_OK ||
           attn_computer_open(registry, &cpu, 1, &computer, &err) != ATTN_OK;
}

static int library_close(void **state)
{
    (void)state;
    attn_computer_close(computer);
    attn_registry_close(registry);
    return 0;
}

/* A stored layer with parameters that a test may change. */
struct subject {
    struct stored_layer s;
    attn_param params[PARAMS];
    uint32_t n;
    attn_bound *bound;
};

static void subject_open(struct subject *t, const char *stored)
{
    memset(t, 0, sizeof *t);
    stored_get(&t->s, stored);
    t->n = stored_params(&t->s, t->params, PARAMS - 4);
}

static attn_status subject_bind(struct subject *t, const char *processor)
{
    const attn_layer_spec spec = {
        .size = sizeof spec, .processor = processor, .params = t->params, .n_params = t->n};
    *text = '\0';
    return attn_layer_bind(computer, &t->s.file->layer, &spec, &t->bound, &err);
}

static void subject_unbind(struct subject *t)
{
    attn_layer_unbind(t->bound);
    t->bound = NULL;
}

static void subject_close(struct subject *t)
{
    subject_unbind(t);
    stored_close(&t->s);
}

/* out of a run with those runtime parameters; the caller's to free. */
static float *subject_run(struct subject *t, uint32_t flags, const attn_param *params, uint32_t n)
{
    attn_layer_call call = stored_call(&t->s);
    call.flags = flags;
    call.params = params;
    call.n_params = n;
    if (attn_layer_run(t->bound, &call, &err) != ATTN_OK)
        fail_msg("%s", text);
    float *out = malloc((size_t)t->s.out_count * sizeof *out);
    assert_non_null(out);
    memcpy(out, t->s.out, (size_t)t->s.out_count * sizeof *out);
    return out;
}

static void assert_near(struct subject *t, float *a, float *b, double bound)
{
    assert_true(relative_error(a, b, t->s.out_count) <= bound);
    free(a);
    free(b);
}

static void expect_bind(struct subject *t, const char *processor, attn_status status,
                        const char *words)
{
    attn_status got = subject_bind(t, processor);
    if (got != status || !strstr(text, words))
        fail_msg("%s: got %d, \"%s\"; expected %d and \"%s\"", processor, got, text, status, words);
}

/* -- scales ------------------------------------------------------------------------------------ */

/* A scale given with the call is that of a bind with it; the next call has its own again. */
static void scales_travel_with_the_call(void **state)
{
    (void)state;
    struct subject t;
    subject_open(&t, "LoRAAttnProcessor_cross_alpha"); /* bound at 0.7 */
    assert_int_equal(subject_bind(&t, "lora"), ATTN_OK);
    const attn_param now = param_float("scale", 2.5), zero = param_int("scale", 0);
    float *at_bind = subject_run(&t, 0, NULL, 0);
    float *changed = subject_run(&t, 0, &now, 1);
    float *none = subject_run(&t, 0, &zero, 1);
    float *back = subject_run(&t, 0, NULL, 0);
    assert_true(relative_error(changed, at_bind, t.s.out_count) > 1e-2);
    assert_near(&t, back, at_bind, 0);
    subject_unbind(&t);
    for (uint32_t i = 0; i < t.n; i++)
        if (strcmp(t.params[i].name, "scale") == 0)
            t.params[i] = now;
    assert_int_equal(subject_bind(&t, "lora+standard"), ATTN_OK);
    assert_near(&t, subject_run(&t, 0, NULL, 0), changed, 1e-6);
    subject_unbind(&t);
    t.n = 0; /* no file, no terms: the plain layer */
    assert_int_equal(subject_bind(&t, "lora"), ATTN_OK);
    assert_near(&t, subject_run(&t, 0, NULL, 0), none, 1e-6);
    subject_close(&t);
}

static void scales_must_be_numbers(void **state)
{
    (void)state;
    struct subject t;
    subject_open(&t, "LoRAAttnProcessor_self");
    assert_int_equal(subject_bind(&t, "lora"), ATTN_OK);
    const attn_param nan = param_float("scale", NAN);
    attn_layer_call call = stored_call(&t.s);
    call.params = &nan;
    call.n_params = 1;
    assert_int_equal(attn_layer_run(t.bound, &call, &err), ATTN_INVALID);
    assert_non_null(strstr(text, "\"scale\" is nan"));
    free(subject_run(&t, 0, NULL, 0)); /* and the layer works on */
    assert_true(stored_error(&t.s) <= 1e-5);
    subject_close(&t);
}

/* Keys that were kept for one scale are not those of another. */
static void kept_keys_follow_the_scale(void **state)
{
    (void)state;
    struct subject t;
    subject_open(&t, "LoRAAttnProcessor_cross_alpha");
    assert_int_equal(subject_bind(&t, "lora"), ATTN_OK);
    const attn_param now = param_float("scale", 2.5);
    float *first = subject_run(&t, 0, NULL, 0);
    assert_near(&t, subject_run(&t, ATTN_LAYER_CALL_SAME, NULL, 0), first, 0);
    float *whole = subject_run(&t, 0, &now, 1);
    free(subject_run(&t, 0, NULL, 0));
    assert_near(&t, subject_run(&t, ATTN_LAYER_CALL_SAME, &now, 1), whole, 0);
    subject_close(&t);
}

/* -- adapters ---------------------------------------------------------------------------------- */

/* Two at once are the sum of what each does to each linear; one at 0 is the other alone. */
static void several_adapters(void **state)
{
    (void)state;
    struct subject t;
    subject_open(&t, "LoRAAttnProcessor_two");
    assert_int_equal(subject_bind(&t, "lora"), ATTN_OK);
    const attn_param first_off = param_float("first.scale", 0);
    const attn_param both_off[] = {first_off, param_float("second.scale", 0)};
    free(subject_run(&t, 0, NULL, 0));
    assert_true(stored_error(&t.s) <= 1e-5);
    float *second = subject_run(&t, 0, &first_off, 1);
    float *none = subject_run(&t, 0, both_off, 2);
    assert_true(relative_error(second, none, t.s.out_count) > 1e-2);
    subject_unbind(&t);
    uint32_t n = 0; /* the second's alone */
    for (uint32_t i = 0; i < t.n; i++)
        if (strncmp(t.params[i].name, "first.", 6) != 0)
            t.params[n++] = t.params[i];
    t.n = n;
    assert_int_equal(subject_bind(&t, "lora"), ATTN_OK);
    assert_near(&t, subject_run(&t, 0, NULL, 0), second, 1e-6);
    const attn_param global = param_int("scale", 0);
    assert_near(&t, subject_run(&t, 0, &global, 1), none, 1e-6);
    subject_close(&t);
}

/* -- merging ----------------------------------------------------------------------------------- */

static const char *const merged_pairs[][2] = {
    {"LoRAAttnProcessor_self", "lora"},
    {"LoRAAttnProcessor_ranks", "lora"},
    {"LoRAAttnProcessor_two", "lora+standard"},
    {"LoRAAttnAddedKVProcessor_mask", "lora+added_kv"},
    {"LoRAAttnProcessor_vae", "lora"},
    {"lora+ip_adapter_cross", "lora+ip_adapter"},
    {"LoRAAttnProcessor_cross_alpha", "lora+fused"},
};

/* Merged is what unmerged computes, twice over, and leaves the weights as they were. */
static void merged_equals_unmerged(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof merged_pairs / sizeof *merged_pairs; i++) {
        struct subject t;
        subject_open(&t, merged_pairs[i][0]);
        const attn_tensor *w = &t.s.file->layer.to_q.weight;
        const size_t bytes = (size_t)tensor_count(w) * sizeof(float);
        float *before = malloc(bytes);
        assert_non_null(before);
        memcpy(before, w->data, bytes);
        t.params[t.n++] = param_int("merged", 1);
        for (int again = 0; again < 2; again++) {
            if (subject_bind(&t, merged_pairs[i][1]) != ATTN_OK)
                fail_msg("%s: %s", merged_pairs[i][0], text);
            free(subject_run(&t, 0, NULL, 0));
            if (!(stored_error(&t.s) <= 1e-5))
                fail_msg("%s: %g", merged_pairs[i][0], stored_error(&t.s));
            subject_unbind(&t);
            assert_memory_equal(before, w->data, bytes);
        }
        t.n = 0; /* undone: the plain layer, to the bit */
        const char *plain = strchr(merged_pairs[i][1], '+');
        plain = plain ? plain + 1 : "standard";
        if (strcmp(plain, "ip_adapter") != 0) {
            assert_int_equal(subject_bind(&t, plain), ATTN_OK);
            float *after = subject_run(&t, 0, NULL, 0);
            subject_unbind(&t);
            assert_int_equal(subject_bind(&t, plain), ATTN_OK);
            assert_near(&t, subject_run(&t, 0, NULL, 0), after, 0);
        }
        free(before);
        subject_close(&t);
    }
}

static void merged_has_its_scale(void **state)
{
    (void)state;
    struct subject t;
    subject_open(&t, "LoRAAttnProcessor_cross_alpha");
    t.params[t.n++] = param_int("merged", 1);
    assert_int_equal(subject_bind(&t, "lora"), ATTN_OK);
    const attn_param same = param_float("scale", 0.7), other = param_float("scale", 1);
    attn_layer_call call = stored_call(&t.s);
    call.params = &same;
    call.n_params = 1;
    assert_int_equal(attn_layer_run(t.bound, &call, &err), ATTN_OK);
    call.params = &other;
    assert_int_equal(attn_layer_run(t.bound, &call, &err), ATTN_INVALID);
    assert_non_null(strstr(text, "merged at scale 0.7"));
    subject_close(&t);
}

/* -- what cannot be combined ------------------------------------------------------------------- */

static void refused_with_a_reason(void **state)
{
    (void)state;
    struct subject t;
    subject_open(&t, "LoRAAttnProcessor_self");
    expect_bind(&t, "lora+fused", ATTN_UNSUPPORTED, "does not take low-rank terms; merged=1");
    expect_bind(&t, "lora+ip_adapter", ATTN_INVALID, "to_k_ip.0.weight is missing");
    expect_bind(&t, "lora+nothing", ATTN_NOT_FOUND, "lora+nothing");
    t.params[t.n++] = param_int("slice_sise", 2);
    expect_bind(&t, "lora", ATTN_INVALID, "the nearest is \"slice_size\"");
    t.n--;
    t.params[t.n++] = param_int("bach_size", 2);
    expect_bind(&t, "lora+cross_frame", ATTN_INVALID, "the nearest is \"batch_size\"");
    subject_close(&t);
}

static void trained_weights_over_terms(void **state)
{
    (void)state;
    struct subject t, lora;
    subject_open(&t, "CustomDiffusionAttnProcessor_self");
    subject_open(&lora, "LoRAAttnProcessor_self");
    for (uint32_t i = 0; i < lora.n; i++)
        t.params[t.n++] = lora.params[i];
    expect_bind(&t, "lora+custom_diffusion", ATTN_UNSUPPORTED, "would be lost");
    subject_close(&lora);
    subject_close(&t);
}

/* standard has no use for add_k_proj: its terms would be lost without a word. */
static void terms_that_no_linear_saw(void **state)
{
    (void)state;
    struct subject t;
    subject_open(&t, "LoRAAttnAddedKVProcessor_text");
    assert_int_equal(subject_bind(&t, "lora+standard"), ATTN_OK);
    attn_layer_call call = stored_call(&t.s);
    call.encoder.rank = 0;
    assert_int_equal(attn_layer_run(t.bound, &call, &err), ATTN_UNSUPPORTED);
    assert_non_null(strstr(text, "does not apply the low-rank terms of add_k"));
    subject_close(&t);
}

/* Terms for to_k and to_v of a layer that has neither, as upstream's class always makes them. */
static void only_cross_has_no_keys_of_its_own(void **state)
{
    (void)state;
    struct subject t, lora;
    subject_open(&t, "LoRAAttnAddedKVProcessor_only_cross");
    subject_open(&lora, "LoRAAttnProcessor_self");
    for (uint32_t i = 0; i < lora.n; i++)
        if (strncmp(lora.params[i].name, "to_k_", 5) == 0)
            t.params[t.n++] = lora.params[i];
    assert_int_equal(subject_bind(&t, "lora+added_kv"), ATTN_OK);
    free(subject_run(&t, 0, NULL, 0));
    assert_true(stored_error(&t.s) <= 1e-5);
    subject_close(&lora);
    subject_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scales_travel_with_the_call),
        cmocka_unit_test(scales_must_be_numbers),
        cmocka_unit_test(kept_keys_follow_the_scale),
        cmocka_unit_test(several_adapters),
        cmocka_unit_test(merged_equals_unmerged),
        cmocka_unit_test(merged_has_its_scale),
        cmocka_unit_test(refused_with_a_reason),
        cmocka_unit_test(trained_weights_over_terms),
        cmocka_unit_test(terms_that_no_linear_saw),
        cmocka_unit_test(only_cross_has_no_keys_of_its_own),
    };
    return cmocka_run_group_tests(tests, library_open, library_close);
}
