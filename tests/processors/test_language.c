/* A host that has chosen a language with a decimal comma: numbers keep their point. */
#include "attn_router.h"
#include "processor_words.h"

#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void assert_comma(void)
{
    char text[16];
    (void)snprintf(text, sizeof text, "%.1f", 0.5);
    assert_string_equal(text, "0,5");
}

static void words_of_a_processor(void **state)
{
    (void)state;
    ATTN_ERROR_ON(err, 512);
    struct processor_words w;
    if (processor_words_parse("lora:scale=0.5", &w, &err) != ATTN_OK)
        fail_msg("%s", err.text);
    assert_int_equal(w.params[0].kind, ATTN_PARAM_FLOAT);
    assert_true(w.params[0].f == 0.5);
    processor_words_clear(&w);
    assert_comma();
}

static void measured_order(void **state)
{
    (void)state;
    char path[] = "/tmp/attnplug-test-XXXXXX", text[256] = "";
    ATTN_ERROR_ON(err, 512);
    const attn_order_row row = {sizeof row,          0,       "cpu", "f32", {1, 2, 3, 4, 5},
                                "org.attnplug.math", "0.1.0", 12.25};
    attn_order_row back = {.size = sizeof back};
    uint32_t n = 0;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(attn_order_save(path, &row, 1, &err), ATTN_OK);
    assert_comma();
    close(fd);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t length = fread(text, 1, sizeof text - 1, file);
    text[length] = '\0';
    (void)fclose(file);
    assert_non_null(strstr(text, "12.250\n"));
    if (attn_order_load(path, &back, 1, &n, &err) != ATTN_OK)
        fail_msg("%s", err.text);
    assert_int_equal(n, 1);
    assert_true(back.us == 12.25);
    assert_comma();
    unlink(path);
}

int main(void)
{
    if (!setlocale(LC_ALL, "comma.utf8")) { /* below LOCPATH */
        (void)fputs("the locale comma.utf8 cannot be chosen\n", stderr);
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_of_a_processor),
        cmocka_unit_test(measured_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
