/* What processors refuse: each with the status, and a text that names layer and key. */
#include "plugin.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PARAMS = 64 };

/* A stored layer, its processor and the parameters that it is bound with. */
struct bench {
    struct plugin p;
    struct stored_layer s;
    attn_layer layer; /* to be spoilt */
    attn_param params[PARAMS];
    uint32_t n;
};

static void bench_open(struct bench *b, const char *file, const char *stored)
{
    stored_get(&b->s, stored);
    plugin_open(&b->p, file);
    b->layer = b->s.file->layer;
    b->n = stored_params(&b->s, b->params, PARAMS - 2);
}

static void bench_close(struct bench *b)
{
    plugin_close(&b->p);
    stored_close(&b->s);
}

static void refuses(struct bench *b, attn_status status, const char *words)
{
    plugin_refuses(&b->p, &b->layer, b->params, b->n, status, words);
    b->layer = b->s.file->layer;
}

static attn_param *bench_param(struct bench *b, const char *name)
{
    for (uint32_t i = 0; i < b->n; i++)
        if (strcmp(b->params[i].name, name) == 0)
            return &b->params[i];
    return NULL;
}

static void bench_remove(struct bench *b, const char *name)
{
    attn_param *p = bench_param(b, name);
    assert_non_null(p);
    *p = b->params[--b->n];
}

/* One more parameter, for one refusal. */
static void refuses_with(struct bench *b, attn_param param, attn_status status, const char *words)
{
    b->params[b->n++] = param;
    refuses(b, status, words);
    b->n--;
}

/* -- layers ------------------------------------------------------------------------------------ */

static void weights_of_the_wrong_shape(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, "standard", "AttnProcessor_cross");
    b.layer.to_q.weight.shape[0] = 13;
    refuses(&b, ATTN_INVALID, "to_q.weight is [13, 12], expected [12, 12]");
    b.layer.to_k.weight.shape[1] = 9;
    refuses(&b, ATTN_INVALID, "to_k.weight is [12, 9], expected [12, 10]");
    b.layer.to_v.weight.rank = 3;
    refuses(&b, ATTN_INVALID, "to_v.weight has rank 3, expected 2");
    b.layer.to_out.bias.shape[0] = 11;
    refuses(&b, ATTN_INVALID, "to_out.0.bias is [11], expected [12]");
    b.layer.to_out.weight.shape[1] = 6;
    refuses(&b, ATTN_INVALID, "to_out.0.weight is [12, 6], expected [12, 12]");
    b.layer.to_v.weight.rank = 0;
    refuses(&b, ATTN_INVALID, "to_v.weight is missing");
    b.layer.to_k.weight.rank = 0;
    b.layer.flags |= ATTN_LAYER_ONLY_CROSS;
    refuses(&b, ATTN_INVALID, "runs through added_kv");
    bench_close(&b);
}

static void numbers_that_cannot_be(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, "standard", "AttnProcessor_vae");
    b.layer.heads = 0;
    refuses(&b, ATTN_INVALID, "heads 0");
    b.layer.dim_head = INT64_MAX;
    b.layer.heads = 2;
    refuses(&b, ATTN_INVALID, "dim_head");
    b.layer.scale = NAN;
    refuses(&b, ATTN_INVALID, "scale is nan");
    b.layer.rescale = 0;
    refuses(&b, ATTN_INVALID, "rescale_output_factor is 0");
    b.layer.group_norm.groups = 5;
    refuses(&b, ATTN_INVALID, "5 groups, which do not divide 12 channels");
    b.layer.group_norm.weight.shape[0] = 4;
    refuses(&b, ATTN_INVALID, "group_norm.weight is [4], expected [12]");
    b.layer.group_norm.eps = -1;
    refuses(&b, ATTN_INVALID, "group_norm has eps -1");
    b.layer.flags |= 0x80;
    refuses(&b, ATTN_UNSUPPORTED, "unknown flags 0x80");
    const attn_ext ext = {.id = "vendor.thing/1", .size = sizeof ext, .flags = ATTN_EXT_REQUIRED};
    b.layer.ext = &ext;
    refuses(&b, ATTN_UNSUPPORTED, "vendor.thing/1");
    bench_close(&b);
}

static void terms_that_cannot_be(void **state)
{
    (void)state;
    struct bench b, from;
    bench_open(&b, "standard", "AttnProcessor_self");
    bench_open(&from, "lora", "LoRAAttnProcessor_self");
    attn_term term = {.kind = 7,
                      .factor = 1,
                      .down = *bench_param(&from, "to_q_lora.down.weight")->tensor,
                      .up = *bench_param(&from, "to_q_lora.up.weight")->tensor};
    b.layer.to_q.terms = &term;
    b.layer.to_q.n_terms = 1;
    const attn_layer with_term = b.layer;
    refuses(&b, ATTN_UNSUPPORTED, "to_q has a term of unknown kind 7");
    term.kind = ATTN_TERM_LOW_RANK;
    term.up.shape[1] = 3;
    b.layer = with_term;
    refuses(&b, ATTN_INVALID, "to_q.lora.up.weight is [12, 3], expected [12, 4]");
    term.down.shape[0] = 0;
    b.layer = with_term;
    refuses(&b, ATTN_INVALID, "to_q has a low-rank term of rank 0");
    bench_close(&from);
    bench_close(&b);
}

/* -- calls ------------------------------------------------------------------------------------- */

static attn_binding *bench_bind(struct bench *b)
{
    attn_binding *binding = NULL;
    if (plugin_bind(&b->p, &b->layer, b->params, b->n, &binding) != ATTN_OK)
        fail_msg("%s", b->p.text);
    return binding;
}

static void calls_that_do_not_fit(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, "standard", "AttnProcessor_cross");
    attn_binding *binding = bench_bind(&b);
    attn_layer_call good = stored_call(&b.s), call = good;
    call.hidden.shape[2] = call.out.shape[2] = 11;
    plugin_prepare_refuses(&b.p, binding, &call, ATTN_INVALID, "11 channels, expected 12");
    call = good;
    call.hidden.rank = 2;
    plugin_prepare_refuses(&b.p, binding, &call, ATTN_INVALID, "hidden states of rank 2");
    call = good;
    call.out.shape[1] = 3;
    plugin_prepare_refuses(&b.p, binding, &call, ATTN_INVALID, "out differs");
    call = good;
    call.encoder.shape[0] = 3;
    plugin_prepare_refuses(&b.p, binding, &call, ATTN_INVALID, "batch 3, expected 2");
    call = good;
    call.encoder.rank = 0;
    plugin_prepare_refuses(&b.p, binding, &call, ATTN_INVALID, "encoder states are missing");
    call = good;
    call.flags = 0x10;
    plugin_prepare_refuses(&b.p, binding, &call, ATTN_UNSUPPORTED, "unknown flags 0x10");
    const attn_ext ext = {.id = "vendor.thing/1", .size = sizeof ext, .flags = ATTN_EXT_REQUIRED};
    call = good;
    call.ext = &ext;
    plugin_prepare_refuses(&b.p, binding, &call, ATTN_UNSUPPORTED, "vendor.thing/1");
    plugin_run(&b.p, binding, &good); /* and after all that it works */
    assert_true(stored_error(&b.s) <= 2e-6);
    b.p.api->unbind(binding);
    bench_close(&b);
}

static void prepare_and_run_mixed_up(void **state)
{
    (void)state;
    struct bench b;
    struct fake_run run = {0};
    bench_open(&b, "standard", "AttnProcessor_self");
    attn_binding *binding = bench_bind(&b);
    attn_layer_call call = stored_call(&b.s);
    attn_layer_plan *plan = NULL;
    attn_work work = fake_bind_work(&b.p.fake, &b.p.err);
    call.work = &work;
    assert_int_equal(b.p.api->prepare(binding, &call, &plan), ATTN_INVALID);
    assert_non_null(strstr(b.p.text, "ATTN_WORK_DRY"));
    assert_null(plan);
    assert_int_equal(fake_prepare(&run, &b.p.fake, b.p.api, binding, &call), ATTN_OK);
    run.work.flags = ATTN_WORK_DRY;
    call.work = &run.work;
    assert_int_equal(b.p.api->run(run.plan, &call), ATTN_INVALID);
    call.work = NULL;
    assert_int_equal(b.p.api->run(run.plan, &call), ATTN_INVALID);
    fake_release(&run);
    b.p.api->unbind(binding);
    bench_close(&b);
}

static void spatial_norm_without_its_input(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, "standard", "AttnProcessor_spatial_norm");
    attn_binding *binding = bench_bind(&b);
    attn_layer_call call = stored_call(&b.s);
    call.temb.rank = 0;
    plugin_prepare_refuses(&b.p, binding, &call, ATTN_INVALID, "wants temb");
    call = stored_call(&b.s);
    assert_true(tensor_count(&call.hidden) > 0);
    attn_tensor *both[] = {&call.hidden, &call.out};
    for (int i = 0; i < 2; i++) {
        both[i]->rank = 3;
        both[i]->shape[2] = both[i]->shape[1];
        both[i]->shape[1] = 35;
    }
    plugin_prepare_refuses(&b.p, binding, &call, ATTN_INVALID, "[B, C, height, width]");
    b.p.api->unbind(binding);
    bench_close(&b);
}

/* -- fused ------------------------------------------------------------------------------------- */

static void fused_refuses(void **state)
{
    (void)state;
    struct bench b, added, from;
    bench_open(&b, "fused", "FusedAttnProcessor2_0_self");
    bench_open(&added, "fused", "AttnAddedKVProcessor_text");
    bench_open(&from, "lora", "LoRAAttnProcessor_self");
    refuses(&added, ATTN_UNSUPPORTED, "add_k_proj");
    const attn_term term = {.factor = 1,
                            .down = *bench_param(&from, "to_q_lora.down.weight")->tensor,
                            .up = *bench_param(&from, "to_q_lora.up.weight")->tensor};
    b.layer.to_out.terms = &term;
    b.layer.to_out.n_terms = 1;
    refuses(&b, ATTN_UNSUPPORTED, "merge them");
    b.layer.to_v.weight.code = ATTN_CODE_BFLOAT;
    b.layer.to_v.weight.bits = 16;
    refuses(&b, ATTN_UNSUPPORTED, "differ in element type");
    refuses_with(&b, param_int("slice", 2), ATTN_INVALID, "unknown parameter \"slice\"");
    bench_close(&from);
    bench_close(&added);
    bench_close(&b);
}

/* -- added_kv ---------------------------------------------------------------------------------- */

static void added_kv_refuses(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, "added_kv", "AttnAddedKVProcessor_text");
    b.layer.add_k.weight.rank = 0;
    refuses(&b, ATTN_INVALID, "add_k_proj.weight is missing");
    b.layer.add_v.weight.rank = 0;
    refuses(&b, ATTN_INVALID, "add_v_proj.weight is missing");
    b.layer.group_norm.kind = ATTN_NORM_NONE; /* both norms are missing now */
    refuses(&b, ATTN_INVALID,
            "group_norm is missing: a layer with added projections has it always");
    b.layer.to_k.weight.rank = 0;
    refuses(&b, ATTN_INVALID, "to_k.weight is missing");
    b.layer.add_k.weight.shape[0] = 10;
    refuses(&b, ATTN_INVALID, "add_k_proj.weight is [10, 10], expected [12, 10]");
    attn_binding *binding = bench_bind(&b);
    attn_layer_call call = stored_call(&b.s);
    call.encoder.rank = 0; /* 12 channels of the picture do not fit add_k_proj's 10 */
    plugin_prepare_refuses(&b.p, binding, &call, ATTN_INVALID, "");
    b.p.api->unbind(binding);
    bench_close(&b);
}

/* -- cross_frame ------------------------------------------------------------------------------- */

static void cross_frame_refuses(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, "cross_frame", "CrossFrameAttnProcessor_frames");
    refuses_with(&b, param_int("batch_size", 0), ATTN_INVALID,
                 "\"batch_size\" is 0, expected 1 to");
    refuses_with(&b, param_float("batch_size", 2), ATTN_INVALID,
                 "a number, expected a whole number");
    refuses_with(&b, param_int("batchsize", 2), ATTN_INVALID, "the nearest is \"batch_size\"");
    b.params[b.n++] = param_int("batch_size", 4);
    attn_binding *binding = bench_bind(&b);
    attn_layer_call call = stored_call(&b.s);
    plugin_prepare_refuses(&b.p, binding, &call, ATTN_INVALID, "batch 6");
    b.p.api->unbind(binding);
    bench_close(&b);
}

/* -- custom_diffusion -------------------------------------------------------------------------- */

static void custom_diffusion_refuses(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, "custom_diffusion", "CustomDiffusionAttnProcessor_mask_cross");
    assert_null(bench_param(&b, "train_kv"));
    refuses_with(&b, param_int("train_kv", 0), ATTN_INVALID,
                 "to_k_custom_diffusion.weight is given");
    refuses_with(&b, param_int("train_q_out", 0), ATTN_INVALID, "train_q_out is 0");
    refuses_with(&b, param_int("train_q_out", 2), ATTN_INVALID, "is 2, expected 0 to 1");
    refuses_with(&b, param_int("out_bias", 0), ATTN_INVALID, "out_bias is 0");
    refuses_with(&b, param_float("dropout", 1.5), ATTN_INVALID, "\"dropout\" is 1.5");
    refuses_with(&b, param_int("hidden_size", 16), ATTN_INVALID, "is 16, but the layer has 12");
    refuses_with(&b, param_int("cross_attention_dim", 768), ATTN_INVALID, "but the layer has 10");
    refuses_with(&b, param_int("train_q", 1), ATTN_INVALID, "the nearest is \"train_kv\"");
    const attn_term term = {.factor = 1};
    b.layer.to_k.terms = &term;
    b.layer.to_k.n_terms = 1;
    refuses(&b, ATTN_INVALID, "to_k has a low-rank term of rank 0");
    attn_tensor narrow = *bench_param(&b, "to_v_custom_diffusion.weight")->tensor;
    narrow.shape[1] = 3;
    bench_param(&b, "to_v_custom_diffusion.weight")->tensor = &narrow;
    refuses(&b, ATTN_INVALID, "to_v_custom_diffusion.weight is [12, 3], expected [12, 10]");
    bench_remove(&b, "to_v_custom_diffusion.weight");
    refuses(&b, ATTN_INVALID, "to_v_custom_diffusion.weight is missing");
    bench_close(&b);
    bench_open(&b, "custom_diffusion", "CustomDiffusionAttnProcessor_mask_cross");
    bench_remove(&b, "to_out_custom_diffusion.0.weight");
    refuses(&b, ATTN_INVALID, "to_out_custom_diffusion.0.weight is missing");
    bench_close(&b);
}

/* Terms on a linear that a trained one replaces would be lost. */
static void custom_diffusion_over_terms(void **state)
{
    (void)state;
    struct bench b, from;
    bench_open(&b, "custom_diffusion", "CustomDiffusionAttnProcessor_self");
    bench_open(&from, "lora", "LoRAAttnProcessor_self");
    const attn_term term = {.factor = 1,
                            .down = *bench_param(&from, "to_q_lora.down.weight")->tensor,
                            .up = *bench_param(&from, "to_q_lora.up.weight")->tensor};
    b.layer.to_k.terms = &term;
    b.layer.to_k.n_terms = 1;
    refuses(&b, ATTN_UNSUPPORTED, "to_k_custom_diffusion replaces would be lost");
    bench_close(&from);
    bench_close(&b);
}

/* -- ip_adapter -------------------------------------------------------------------------------- */

static void ip_adapter_refuses_at_bind(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, "ip_adapter", "IPAdapterAttnProcessor_two");
    bench_remove(&b, "scale.1");
    refuses(&b, ATTN_INVALID, "\"scale\" has 1 values for 2 adapters");
    b.params[b.n++] = param_float("scale.2", 1);
    refuses(&b, ATTN_INVALID, "\"scale.1\" is missing");
    bench_remove(&b, "scale.2");
    refuses_with(&b, param_float("scale", 1), ATTN_INVALID, "\"scale\" has 1 values");
    bench_remove(&b, "scale.0");
    bench_remove(&b, "num_tokens.0");
    refuses(&b, ATTN_INVALID, "\"num_tokens\" has 1 values for 2 adapters");
    bench_remove(&b, "num_tokens.1");
    refuses_with(&b, param_int("num_tokens", 4), ATTN_INVALID, "1 value for 2 adapters");
    refuses_with(&b, param_int("cross_attention_dim", 7), ATTN_INVALID, "the weights have 10");
    refuses_with(&b, param_float("scale", NAN), ATTN_INVALID, "\"scale\" is nan");
    refuses_with(&b, param_float("scales", 1), ATTN_INVALID, "the nearest is \"scale\"");
    refuses_with(&b, param_int("to_k_ip.0.weight", 1), ATTN_INVALID, "expected a tensor");
    bench_remove(&b, "to_v_ip.1.weight");
    refuses(&b, ATTN_INVALID, "to_v_ip.1.weight is missing");
    bench_remove(&b, "to_k_ip.0.weight");
    refuses(&b, ATTN_INVALID, "to_k_ip.0.weight is missing");
    b.n = 0;
    refuses(&b, ATTN_INVALID, "to_k_ip.0.weight is missing: no adapter is given");
    bench_close(&b);
}

static void ip_adapter_refuses_calls(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, "ip_adapter", "IPAdapterAttnProcessor_two");
    attn_binding *binding = bench_bind(&b);
    attn_layer_call good = stored_call(&b.s), call = good;
    call.n_images = 1;
    plugin_prepare_refuses(&b.p, binding, &call, ATTN_INVALID, "1 image prompts for 2 adapters");
    call = good;
    call.n_images = 0;
    plugin_prepare_refuses(&b.p, binding, &call, ATTN_INVALID, "0 image prompts for 2 adapters");
    call = good;
    call.encoder.rank = 0;
    plugin_prepare_refuses(&b.p, binding, &call, ATTN_INVALID, "encoder states are missing");
    const attn_param scale = param_float("ip_adapter_scale.1", INFINITY);
    call = good;
    call.params = &scale;
    call.n_params = 1;
    plugin_prepare_refuses(&b.p, binding, &call, ATTN_INVALID, "ip_adapter_scale.1");
    attn_tensor images[2] = {good.images[0], good.images[1]};
    images[1].shape[0] = 1;
    call = good;
    call.images = images;
    plugin_prepare_refuses(&b.p, binding, &call, ATTN_INVALID, "image prompt 1");
    b.p.api->unbind(binding);
    bench_close(&b);
    bench_open(&b, "ip_adapter", "IPAdapterAttnProcessor_tail");
    binding = bench_bind(&b);
    call = stored_call(&b.s);
    call.encoder.shape[1] = 3;
    plugin_prepare_refuses(&b.p, binding, &call, ATTN_INVALID, "cannot end with one of 3");
    b.p.api->unbind(binding);
    bench_close(&b);
}

/* -- lora -------------------------------------------------------------------------------------- */

static void lora_refuses(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, "lora", "LoRAAttnProcessor_self");
    refuses_with(&b, param_int("rank", 0), ATTN_INVALID, "\"rank\" is 0, expected 1 to");
    refuses_with(&b, param_int("rank", 8), ATTN_INVALID, "rank 4, but the parameter says 8");
    refuses_with(&b, param_int("v_rank", 5), ATTN_INVALID, "to_v_lora.down.weight has rank 4");
    refuses_with(&b, param_int("hidden_size", 320), ATTN_INVALID, "but the layer has 12");
    refuses_with(&b, param_int("merged", 3), ATTN_INVALID, "\"merged\" is 3");
    refuses_with(&b, param_float("scale", NAN), ATTN_INVALID, "\"scale\" is nan");
    refuses_with(&b, param_float("style.scale", 1), ATTN_INVALID, "no adapter of that name");
    refuses_with(&b, param_float("scal", 1), ATTN_INVALID, "the nearest is \"scale\"");
    refuses_with(&b, param_float("teapot", 1), ATTN_INVALID, "\"teapot\"; it takes \"");
    refuses_with(&b, *bench_param(&b, "to_q_lora.up.weight"), ATTN_INVALID, "is given twice");
    attn_tensor empty = *bench_param(&b, "to_q_lora.down.weight")->tensor;
    empty.shape[0] = 0;
    bench_param(&b, "to_q_lora.down.weight")->tensor = &empty;
    refuses(&b, ATTN_INVALID, "to_q_lora.down.weight is of rank 0");
    empty.shape[0] = 4;
    empty.shape[1] = 5;
    refuses(&b, ATTN_INVALID,
            "to_q_lora.down.weight has rank 2 and shape [4, 5], expected [4, 12]");
    bench_remove(&b, "to_q_lora.down.weight");
    refuses(&b, ATTN_INVALID, "to_q_lora.down.weight is missing");
    bench_remove(&b, "to_q_lora.up.weight");
    const attn_term term = {.factor = 1,
                            .down = *bench_param(&b, "to_v_lora.down.weight")->tensor,
                            .up = *bench_param(&b, "to_v_lora.up.weight")->tensor};
    b.layer.to_q.terms = &term;
    b.layer.to_q.n_terms = 1;
    refuses(&b, ATTN_UNSUPPORTED, "to_q has low-rank terms already");
    bench_close(&b);
    bench_open(&b, "lora", "LoRAAttnAddedKVProcessor_text");
    b.layer.group_norm.kind = ATTN_NORM_NONE;
    refuses(&b, ATTN_INVALID, "group_norm is missing");
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_of_the_wrong_shape),
        cmocka_unit_test(numbers_that_cannot_be),
        cmocka_unit_test(terms_that_cannot_be),
        cmocka_unit_test(calls_that_do_not_fit),
        cmocka_unit_test(prepare_and_run_mixed_up),
        cmocka_unit_test(spatial_norm_without_its_input),
        cmocka_unit_test(fused_refuses),
        cmocka_unit_test(added_kv_refuses),
        cmocka_unit_test(cross_frame_refuses),
        cmocka_unit_test(custom_diffusion_refuses),
        cmocka_unit_test(custom_diffusion_over_terms),
        cmocka_unit_test(ip_adapter_refuses_at_bind),
        cmocka_unit_test(ip_adapter_refuses_calls),
        cmocka_unit_test(lora_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
