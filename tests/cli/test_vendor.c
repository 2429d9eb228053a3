/* attnplug with somebody else's plugins: named by their ids, the last parts of those, or their
 * files, wherever a name is taken; and what happens when a named op refuses a call.
 *
 * Arguments: the program, the built-in model's folder, an op (com.acme.flash), a processor
 * (com.acme.layer), an op that takes no mask, bias or band (org.attnplug.test.plain). */
#include "sag_runner.h"

static char *flash, *layer, *narrow;

/* Runs what draws a picture with the three plugins; its stderr must have the words. */
static void draws(const char *more, const char *const *words)
{
    char arguments[2048];
    (void)snprintf(arguments, sizeof arguments,
                   "%s --verbose --plugin-path %s --plugin-path %s --plugin-path %s %s", quick,
                   flash, layer, narrow, more);
    if (run(arguments) != 0) {
        fail_msg("sag %s: %s", more, err_text);
    }
    assert_string_equal(out_text, "sag.png\n");
    for (; *words; words++) {
        if (!strstr(err_text, *words)) {
            fail_msg("sag %s: stderr lacks \"%s\":\n%s", more, *words, err_text);
        }
    }
}

static void draws_not(const char *more, int code, const char *first, const char *second)
{
    char arguments[2048];
    (void)snprintf(arguments, sizeof arguments,
                   "%s --plugin-path %s --plugin-path %s --plugin-path %s %s", quick, flash, layer,
                   narrow, more);
    refused(arguments, code, first, second);
}

static void test_ops(void **state)
{
    static const char *const everywhere[] = {
        "attention 1,4,77,77,48: com.acme.flash (first in text encoder)\n",
        ": com.acme.flash under org.attnplug.standard (first in down_blocks.1.",
        "with key_mass: com.acme.flash under org.attnplug.standard (first in mid_block.",
        "com.acme.flash under org.attnplug.standard (first in decoder.mid_block.", NULL};
    static const char *const own[] = {": org.attnplug.math under ", NULL};
    (void)state;
    draws("--op com.acme.flash", everywhere);
    picture_check("sag.png", 32, 48, ", Op: com.acme.flash, ");
    draws("--op org.attnplug.math", own);
    assert_int_equal(files_clear(), 1);
}

/* The file itself, from the folder that it lies in. */
static void test_files(void **state)
{
    char arguments[1024];
    (void)state;
    assert_int_equal(symlink(flash, "mine.so"), 0);
    assert_int_equal(quick_run("--op ./mine.so"), 0);
    picture_check("sag.png", 32, 48, ", Op: com.acme.flash, ");
    assert_int_equal(files_clear(), 2);
    draws_not("--op ./none.so", 2, "--op: ./none.so", "No such file");
    (void)snprintf(arguments, sizeof arguments, "--op %s", layer);
    draws_not(arguments, 2, layer, "has a processor, and no op");
    (void)snprintf(arguments, sizeof arguments, "--op %s/model_index.json", demo_folder);
    draws_not(arguments, 2, "model_index.json was refused", "NOT_ELF");
}

/* Files in the place of names in --processor, alone, joined, under a glob, as attention_op. */
static void test_processor_files(void **state)
{
    static const struct {
        const char *words, *parameters;
    } right[] = {
        {"./whole.so", ", Processor: \"com.acme.layer\", "},
        {"lora+./whole.so", ", Processor: \"lora+com.acme.layer\", "},
        {"'*attn2=./whole.so:attention_op=./mine.so'",
         ", Processor: \"*attn2=com.acme.layer:attention_op=com.acme.flash\", "},
        {"standard:slice_size=None,attention_op=./mine.so",
         ", Processor: \"standard:slice_size=None,attention_op=com.acme.flash\", "},
    };
    char arguments[1024];
    (void)state;
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        assert_int_equal(symlink(flash, "mine.so"), 0);
        assert_int_equal(symlink(layer, "whole.so"), 0);
        (void)snprintf(arguments, sizeof arguments, "--processor %s", right[i].words);
        if (quick_run(arguments) != 0) {
            fail_msg("sag %s: %s", arguments, err_text);
        }
        picture_check("sag.png", 32, 48, right[i].parameters);
        assert_int_equal(files_clear(), 3);
    }
    draws_not("--processor ./none.so", 2, "--processor: ./none.so", "No such file");
    draws_not("--processor standard:attention_op=./none.so", 2, "--processor: ./none.so",
              "No such file");
    (void)snprintf(arguments, sizeof arguments, "--processor %s", flash);
    draws_not(arguments, 2, flash, "has an op, and no processor");
    (void)snprintf(arguments, sizeof arguments, "--processor standard:attention_op=%s", layer);
    draws_not(arguments, 2, layer, "has a processor, and no op");
    (void)snprintf(arguments, sizeof arguments, "--processor %s/model_index.json", demo_folder);
    draws_not(arguments, 2, "--processor: ", "NOT_ELF");
}

static void test_processors(void **state)
{
    static const char *const all[] = {"under com.acme.layer (first in down_blocks.", NULL};
    static const char *const one[] = {
        "under com.acme.layer (first in down_blocks.1.attentions.0.transformer_blocks.0.attn2)",
        "under org.attnplug.standard (first in down_blocks.", NULL};
    static const char *const op[] = {": com.acme.flash under com.acme.layer (first in", NULL};
    static const char *const some[] = {": com.acme.flash under org.attnplug.standard (first in "
                                       "down_blocks.1.attentions.0.transformer_blocks.0.attn1)",
                                       ": org.attnplug.memory_efficient under ", NULL};
    static const char *const fused[] = {" under org.attnplug.fused (first in ", NULL};
    (void)state;
    draws("--processor com.acme.layer", all);
    draws("--processor '*attn2=com.acme.layer'", one);
    draws("--processor layer:attention_op=flash", op);
    draws("--processor lora+com.acme.layer --op flash", op);
    draws("--processor '*attn1=standard:attention_op=com.acme.flash'", some);
    draws("--processor org.attnplug.fused", fused);
    assert_int_equal(files_clear(), 1);
}

static void test_unknown(void **state)
{
    (void)state;
    draws_not("--op com.acme.flashy", 2, "no plugin has the id \"com.acme.flashy\"", "looked in: ");
    draws_not("--op com.acme.layer", 2, "com.acme.layer is a processor, not an op", "vendor_layer");
    draws_not("--processor com.acme.flash", 2, "com.acme.flash is an op, not a processor", "--pr");
    draws_not("--processor lora+com.acme.laye", 2, "no plugin has the id \"com.acme.laye\"",
              "in: ");
    draws_not("--processor flash", 2, "\"flash\" is no processor or op", "attnplug names");
    draws_not("--op org.attnplug.nothing", 2, "no plugin has the id \"org.attnplug.nothing\"",
              "in:");
}

/* A named op that refuses a call ends the run with its own words. */
static void test_refusal(void **state)
{
    static const char *const some[] = {
        ": org.attnplug.test.plain under org.attnplug.standard (first in "
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1)",
        NULL};
    (void)state;
    draws_not("--op plain", 1, "text encoder: plain: plain: only fp32 without bias, mask or band",
              "plain");
    draws("--processor '*attn1=standard:attention_op=plain'", some);
    assert_int_equal(files_clear(), 1);
}

static int all_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ops),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_processor_files),
        cmocka_unit_test(test_processors),
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_refusal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        return 2;
    }
    flash = realpath(argv[3], NULL);
    layer = realpath(argv[4], NULL);
    narrow = realpath(argv[5], NULL);
    int failures = flash && layer && narrow ? runner_main(3, argv, all_tests) : 2;
    free(flash);
    free(layer);
    free(narrow);
    return failures;
}
