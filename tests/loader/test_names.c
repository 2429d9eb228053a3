/* Names: each one of diffusers' classes, compositions, ids per device, misspellings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attn_router.h"
#include "error.h"

#include <string.h>

static const struct {
    const char *name, *processor, *op;
    uint32_t flags;
} expected[] = {
    {"AttnProcessor", "standard", "math", 0},
    {"AttnProcessor2_0", "standard", "auto", ATTN_NAME_SDPA},
    {"FusedAttnProcessor2_0", "fused", "auto", ATTN_NAME_SDPA},
    {"XFormersAttnProcessor", "standard", "memory_efficient", 0},
    {"SlicedAttnProcessor", "standard", "sliced", 0},
    {"SlicedAttnAddedKVProcessor", "added_kv", "sliced", 0},
    {"LoRAAttnProcessor", "lora", "math", 0},
    {"LoRAAttnProcessor2_0", "lora", "auto", ATTN_NAME_SDPA},
    {"LoRAXFormersAttnProcessor", "lora", "memory_efficient", 0},
    {"LoRAAttnAddedKVProcessor", "lora+added_kv", "auto", 0},
    {"CustomDiffusionAttnProcessor", "custom_diffusion", "math", 0},
    {"CustomDiffusionAttnProcessor2_0", "custom_diffusion", "auto", ATTN_NAME_SDPA},
    {"CustomDiffusionXFormersAttnProcessor", "custom_diffusion", "memory_efficient", 0},
    {"AttnAddedKVProcessor", "added_kv", "math", 0},
    {"AttnAddedKVProcessor2_0", "added_kv", "auto", ATTN_NAME_SDPA},
    {"XFormersAttnAddedKVProcessor", "added_kv", "memory_efficient", 0},
    {"IPAdapterAttnProcessor", "ip_adapter", "math", 0},
    {"IPAdapterAttnProcessor2_0", "ip_adapter", "auto", ATTN_NAME_SDPA},
    {"CrossFrameAttnProcessor", "cross_frame", "math", 0},
    {"CrossFrameAttnProcessor2_0", "cross_frame", "auto", ATTN_NAME_SDPA},
    {"AttnProcessorNPU", "standard", "npu_flash", ATTN_NAME_SDPA | ATTN_NAME_F32_AUTO},
    {"flash_attention_4", NULL, "cuda_flash", 0},
    {"flash_attention_3", NULL, "cuda_flash", 0},
    {"flash_attention_2", NULL, "cuda_flash", 0},
    {"sage_attention", NULL, "sage", 0},
    {"xformers", NULL, "memory_efficient", 0},
    {"torch", NULL, "auto", ATTN_NAME_EXACT},
    {"lora", "lora", "auto", 0},
    {"lora+IPAdapterAttnProcessor2_0", "lora+ip_adapter", "auto", ATTN_NAME_SDPA},
    {"lora+cross_frame", "lora+cross_frame", "auto", 0},
};

static void test_every_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        ATTN_ERROR_ON(err, 512);
        attn_name name = {.size = sizeof name};
        if (attn_name_find(expected[i].name, &name, &err) != ATTN_OK) {
            fail_msg("%s", err.text);
        }
        assert_int_equal(name.flags, expected[i].flags);
        assert_string_equal(name.op, expected[i].op);
        if (expected[i].processor) {
            assert_string_equal(name.processor, expected[i].processor);
        } else {
            assert_null(name.processor);
        }
    }
}

static void test_list_finds_itself(void **state)
{
    attn_name name = {.size = sizeof name};
    uint32_t n = 0;
    (void)state;
    for (; attn_name_get(n, &name) == ATTN_OK; n++) {
        attn_name found = {.size = sizeof found};
        assert_int_equal(attn_name_find(name.name, &found, NULL), ATTN_OK);
        assert_string_equal(found.op, name.op);
        assert_non_null(name.note);
    }
    assert_true(n > 40);
    assert_int_equal(attn_name_get(n, &name), ATTN_NOT_FOUND);
}

static void test_ids(void **state)
{
    static const struct {
        const char *op, *runtime, *id;
    } cases[] = {
        {"math", "cpu", "org.attnplug.math"},
        {"math", "cuda", "org.attnplug.cuda_math"},
        {"memory_efficient", "cuda", "org.attnplug.cuda_flash"},
        {"xformers", "cuda", "org.attnplug.cuda_flash"},
        {"flash_attention_2", "cuda", "org.attnplug.cuda_flash"},
        {"XFormersAttnProcessor", "cpu", "org.attnplug.memory_efficient"},
        {"sliced", "cuda", "org.attnplug.sliced"},
        {"npu_flash", "cann", "org.attnplug.npu_flash"},
        {"com.acme.fast", "cuda", "com.acme.fast"},
    };
    char id[64];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(attn_op_id(cases[i].op, cases[i].runtime, id, NULL), ATTN_OK);
        assert_string_equal(id, cases[i].id);
    }
    ATTN_ERROR_ON(err, 512);
    assert_int_equal(attn_op_id("auto", "cpu", id, &err), ATTN_INVALID);
    assert_int_equal(attn_op_id("torch", "cpu", id, &err), ATTN_INVALID);
    assert_int_equal(attn_processor_id("FusedAttnProcessor2_0", id, &err), ATTN_OK);
    assert_string_equal(id, "org.attnplug.fused");
    assert_int_equal(attn_processor_id("math", id, &err), ATTN_NOT_FOUND);
    assert_int_equal(attn_processor_id("lora+standard", id, &err), ATTN_INVALID);
    char long_id[100];
    memset(long_id, 'a', 99);
    long_id[99] = 0;
    long_id[3] = '.';
    assert_int_equal(attn_op_id(long_id, "cpu", id, &err), ATTN_INVALID);
}

static void test_unknown(void **state)
{
    static const struct {
        const char *typed, *nearest;
    } cases[] = {
        {"AttnProcesor2_0", "AttnProcessor2_0"},
        {"memory-efficient", "memory_efficient"},
        {"xFormers", "xformers"},
        {"ipadapter", "ip_adapter"},
        {"CrossFrameProcessor", "CrossFrameAttnProcessor"},
        {"mth", "math"},
        {"", NULL},
        {"teapot", NULL},
        {"flash", NULL},
        {"com_example_kernel", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ATTN_ERROR_ON(err, 512);
        char quoted[80] = "the nearest is";
        attn_name name = {.size = sizeof name};
        assert_int_equal(attn_name_find(cases[i].typed, &name, &err), ATTN_NOT_FOUND);
        if (cases[i].nearest) {
            (void)snprintf(quoted, sizeof quoted, "the nearest is \"%s\"", cases[i].nearest);
        }
        if (!strstr(err.text, quoted) != !cases[i].nearest) {
            fail_msg("%s: %s", cases[i].typed, err.text);
        }
        assert_non_null(strstr(err.text, "attnplug names"));
    }
    ATTN_ERROR_ON(err, 512);
    char id[64];
    attn_name name = {.size = sizeof name};
    assert_int_equal(attn_processor_id("mathh", id, &err), ATTN_NOT_FOUND);
    assert_null(strstr(err.text, "math\"")); /* is near, but no processor */
    assert_int_equal(attn_op_id("autos", "cpu", id, &err), ATTN_NOT_FOUND);
    assert_null(strstr(err.text, "\"auto\"")); /* is no one op */
    assert_int_equal(attn_name_find("lora+nothing", &name, &err), ATTN_NOT_FOUND);
    assert_int_equal(attn_name_find("lora+fused", &name, &err), ATTN_OK); /* where it is merged */
    assert_int_equal(attn_name_find("fused+lora", &name, &err), ATTN_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_name),
        cmocka_unit_test(test_list_finds_itself),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
