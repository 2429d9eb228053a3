/* Custom Diffusion's weights in a UNet against diffusers 0.26.3, and what is refused. */
#include "adapted.h"
#include "custom_diffusion.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct custom_diffusion *custom_load(struct machine *m, const char *path)
{
    ATTN_ERROR_ON(err, 1024);
    struct custom_diffusion *cd = NULL;
    if (custom_diffusion_open(m->compute, path, &cd, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    return cd;
}

struct chooser {
    struct custom_diffusion *cd;
    const char *processor; /* of every layer; NULL: the default */
};

static attn_status choose(void *ctx, const char *layer, attn_layer_spec *spec, attn_error *err)
{
    const struct chooser *c = ctx;
    spec->processor = c->processor ? c->processor : "standard";
    return custom_diffusion_choose(c->cd, layer, c->processor != NULL, spec, err);
}

static attn_status begin(void *ctx, int64_t cross_dim, attn_error *err)
{
    return custom_diffusion_family(((const struct chooser *)ctx)->cd, cross_dim, err);
}

static void compare(struct machine *m, const char *processor)
{
    ATTN_ERROR_ON(err, 1024);
    char path[512];
    struct chooser chooser = {custom_load(m, golden_path(path, "custom_diffusion_tiny-sd1")),
                              processor};
    const struct unet_processors processors = {.begin = begin, .choose = choose, .ctx = &chooser};
    struct unet *u = unet_load(m, "tiny-sd1", &processors);
    const double error = unet_error(m, u, "tiny-sd1", "unet.custom_diffusion", NULL, 1);
    assert_int_equal(custom_diffusion_done(chooser.cd, &err), ATTN_OK);
    print_message("custom diffusion %-34s %.2e\n", processor ? processor : "", error);
    assert_true(error <= 1e-5);
    unet_close(u);
    custom_diffusion_close(chooser.cd);
}

static void as_diffusers(void **state)
{
    compare(*state, NULL);
    compare(*state, "CustomDiffusionAttnProcessor");
    compare(*state, "CustomDiffusionAttnProcessor2_0");
    compare(*state, "lora+custom_diffusion");
}

/* Layers with weights have the processor, the others do not. */
static void only_its_layers(void **state)
{
    struct machine *m = *state;
    char path[512];
    const char *name;
    const char *processor;
    const char *op;
    uint32_t trained = 0;
    struct chooser chooser = {custom_load(m, golden_path(path, "custom_diffusion_tiny-sd1")), NULL};
    const struct unet_processors processors = {.choose = choose, .ctx = &chooser};
    struct unet *u = unet_load(m, "tiny-sd1", &processors);
    for (uint32_t i = 0; unet_layer(u, i, &name, &processor, &op) == ATTN_OK; i++) {
        const int has = strstr(name, "attn2") && !strstr(name, "up_blocks.1");
        assert_string_equal(processor,
                            has ? "org.attnplug.custom_diffusion" : "org.attnplug.standard");
        trained += (uint32_t)has;
    }
    assert_int_equal(trained, 8);
    unet_close(u);
    custom_diffusion_close(chooser.cd);
}

static void a_processor_that_would_lose_them(void **state)
{
    struct machine *m = *state;
    char path[512];
    struct chooser chooser = {custom_load(m, golden_path(path, "custom_diffusion_tiny-sd1")),
                              "AttnProcessor"};
    const struct unet_processors processors = {.choose = choose, .ctx = &chooser};
    unet_refused(m, "tiny-sd1", &processors, ATTN_INVALID,
                 "down_blocks.0.attentions.0.transformer_blocks.0.attn2");
    unet_refused(m, "tiny-sd1", &processors, ATTN_INVALID, "processor AttnProcessor");
    custom_diffusion_close(chooser.cd);
}

/* tiny-sd2's prompt embeddings are 28 wide, the file's 20. */
static void another_family(void **state)
{
    struct machine *m = *state;
    char path[512];
    struct chooser chooser = {custom_load(m, golden_path(path, "custom_diffusion_tiny-sd1")), NULL};
    const struct unet_processors processors = {.begin = begin, .choose = choose, .ctx = &chooser};
    unet_refused(m, "tiny-sd2", &processors, ATTN_UNSUPPORTED, "prompt embeddings of 20");
    custom_diffusion_close(chooser.cd);
}

/* -- files that are wrong ---------------------------------------------------------------------- */

#define LAYER "down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor."

static safetensors_tensor matrix(const char *name, int64_t rows, int64_t columns)
{
    static const float zeros[4096];
    return (safetensors_tensor){
        .name = name, .dtype = {2, 32}, .rank = 2, .shape = {rows, columns}, .data = zeros};
}

static void file_refused(struct machine *m, const safetensors_tensor *tensors, size_t n,
                         const char *named)
{
    ATTN_ERROR_ON(err, 1024);
    struct custom_diffusion *cd = NULL;
    char *path = file_write(tensors, n);
    assert_int_equal(custom_diffusion_open(m->compute, path, &cd, &err), ATTN_INVALID);
    assert_null(cd);
    if (!strstr(err.text, named)) {
        fail_msg("\"%s\" does not have \"%s\"", err.text, named);
    }
    file_remove(path);
}

static void wrong_files(void **state)
{
    struct machine *m = *state;
    safetensors_tensor t[] = {matrix(LAYER "to_k_custom_diffusion.weight", 8, 20),
                              matrix(LAYER "to_v_custom_diffusion.weight", 8, 20)};
    file_refused(m, t, 1, "without to_v_custom_diffusion.weight");
    t[1].rank = 1;
    file_refused(m, t, 2, "rank 1");
    t[1] = matrix(LAYER "to_v_custom_diffusion.weight", 8, 20);
    t[1].dtype = (safetensors_dtype){0, 32};
    file_refused(m, t, 2, "I32");
    t[1] = matrix(LAYER "to_v_lora.down.weight", 8, 20);
    file_refused(m, t, 2, "may be a LoRA");
    t[1] = matrix(LAYER "to_out_custom_diffusion.0.bias", 8, 1);
    t[1].rank = 1;
    file_refused(m, &t[1], 1, "without to_out_custom_diffusion.0.weight");
    t[0] = matrix("weight", 1, 1);
    file_refused(m, t, 1, "no weight of Custom Diffusion");
    file_refused(m, t, 0, "has no weights");
}

/* What opens, but does not fit the model. */
static void model_refused(struct machine *m, const safetensors_tensor *tensors, const char *named)
{
    char *path = file_write(tensors, 2);
    struct chooser chooser = {custom_load(m, path), NULL};
    const struct unet_processors processors = {.choose = choose, .ctx = &chooser};
    unet_refused(m, "tiny-sd1", &processors, ATTN_INVALID, named);
    custom_diffusion_close(chooser.cd);
    file_remove(path);
}

static void wrong_shapes(void **state)
{
    const safetensors_tensor t[] = {matrix(LAYER "to_k_custom_diffusion.weight", 9, 20),
                                    matrix(LAYER "to_v_custom_diffusion.weight", 8, 20)};
    model_refused(*state, t, "to_k_custom_diffusion");
}

static void a_layer_that_is_not_there(void **state)
{
    struct machine *m = *state;
    ATTN_ERROR_ON(err, 1024);
    const safetensors_tensor t[] = {
        matrix("down_blocks.7.attn2.processor.to_k_custom_diffusion.weight", 8, 20),
        matrix("down_blocks.7.attn2.processor.to_v_custom_diffusion.weight", 8, 20)};
    char *path = file_write(t, 2);
    struct chooser chooser = {custom_load(m, path), NULL};
    const struct unet_processors processors = {.choose = choose, .ctx = &chooser};
    struct unet *u = unet_load(m, "tiny-sd1", &processors);
    assert_int_equal(custom_diffusion_done(chooser.cd, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "down_blocks.7.attn2"));
    unet_close(u);
    custom_diffusion_close(chooser.cd);
    file_remove(path);
}

static void not_safetensors(void **state)
{
    struct machine *m = *state;
    ATTN_ERROR_ON(err, 2048);
    struct custom_diffusion *cd = NULL;
    char *zip = file_of_bytes("PK\003\004data", 8, ".safetensors");
    char *cut = file_of_bytes("\100\0\0\0\0\0\0\0{\"a\":", 13, ".safetensors");
    assert_int_equal(custom_diffusion_open(m->compute, zip, &cd, &err), ATTN_UNSUPPORTED);
    assert_non_null(strstr(err.text, "a pickle"));
    assert_non_null(strstr(err.text, "safetensors.torch"));
    assert_int_equal(custom_diffusion_open(m->compute, cut, &cd, &err), ATTN_INVALID);
    assert_int_equal(custom_diffusion_open(m->compute, "/no/such/file", &cd, &err), ATTN_NOT_FOUND);
    assert_null(cd);
    file_remove(cut);
    file_remove(zip);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_diffusers),
        cmocka_unit_test(only_its_layers),
        cmocka_unit_test(a_processor_that_would_lose_them),
        cmocka_unit_test(another_family),
        cmocka_unit_test(wrong_files),
        cmocka_unit_test(wrong_shapes),
        cmocka_unit_test(a_layer_that_is_not_there),
        cmocka_unit_test(not_safetensors),
    };
    return cmocka_run_group_tests(tests, machine_open, machine_close);
}
