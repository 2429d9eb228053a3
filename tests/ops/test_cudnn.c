/* What needs neither GPU nor library of the cudnn op: which calls it takes, and what it says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cudnn_calls.h"

static struct cudnn_call taken(const attn_op_call *c, int chip, size_t version)
{
    char text[256] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    struct cudnn_call what;
    if (cudnn_take(c, 0, chip, version, &what, &err) != ATTN_OK)
        fail_msg("%s", text);
    return what;
}

static void refused(const attn_op_call *c, int chip, size_t version, const char *says)
{
    char text[256] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    struct cudnn_call what;
    assert_int_equal(cudnn_take(c, 0, chip, version, &what, &err), ATTN_UNSUPPORTED);
    if (!strstr(text, says))
        fail_msg("\"%s\" does not say \"%s\"", text, says);
}

static void test_head_dimensions(void **state)
{
    (void)state;
    attn_op_call c = call_of(4096, 77, 40);
    assert_int_equal(taken(&c, AMPERE, 90000).shape.d, 40);
    c = call_of(256, 256, 160);
    (void)taken(&c, HOPPER, VERSION);
    refused(&c, AMPERE, VERSION, "head dimension 160");
    refused(&c, HOPPER, 90900, "head dimension 160");
    c = call_of(256, 256, 512);
    refused(&c, HOPPER, VERSION, "multiple of 8 from 8 to 256");
    c = call_of(256, 256, 36);
    refused(&c, HOPPER, VERSION, "head dimension 36");
    c = call_of(256, 256, 64);
    c.v.shape[3] = c.out.shape[3] = 32;
    refused(&c, HOPPER, VERSION, "value dimension 32");
    c = call_of(1, 256, 64);
    refused(&c, HOPPER, VERSION, "at least 2");
    c = call_of(256, 0, 64);
    refused(&c, HOPPER, VERSION, "0 keys");
    c = call_of(256, 256, 64);
    refused(&c, HOPPER, 8907, "version is 8907");
    c = call_of(0, 256, 64); /* nothing to do is done */
    (void)taken(&c, HOPPER, VERSION);
}

static void test_what_is_wanted(void **state)
{
    (void)state;
    attn_op_call c = call_of(64, 64, 64);
    c.bias = tensor(2, 8, 64, 64);
    refused(&c, HOPPER, VERSION, "bias");
    c = call_of(64, 64, 64);
    c.mask = tensor(2, 8, 64, 64);
    c.mask.code = ATTN_CODE_UINT, c.mask.bits = 8;
    refused(&c, HOPPER, VERSION, "mask");
    c = call_of(64, 64, 64);
    c.key_mass = (attn_tensor){.shape = {2, 64},
                               .stride = {64, 1},
                               .device_type = ATTN_DEVICE_CUDA,
                               .code = ATTN_CODE_FLOAT,
                               .bits = 32,
                               .lanes = 1,
                               .rank = 2};
    refused(&c, HOPPER, VERSION, "key_mass");
    c = call_of(64, 64, 64);
    assert_false(taken(&c, HOPPER, VERSION).stats);
    c.lse = rows_of(&c.q);
    assert_true(taken(&c, HOPPER, VERSION).stats);
    c.lse.stride[1] = -64;
    refused(&c, HOPPER, VERSION, "lse has stride -64 in dimension 1");
    c = call_of(64, 64, 64);
    c.q.shape[0] = c.k.shape[0] = c.v.shape[0] = c.out.shape[0] = 1;
    c.lse = rows_of(&c.q);
    c.lse.stride[0] = 0; /* of one element: not read */
    assert_true(taken(&c, HOPPER, VERSION).stats);
    c = call_of(64, 64, 64);
    c.q.bits = c.k.bits = c.v.bits = c.out.bits = 32;
    refused(&c, HOPPER, VERSION, "float32");
    c = call_of(64, 64, 64);
    c.scale = -1;
    refused(&c, HOPPER, VERSION, "scale");
}

static void test_memory(void **state)
{
    (void)state;
    attn_op_call c = call_of(64, 64, 64);
    c.v.align = 8;
    refused(&c, HOPPER, VERSION, "v is aligned to 8 bytes");
    c = call_of(64, 64, 64);
    c.k.stride[2] = 68;
    refused(&c, HOPPER, VERSION, "k has stride 68");
    c = call_of(64, 64, 64);
    c.k.stride[1] = 0; /* one head for all, by its stride */
    refused(&c, HOPPER, VERSION, "stride 0");
    c = call_of(64, 64, 64);
    c.q.stride[3] = 2;
    refused(&c, HOPPER, VERSION, "head dimension, expected 1");
    c = call_of(64, 64, 64);
    c.q.device_id = c.k.device_id = c.v.device_id = c.out.device_id = 1;
    refused(&c, HOPPER, VERSION, "device 2:1");
    c = call_of(64, 64, 64);
    c.k.shape[1] = c.v.shape[1] = 2; /* grouped heads */
    (void)taken(&c, HOPPER, VERSION);
}

static void test_bands(void **state)
{
    (void)state;
    attn_op_call c = causal_of(100, 300, 0);
    assert_true(taken(&c, HOPPER, VERSION).causal);
    assert_int_equal(taken(&c, HOPPER, VERSION).shift, 0);
    c = causal_of(100, 300, 200);
    assert_int_equal(taken(&c, HOPPER, VERSION).shift, 200);
    c = causal_of(100, 300, 299);
    assert_false(taken(&c, HOPPER, VERSION).causal);
    c = causal_of(100, 300, INT64_MAX);
    assert_false(taken(&c, HOPPER, VERSION).causal);
    c = causal_of(100, 300, 5);
    refused(&c, HOPPER, VERSION, "the band ends at 5");
    c = causal_of(300, 100, -200); /* the first rows would see nothing */
    refused(&c, HOPPER, VERSION, "the band ends at -200");
    c = causal_of(100, 300, 0);
    c.band_lo = -10;
    refused(&c, HOPPER, VERSION, "the band begins at -10");
    c.band_lo = -99; /* no row reaches that far back */
    (void)taken(&c, HOPPER, VERSION);
}

static void test_no_library(void **state)
{
    (void)state;
    char text[256] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    const struct cudnn_api *api = NULL;
    assert_int_equal(cudnn_load("libcudnn-that-is-nowhere.so.9", &api, &err), ATTN_UNSUPPORTED);
    assert_non_null(strstr(text, "libcudnn-that-is-nowhere.so.9"));
    assert_int_equal(cudnn_load("libc.so.6", &api, &err), ATTN_UNSUPPORTED);
    assert_non_null(strstr(text, "cudnnGetVersion"));
    assert_null(api);
}

static const char *error_string(int code)
{
    return code == CUDNN_STATUS_SUCCESS ? "fine" : "not fine";
}
static void last_error(char *message, size_t bytes)
{
    (void)snprintf(message, bytes, "first\nsecond");
}

/* cuDNN's codes become the contract's statuses, in one line of text. */
static void test_errors(void **state)
{
    (void)state;
    static const struct {
        int code;
        attn_status status;
    } cases[] = {
        {1001, ATTN_UNSUPPORTED}, {1008, ATTN_UNSUPPORTED}, {2003, ATTN_INTERNAL},
        {3002, ATTN_UNSUPPORTED}, {4000, ATTN_DEVICE},      {4003, ATTN_NOMEM},
        {4004, ATTN_NOMEM},       {5001, ATTN_DEVICE},
    };
    const struct cudnn_api api = {.cudnnGetErrorString = error_string,
                                  .cudnnGetLastErrorString = last_error};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256] = "";
        attn_error err = {sizeof err, sizeof text, text, 0};
        assert_int_equal(cudnn_fail(&api, &err, "doing it", cases[i].code), cases[i].status);
        assert_string_equal(text, "cudnn: doing it: not fine: first second");
        assert_int_equal(err.vendor_code, cases[i].code);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head_dimensions), cmocka_unit_test(test_what_is_wanted),
        cmocka_unit_test(test_memory),          cmocka_unit_test(test_bands),
        cmocka_unit_test(test_no_library),      cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
