/* Safetensors: what is written is read back, and no lie of a header is believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "attn_host.h"
#include "safetensors.h"

static char scratch[] = "/tmp/attnplug-safetensors-XXXXXX";
static char path[64];

static void file_put(const void *bytes, size_t count)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

/* A file with this header, its true length in front, and `data` bytes of zeros behind. */
static void header_put(const char *header, size_t data)
{
    size_t length = strlen(header);
    uint8_t *bytes = calloc(1, 8 + length + data);
    assert_non_null(bytes);
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)((uint64_t)length >> (8 * i));
    }
    for (size_t i = 0; i < length; i++) {
        bytes[8 + i] = (uint8_t)header[i];
    }
    file_put(bytes, 8 + length + data);
    free(bytes);
}

static void refused(attn_status expected, const char *says)
{
    ATTN_ERROR_ON(err, 512);
    safetensors *file = NULL;
    attn_status status = safetensors_open(path, &file, &err);
    if (status != expected || !strstr(err.text, says) || !strstr(err.text, path)) {
        fail_msg("status %d, \"%s\"; expected %d, \"%s\"", status, err.text, expected, says);
    }
    assert_null(file);
}

static void test_round_trip(void **state)
{
    ATTN_ERROR_ON(err, 256);
    const float a[6] = {1, 2, 3, 4, 5, 6};
    const uint16_t b[3] = {7, 8, 9};
    const uint8_t c[5] = {1, 0, 1, 1, 0};
    const double d = 2.5;
    const safetensors_tensor tensors[] = {
        {.name = "c", .dtype = {1, 8}, .rank = 1, .shape = {5}, .data = c},
        {.name = "a", .dtype = {2, 32}, .rank = 2, .shape = {2, 3}, .data = a},
        {.name = "b", .dtype = {4, 16}, .rank = 3, .shape = {1, 3, 1}, .data = b},
        {.name = "scalar", .dtype = {2, 64}, .rank = 0, .data = &d},
        {.name = "empty", .dtype = {2, 32}, .rank = 2, .shape = {0, 4}, .data = NULL},
    };
    const safetensors_text texts[] = {{"prompt", "a \"red\" \xe2\x9d\xa4"}, {"scale", "0.5"}};
    safetensors *file = NULL;
    (void)state;
    assert_int_equal(safetensors_write(path, tensors, 5, texts, 2, &err), ATTN_OK);
    assert_int_equal(safetensors_open(path, &file, &err), ATTN_OK);
    assert_int_equal(safetensors_count(file), 5);
    assert_string_equal(safetensors_at(file, 0)->name, "a");
    assert_null(safetensors_at(file, 5));
    for (int i = 0; i < 5; i++) {
        const safetensors_tensor *got = safetensors_find(file, tensors[i].name);
        assert_non_null(got);
        assert_int_equal(got->rank, tensors[i].rank);
        assert_memory_equal(got->shape, tensors[i].shape, sizeof got->shape);
        assert_memory_equal(&got->dtype, &tensors[i].dtype, sizeof got->dtype);
        assert_int_equal((uintptr_t)got->data % (tensors[i].dtype.bits / 8u), 0);
        if (got->bytes) {
            assert_memory_equal(got->data, tensors[i].data, got->bytes);
        }
    }
    assert_int_equal(safetensors_find(file, "a")->bytes, 24);
    assert_int_equal(safetensors_find(file, "empty")->bytes, 0);
    assert_null(safetensors_find(file, "z"));
    assert_string_equal(safetensors_metadata(file, "prompt"), texts[0].value);
    assert_null(safetensors_metadata(file, "nothing"));
    safetensors_close(file);
    safetensors_close(NULL);
}

static void test_no_tensors(void **state)
{
    ATTN_ERROR_ON(err, 256);
    safetensors *file = NULL;
    (void)state;
    assert_int_equal(safetensors_write(path, NULL, 0, NULL, 0, &err), ATTN_OK);
    assert_int_equal(safetensors_open(path, &file, &err), ATTN_OK);
    assert_int_equal(safetensors_count(file), 0);
    assert_null(safetensors_find(file, "a"));
    assert_null(safetensors_metadata(file, "a"));
    safetensors_close(file);
}

static void test_no_regular_file(void **state)
{
    ATTN_ERROR_ON(err, 256);
    safetensors *file = NULL;
    (void)state;
    unlink(path);
    assert_int_equal(safetensors_open(path, &file, &err), ATTN_NOT_FOUND);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(safetensors_open(path, &file, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "not a regular file"));
    assert_null(file);
    unlink(path);
}

static void test_lying_headers(void **state)
{
    static const struct {
        const char *header;
        size_t data;
        const char *says;
    } cases[] = {
        {"", 0, "header"},
        {"[]", 0, "JSON object"},
        {"{\"a\": ", 0, "header"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}} x", 8, "header"},
        {"{\"a\":5}", 0, "tensor a: dtype missing"},
        {"{\"a\":{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype F33"},
        {"{\"a\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "tensor a: shape must"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8, "shape must"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8,
         "at most 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "shape[0]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, "shape[0]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807,4],\"data_offsets\":[0,8]}}", 8,
         "2^64"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387906],\"data_offsets\":[0,8]}}", 8,
         "2^64"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,8]}}", 8,
         "header"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}", 8, "two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "in order"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, "in order"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, "cut short"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 8,
         "hold 4 bytes, its dtype and shape need 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 12,
         "12 bytes of data"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, "begin at 4"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         12, "tensor b: its data begin at 4, expected 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
         16, "duplicate"},
        {"{\"__metadata__\":{\"a\":5}}", 0, "__metadata__ key a"},
        {"{\"__metadata__\":[]}", 0, "__metadata__"},
        {"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "header"},
        {"{\"\xff\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "header"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        header_put(cases[i].header, cases[i].data);
        refused(ATTN_INVALID, cases[i].says);
    }
}

static void test_bad_files(void **state)
{
    ATTN_ERROR_ON(err, 256);
    const uint8_t huge[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}'};
    const uint8_t longer[12] = {8, 0, 0, 0, 0, 0, 0, 0, '{', '}', ' ', ' '};
    safetensors *file = NULL;
    (void)state;
    unlink(path);
    refused(ATTN_NOT_FOUND, "No such file");
    file_put("", 0);
    refused(ATTN_INVALID, "at least 8");
    file_put(huge, 7);
    refused(ATTN_INVALID, "at least 8");
    file_put(huge, sizeof huge);
    refused(ATTN_INVALID, "18446744073709551615 bytes");
    file_put(longer, sizeof longer);
    refused(ATTN_INVALID, "cut short");
    assert_int_equal(safetensors_open(scratch, &file, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "not a regular file"));
}

/* Every prefix of a good file is refused, and none is read past its end. */
static void test_truncated(void **state)
{
    ATTN_ERROR_ON(err, 256);
    const float a[3] = {1, 2, 3};
    const safetensors_tensor tensor = {
        .name = "a", .dtype = {2, 32}, .rank = 1, .shape = {3}, .data = a};
    uint8_t bytes[256];
    (void)state;
    assert_int_equal(safetensors_write(path, &tensor, 1, NULL, 0, &err), ATTN_OK);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    assert_true(size > 20 && size < sizeof bytes);
    for (size_t n = 0; n < size; n++) {
        file_put(bytes, n);
        refused(ATTN_INVALID, path);
    }
}

static void test_unwritable(void **state)
{
    ATTN_ERROR_ON(err, 256);
    const float a = 1;
    safetensors_tensor t[2] = {
        {.name = "a", .dtype = {2, 32}, .rank = 1, .shape = {1}, .data = &a},
        {.name = "a", .dtype = {2, 32}, .rank = 1, .shape = {1}, .data = &a},
    };
    (void)state;
    unlink(path);
    assert_int_equal(safetensors_write("/dev/null/x", t, 1, NULL, 0, &err), ATTN_IO);
    assert_int_equal(safetensors_write("/dev/full", t, 1, NULL, 0, &err), ATTN_IO);
    assert_int_equal(safetensors_write(path, t, 2, NULL, 0, &err), ATTN_INVALID);
    t[1].name = "\xff";
    assert_int_equal(safetensors_write(path, t, 2, NULL, 0, &err), ATTN_INVALID);
    t[1].name = "b";
    t[1].shape[0] = -1;
    assert_int_equal(safetensors_write(path, t, 2, NULL, 0, &err), ATTN_INVALID);
    t[1].shape[0] = 1;
    t[1].dtype.bits = 31;
    assert_int_equal(safetensors_write(path, t, 2, NULL, 0, &err), ATTN_INVALID);
    assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),      cmocka_unit_test(test_no_tensors),
        cmocka_unit_test(test_lying_headers),   cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_truncated),       cmocka_unit_test(test_unwritable),
        cmocka_unit_test(test_no_regular_file),
    };
    if (!mkdtemp(scratch)) {
        return 2;
    }
    snprintf(path, sizeof path, "%s/t.safetensors", scratch);
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    rmdir(scratch);
    return failures;
}
