/* UNets against diffusers 0.26.3: every option that is supported, odd sizes, batches. */
#include "machine.h"
#include "unet.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct unet *net_open(struct machine *m, const char *model, const struct unet_processors *p)
{
    ATTN_ERROR_ON(err, 512);
    char folder[512];
    struct unet *u = NULL;
    model_folder(folder, model, "unet");
    if (unet_open(m->compute, folder, p, &u, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    return u;
}

/* The stored call, with outputs of NaN. */
static struct unet_call golden_call(const safetensors *golden)
{
    const safetensors_tensor *states = golden_find(golden, "encoder_hidden_states");
    const safetensors_tensor *timestep = golden_find(golden, "timestep");
    struct unet_call call = {.sample = golden_picture(golden, "sample")};
    call.timestep = poisoned(1, call.sample.shape);
    for (int64_t i = 0; i < call.sample.shape[0]; i++) {
        ((float *)call.timestep.data)[i] = (float)((const int32_t *)timestep->data)[0];
    }
    call.encoder = poisoned(3, states->shape);
    memcpy(call.encoder.data, states->data, states->bytes);
    call.out = poisoned(4, call.sample.shape);
    return call;
}

static void call_free(struct unet_call *call)
{
    free(call->sample.data);
    free(call->timestep.data);
    free(call->encoder.data);
    free(call->out.data);
    free(call->key_mass.data);
}

static void compare(struct machine *m, struct unet *u, const safetensors *golden, const char *model,
                    const char *how)
{
    struct unet_call call = golden_call(golden);
    attn_tensor expected = golden_picture(golden, "out");
    double error;
    unet_run(m, u, &call);
    error = relative_l2(call.out.data, expected.data, count_of(&expected));
    print_message("unet %-10s %-16s %.2e\n", model, how, error);
    assert_true(error <= 1e-5);
    free(expected.data);
    call_free(&call);
}

static void matches_diffusers(void **state)
{
    struct machine *m = *state;
    for (size_t i = 0; i < n_models; i++) {
        safetensors *golden = golden_open("unet", model_names[i]);
        struct unet *u = net_open(m, model_names[i], NULL);
        compare(m, u, golden, model_names[i], "auto");
        unet_close(u);
        safetensors_close(golden);
    }
}

/* -- the choice of processors ---------------------------------------------------------------- */

struct chooser {
    char first[128];
    uint32_t asked;
    const char *op;
};

static attn_status choose(void *ctx, const char *layer, attn_layer_spec *spec, attn_error *err)
{
    struct chooser *c = ctx;
    (void)err;
    if (c->asked++ == 0) {
        (void)snprintf(c->first, sizeof(c->first), "%s", layer);
    }
    spec->processor = "standard";
    spec->op = c->op;
    return ATTN_OK;
}

static attn_status refuse(void *ctx, const char *layer, attn_layer_spec *spec, attn_error *err)
{
    (void)ctx;
    (void)spec;
    return attn_fail(err, ATTN_UNSUPPORTED, "nothing for %s", layer);
}

static void every_layer_is_chosen_and_told(void **state)
{
    struct machine *m = *state;
    struct chooser chooser = {.op = "math"};
    const struct unet_processors processors = {.choose = choose, .ctx = &chooser};
    struct unet *u = net_open(m, "tiny-odd", &processors);
    safetensors *golden = golden_open("unet", "tiny-odd");
    const char *name;
    const char *processor;
    const char *op;
    uint32_t n = 0;
    compare(m, u, golden, "tiny-odd", "math");
    assert_string_equal(chooser.first, "down_blocks.1.attentions.0.transformer_blocks.0.attn1");
    while (unet_layer(u, n, &name, &processor, &op) == ATTN_OK) {
        assert_string_equal(processor, "org.attnplug.standard");
        assert_string_equal(op, "org.attnplug.math");
        n++;
    }
    /* two down and three up attentions and the mid one, each of two blocks of two layers */
    assert_int_equal(n, 24);
    assert_int_equal(chooser.asked, 24);
    assert_int_equal(unet_layer(u, 23, &name, &processor, &op), ATTN_OK);
    assert_string_equal(name, "mid_block.attentions.0.transformer_blocks.1.attn2");
    safetensors_close(golden);
    unet_close(u);
}

static void a_refused_layer_is_named(void **state)
{
    struct machine *m = *state;
    ATTN_ERROR_ON(err, 512);
    const struct unet_processors processors = {.choose = refuse};
    struct unet *u = NULL;
    char folder[512];
    model_folder(folder, "tiny-sd1", "unet");
    assert_int_equal(unet_open(m->compute, folder, &processors, &u, &err), ATTN_UNSUPPORTED);
    assert_non_null(strstr(err.text, "down_blocks.0.attentions.0.transformer_blocks.0.attn1"));
    assert_null(u);
}

/* -- what SAG asks for ----------------------------------------------------------------------- */

/* Each query's weights sum to one, so a sample's key mass sums to the number of queries; asking for
 * it changes nothing else. */
static void key_mass_comes_from_the_same_pass(void **state)
{
    struct machine *m = *state;
    for (size_t i = 0; i < n_models; i++) {
        safetensors *golden = golden_open("unet", model_names[i]);
        struct unet *u = net_open(m, model_names[i], NULL);
        struct unet_call call = golden_call(golden);
        attn_tensor expected = golden_picture(golden, "out");
        int64_t size[2];
        int64_t tokens;
        unet_mid_size(u, call.sample.shape[1], call.sample.shape[2], &size[0], &size[1]);
        tokens = size[0] * size[1];
        call.key_mass = poisoned(2, (const int64_t[]){call.sample.shape[0], tokens});
        unet_run(m, u, &call);
        assert_true(relative_l2(call.out.data, expected.data, count_of(&expected)) <= 1e-5);
        for (int64_t b = 0; b < call.sample.shape[0]; b++) {
            double sum = 0;
            for (int64_t t = 0; t < tokens; t++) {
                sum += ((const float *)call.key_mass.data)[b * tokens + t];
            }
            assert_true(fabs(sum - (double)tokens) <= 1e-5 * (double)tokens);
        }
        free(expected.data);
        call_free(&call);
        unet_close(u);
        safetensors_close(golden);
    }
}

/* The second run may keep the keys and values of the first. */
static void same_encoder_changes_nothing(void **state)
{
    struct machine *m = *state;
    ATTN_ERROR_ON(err, 512);
    safetensors *golden = golden_open("unet", "tiny-sd2");
    struct unet *u = net_open(m, "tiny-sd2", NULL);
    struct unet_call call = golden_call(golden);
    attn_tensor expected = golden_picture(golden, "out");
    struct pass *pass = NULL;
    attn_work *w;
    assert_int_equal(pass_create(m->compute, &pass, &err), ATTN_OK);
    assert_int_equal(unet_forward(pass_dry(pass, &err), u, &call), ATTN_OK);
    w = pass_real(pass, NULL, &err);
    assert_non_null(w);
    assert_int_equal(unet_forward(w, u, &call), ATTN_OK);
    poison_arena(w);
    memset(call.out.data, 0xff, (size_t)count_of(&call.out) * sizeof(float));
    call.same_encoder = 1;
    if (unet_forward(w, u, &call) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    assert_true(relative_l2(call.out.data, expected.data, count_of(&expected)) <= 1e-5);
    pass_destroy(pass);
    free(expected.data);
    call_free(&call);
    unet_close(u);
    safetensors_close(golden);
}

/* -- what cannot be ---------------------------------------------------------------------------- */

static void expect_refused(struct machine *m, struct unet *u, const struct unet_call *call,
                           const char *named)
{
    ATTN_ERROR_ON(err, 512);
    struct pass *pass = NULL;
    assert_int_equal(pass_create(m->compute, &pass, &err), ATTN_OK);
    assert_int_equal(unet_forward(pass_dry(pass, &err), u, call), ATTN_INVALID);
    if (!strstr(err.text, named)) {
        fail_msg("\"%s\" does not name %s", err.text, named);
    }
    pass_destroy(pass);
}

static void refuses_wrong_shapes(void **state)
{
    struct machine *m = *state;
    safetensors *golden = golden_open("unet", "tiny-odd");
    struct unet *u = net_open(m, "tiny-odd", NULL);
    struct unet_call right = golden_call(golden);
    struct unet_call call = right;
    call.sample.shape[3] = 5;
    expect_refused(m, u, &call, "sample");
    call = right;
    call.sample.shape[1] = call.out.shape[1] = 1; /* half of it, rounded down, is nothing */
    expect_refused(m, u, &call, "too small");
    call = right;
    call.timestep.shape[0] = 1;
    expect_refused(m, u, &call, "timestep");
    call = right;
    call.encoder.shape[2] = 12;
    expect_refused(m, u, &call, "encoder");
    call = right;
    call.out.shape[2] = 6;
    expect_refused(m, u, &call, "out");
    call = right;
    call.key_mass = right.timestep;
    expect_refused(m, u, &call, "key_mass");
    call_free(&right);
    unet_close(u);
    safetensors_close(golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_diffusers),
        cmocka_unit_test(every_layer_is_chosen_and_told),
        cmocka_unit_test(a_refused_layer_is_named),
        cmocka_unit_test(key_mass_comes_from_the_same_pass),
        cmocka_unit_test(same_encoder_changes_nothing),
        cmocka_unit_test(refuses_wrong_shapes),
    };
    return cmocka_run_group_tests(tests, machine_open, machine_close);
}
