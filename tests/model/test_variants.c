/* Folders that say the same in another way: each gives what the stored model gives. */
#include "broken.h"
#include "text_encoder.h"
#include "unet.h"
#include "vae.h"

#include <stdlib.h>
#include <string.h>

static struct pass *pass_new(struct machine *m)
{
    ATTN_ERROR_ON(err, 512);
    struct pass *pass = NULL;
    assert_int_equal(pass_create(m->compute, &pass, &err), ATTN_OK);
    return pass;
}

static void expect_text(struct machine *m, const char *model, const struct broken *b)
{
    ATTN_ERROR_ON(err, 512);
    safetensors *golden = golden_open("text_encoder", model);
    const safetensors_tensor *ids = golden_find(golden, "input_ids");
    const safetensors_tensor *expected = golden_find(golden, "last_hidden_state");
    attn_tensor out = poisoned(3, expected->shape);
    struct text_encoder *t = NULL;
    if (text_encoder_open(m->compute, b->folder, NULL, &t, &err) != ATTN_OK ||
        text_encoder_run(t, ids->shape[0], ids->data, 0, out.data, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    assert_true(relative_l2(out.data, expected->data, count_of(&out)) <= 1e-5);
    text_encoder_close(t);
    free(out.data);
    safetensors_close(golden);
}

static void expect_picture(struct machine *m, const char *model, const struct broken *b)
{
    ATTN_ERROR_ON(err, 512);
    safetensors *golden = golden_open("vae", model);
    attn_tensor latents = golden_picture(golden, "latents");
    attn_tensor expected = golden_picture(golden, "image");
    attn_tensor out = poisoned(4, expected.shape);
    struct pass *pass = pass_new(m);
    struct vae *v = NULL;
    if (vae_open(m->compute, b->folder, NULL, &v, &err) != ATTN_OK ||
        vae_decode(pass_dry(pass, &err), v, &latents, &out) != ATTN_OK ||
        vae_decode(pass_real(pass, NULL, &err), v, &latents, &out) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    assert_true(relative_l2(out.data, expected.data, count_of(&out)) <= 1e-5);
    pass_destroy(pass);
    vae_close(v);
    free(latents.data);
    free(expected.data);
    free(out.data);
    safetensors_close(golden);
}

static void expect_prediction(struct machine *m, const char *model, const struct broken *b)
{
    ATTN_ERROR_ON(err, 512);
    safetensors *golden = golden_open("unet", model);
    const safetensors_tensor *states = golden_find(golden, "encoder_hidden_states");
    const float time = (float)((const int32_t *)golden_find(golden, "timestep")->data)[0];
    attn_tensor expected = golden_picture(golden, "out");
    struct unet_call call = {.sample = golden_picture(golden, "sample")};
    struct pass *pass = pass_new(m);
    struct unet *u = NULL;
    call.timestep = poisoned(1, call.sample.shape);
    for (int64_t i = 0; i < call.timestep.shape[0]; i++) {
        ((float *)call.timestep.data)[i] = time;
    }
    call.encoder = poisoned(3, states->shape);
    memcpy(call.encoder.data, states->data, states->bytes);
    call.out = poisoned(4, call.sample.shape);
    if (unet_open(m->compute, b->folder, NULL, &u, &err) != ATTN_OK ||
        unet_forward(pass_dry(pass, &err), u, &call) != ATTN_OK ||
        unet_forward(pass_real(pass, NULL, &err), u, &call) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    assert_true(relative_l2(call.out.data, expected.data, count_of(&expected)) <= 1e-5);
    pass_destroy(pass);
    unet_close(u);
    free(expected.data);
    free(call.sample.data);
    free(call.timestep.data);
    free(call.encoder.data);
    free(call.out.data);
    safetensors_close(golden);
}

/* As a bare CLIPTextTransformer is stored. */
static void text_encoder_without_prefix(void **state)
{
    struct broken b = broken_copy("tiny-sd2", "text_encoder");
    broken_rename(&b, "text_model.", "");
    expect_text(*state, "tiny-sd2", &b);
    broken_remove(&b);
}

static void fp32_tensors_at_odd_addresses(void **state)
{
    struct broken b = broken_copy("sag-fast", "text_encoder");
    broken_misalign(&b);
    expect_text(*state, "sag-fast", &b);
    broken_remove(&b);
    b = broken_copy("sag-fast", "unet");
    broken_misalign(&b);
    expect_prediction(*state, "sag-fast", &b);
    broken_remove(&b);
}

static void autoencoder_of_before_diffusers_0_15(void **state)
{
    static const char *const names[][2] = {{"attentions.0.to_q.", "attentions.0.query."},
                                           {"attentions.0.to_k.", "attentions.0.key."},
                                           {"attentions.0.to_v.", "attentions.0.value."},
                                           {"attentions.0.to_out.0.", "attentions.0.proj_attn."}};
    struct broken b = broken_copy("tiny-sd1", "vae");
    for (size_t i = 0; i < 4; i++) {
        broken_rename(&b, names[i][0], names[i][1]);
    }
    expect_picture(*state, "tiny-sd1", &b);
    broken_remove(&b);
}

static void larger_kernels_of_the_first_and_the_last_convolution(void **state)
{
    struct broken b = broken_copy("tiny-sd1", "unet");
    broken_widen(&b, "conv_in.weight");
    broken_set(&b, "conv_in_kernel", "5");
    broken_widen(&b, "conv_out.weight");
    broken_set(&b, "conv_out_kernel", "5");
    expect_prediction(*state, "tiny-sd1", &b);
    broken_remove(&b);
}

static void heads_by_level(void **state)
{
    struct broken b = broken_copy("tiny-sd1", "unet");
    broken_set(&b, "attention_head_dim", "[2, 2, 2]");
    broken_set(&b, "layers_per_block", "[2, 2, 2]");
    broken_set(&b, "transformer_layers_per_block", "[1, 1, 1]");
    broken_set(&b, "only_cross_attention", "[false, false, false]");
    expect_prediction(*state, "tiny-sd1", &b);
    broken_remove(&b);
}

/* What the default means, said: and LCM's extra input, which nobody gives. */
static void options_that_say_the_default(void **state)
{
    struct broken b = broken_copy("tiny-sd1", "unet");
    broken_set(&b, "time_embedding_dim", "32");
    broken_set(&b, "time_cond_proj_dim", "64");
    broken_set(&b, "act_fn", "\"swish\"");
    broken_set(&b, "class_embed_type", "null");
    expect_prediction(*state, "tiny-sd1", &b);
    broken_remove(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_encoder_without_prefix),
        cmocka_unit_test(fp32_tensors_at_odd_addresses),
        cmocka_unit_test(autoencoder_of_before_diffusers_0_15),
        cmocka_unit_test(larger_kernels_of_the_first_and_the_last_convolution),
        cmocka_unit_test(heads_by_level),
        cmocka_unit_test(options_that_say_the_default),
    };
    return cmocka_run_group_tests(tests, machine_open, machine_close);
}
