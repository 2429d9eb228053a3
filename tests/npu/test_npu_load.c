/* What create says where CANN, or a part of it, is not there.  The environment is the test's; its
 * argument says what is expected: "no cann", "broken", "no operators". */
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *expected;

/* Each of the words, separated by '|', stands in the text. */
static void assert_says(const char *text, const char *words)
{
    char copy[256], *rest = NULL;
    (void)snprintf(copy, sizeof copy, "%s", words);
    for (char *w = strtok_r(copy, "|", &rest); w; w = strtok_r(NULL, "|", &rest))
        if (!strstr(text, w))
            fail_msg("\"%s\" does not say \"%s\"", text, w);
}

static void test_missing(void **state)
{
    (void)state;
    struct npu npu;
    npu_begin(&npu);
    assert_int_equal(npu_create(&npu), ATTN_UNSUPPORTED);
    assert_null(npu.op);
    assert_says(npu.text, expected);
    assert_int_equal(npu_create(&npu), ATTN_UNSUPPORTED); /* and again */
    npu.err.text = NULL;
    npu.err.capacity = 0;
    const attn_device device = {ATTN_DEVICE_EXT, 0, "cann"};
    assert_int_equal(npu.api->create(&npu.host, &device, NULL, 0, &npu.op, NULL), ATTN_UNSUPPORTED);
}

/* A failure is not for good: CANN may be set up after the first try. */
static void test_found_later(void **state)
{
    (void)state;
    struct npu npu;
    const char *home = getenv("NPU_FOUND_LATER");
    if (!home)
        skip();
    npu_begin(&npu);
    assert_int_equal(npu_create(&npu), ATTN_UNSUPPORTED);
    assert_int_equal(setenv("ASCEND_HOME_PATH", home, 1), 0);
    assert_int_equal(npu_create(&npu), ATTN_OK);
    npu_destroy(&npu);
}

/* Folders by the older names of the variable. */
static void test_older_names(void **state)
{
    (void)state;
    struct npu npu;
    npu_begin(&npu);
    assert_int_equal(npu_create(&npu), ATTN_OK);
    npu_destroy(&npu);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest missing[] = {
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_found_later),
    };
    const struct CMUnitTest there[] = {cmocka_unit_test(test_older_names)};
    expected = argc > 1 ? argv[1] : NULL;
    return expected ? cmocka_run_group_tests(missing, NULL, NULL)
                    : cmocka_run_group_tests(there, NULL, NULL);
}
