/* attnplug attend --op npu_flash on stored tensors: right through host memory and by the device's
 * name, and without CANN a text that names the library.  Arguments: attnplug, golden folder. */
#include "../../plugins/common/half.h"
#include "safetensors.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *tool, *golden;
static char result[] = "/tmp/npu_attend_XXXXXX";

/* The command's exit status; its text of errors in `text`. */
static int attend(const char *name, const char *more, char *text, size_t capacity)
{
    char command[4096];
    (void)snprintf(command, sizeof command,
                   "'%s' attend --op npu_flash --in '%s/ops/%s.safetensors' --out '%s' %s 2>&1",
                   tool, golden, name, result, more);
    FILE *pipe = popen(command, "r"); /* NOLINT(cert-env33-c): a command of the test's own */
    assert_non_null(pipe);
    size_t n = fread(text, 1, capacity - 1, pipe);
    text[n] = '\0';
    int status = pclose(pipe);
    return status >= 0 && (status & 0x7f) == 0 ? status >> 8 & 0xff : -1;
}

static double value(const safetensors_tensor *t, uint64_t i)
{
    float f;
    uint16_t h;
    if (t->dtype.bits == 32) {
        memcpy(&f, (const char *)t->data + 4 * i, sizeof f);
        return (double)f;
    }
    memcpy(&h, (const char *)t->data + 2 * i, sizeof h);
    return (double)(t->dtype.code == ATTN_CODE_BFLOAT ? bf16_to_float(h) : fp16_to_float(h));
}

static double distance(const safetensors *got_file, const safetensors *want_file, const char *name)
{
    const safetensors_tensor *got = safetensors_find(got_file, name);
    const safetensors_tensor *want = safetensors_find(want_file, name);
    double sum = 0.0, size = 0.0;
    if (!got || !want)
        return INFINITY;
    for (uint64_t i = 0; i < want->bytes / (want->dtype.bits / 8); i++) {
        double w = value(want, i), g = value(got, i);
        if (isinf(w) || isinf(g)) {
            sum += w == g ? 0.0 : INFINITY;
            continue;
        }
        sum += (g - w) * (g - w);
        size += w * w;
    }
    return sqrt(sum / (size > 0.0 ? size : 1.0));
}

static void check(const char *name, const char *more, double bound)
{
    char text[4096], path[4096];
    ATTN_ERROR_ON(err, 256);
    safetensors *got = NULL, *want = NULL;
    int status = attend(name, more, text, sizeof text);
    if (status != 0)
        fail_msg("%s %s: exit %d: %s", name, more, status, text);
    (void)snprintf(path, sizeof path, "%s/ops/%s.safetensors", golden, name);
    assert_int_equal(safetensors_open(result, &got, &err), ATTN_OK);
    assert_int_equal(safetensors_open(path, &want, &err), ATTN_OK);
    double out = distance(got, want, "out"), lse = distance(got, want, "lse");
    print_message("  %-28s %-16s out %.1e lse %.1e\n", name, more, out, lse);
    assert_true(out <= bound && lse <= bound);
    assert_null(safetensors_find(got, "key_mass")); /* npu_flash does not give it, and it is said */
    assert_non_null(strstr(text, "key_mass"));
    safetensors_close(got);
    safetensors_close(want);
}

static void test_results(void **state)
{
    static const char *const names[] = {"attend_f16",       "attend_f16_d64_gqa",
                                        "attend_f16_mask",  "attend_bf16",
                                        "attend_bf16_mask", "attend_bf16_window_d80"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        double bound = strstr(names[i], "bf16") ? 8e-3 : 1e-3;
        check(names[i], "", bound);
        check(names[i], "--device cann", bound);
    }
}

static void test_fp32(void **state)
{
    char text[4096];
    (void)state;
    assert_int_equal(attend("attend_basic", "", text, sizeof text), 1);
    assert_non_null(strstr(text, "f32"));
}

/* Without CANN, whatever the element type. */
static void test_missing(void **state)
{
    static const char *const names[] = {"attend_basic", "attend_f16", "attend_bf16"};
    char text[4096];
    (void)state;
    assert_int_equal(unsetenv("ASCEND_HOME_PATH"), 0);
    for (size_t i = 0; i < 3; i++)
        for (int k = 0; k < 2; k++) {
            assert_int_equal(attend(names[i], k ? "--device cann" : "", text, sizeof text), 1);
            if (!strstr(text, "libascendcl.so"))
                fail_msg("%s: \"%s\" does not name the library", names[i], text);
        }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_fp32),
        cmocka_unit_test(test_missing),
    };
    int file = argc == 3 ? mkstemp(result) : -1;
    if (file < 0)
        return 2;
    (void)close(file);
    tool = argv[1];
    golden = argv[2];
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(result);
    return failed;
}
