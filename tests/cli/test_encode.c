/* attnplug encode as a user calls it, and sag with what it wrote.
 *
 * Arguments: the program, the built-in model's folder. */
#include "sag_runner.h"

/* attnplug encode with these arguments: its exit status, out_text and err_text. */
static int encode(const char *arguments)
{
    char command[8192];
    snprintf(command, sizeof command, "exec %s encode %s >.out 2>.err </dev/null", program,
             arguments);
    const int status = system(command);
    text_read(".out", out_text, sizeof out_text);
    text_read(".err", err_text, sizeof err_text);
    unlink(".out");
    unlink(".err");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000;
}

static void refused_encode(const char *arguments, int code, const char *first, const char *second)
{
    const int got = encode(arguments);
    if (got != code || !strstr(err_text, first) || !strstr(err_text, second) || *out_text) {
        fail_msg("encode %s: exit %d, stdout \"%s\", stderr \"%s\"", arguments, got, out_text,
                 err_text);
    }
    assert_int_equal(files_clear(), 0);
}

/* A picture of two steps as an array, told by its bytes. */
static void draw(const char *arguments, char *bytes, size_t size)
{
    char all[1024];
    snprintf(all, sizeof all,
             "--height 32 --width 48 --num-inference-steps 2 --output-type npy --output a.npy %s",
             arguments);
    if (run(all) != 0) {
        fail_msg("sag %s: %s", all, err_text);
    }
    text_read("a.npy", bytes, size);
    unlink("a.npy");
}

static void embeddings_are_the_prompts(void **state)
{
    static char expected[1 << 15], found[1 << 15];
    (void)state;
    assert_int_equal(encode("--prompt 'red heart' --negative-prompt dog --clip-skip 1"
                            " --out e.safetensors"),
                     0);
    assert_string_equal(out_text, "e.safetensors\n");
    assert_string_equal(err_text, "");
    draw("--prompt 'red heart' --negative-prompt dog --clip-skip 1", expected, sizeof expected);
    draw("--prompt-embeds e.safetensors", found, sizeof found);
    assert_memory_equal(found, expected, sizeof found);
    /* negatives given besides take the place of those stored */
    draw("--prompt 'red heart' --negative-prompt cat --clip-skip 1", expected, sizeof expected);
    draw("--prompt-embeds e.safetensors --negative-prompt cat", found, sizeof found);
    assert_memory_equal(found, expected, sizeof found);
    assert_int_equal(files_clear(), 1);
}

static void the_empty_negative_is_stored(void **state)
{
    static char expected[1 << 15], found[1 << 15];
    (void)state;
    assert_int_equal(encode("--prompt rocket --out e.safetensors"), 0);
    draw("--prompt rocket", expected, sizeof expected);
    draw("--prompt-embeds e.safetensors", found, sizeof found);
    assert_memory_equal(found, expected, sizeof found);
    assert_int_equal(files_clear(), 1);
}

static void cut_prompts_are_told(void **state)
{
    (void)state;
    assert_int_equal(encode("--prompt \"$(yes red heart | head -40 | tr '\\n' ' ') rocket\""
                            " --prompt cat --out e.safetensors"),
                     0);
    assert_non_null(strstr(err_text, "red heart rocket"));
    assert_int_equal(files_clear(), 1);
}

static void refusals(void **state)
{
    (void)state;
    refused_encode("--out e.safetensors", 2, "--prompt", "none given");
    refused_encode("--prompt x", 2, "--out", "none given");
    refused_encode("--prompt x --prompt y --prompt z --negative-prompt a --negative-prompt b"
                   " --out e.safetensors",
                   2, "--negative-prompt", "3 times");
    refused_encode("--prompt x --clip-skip -1 --out e.safetensors", 2, "--clip-skip", "-1");
    refused_encode("--prompt x --clip-skip 99 --out e.safetensors", 1, "clip_skip is 99", "layers");
    refused_encode("--prompt x --out none/e.safetensors", 1, "none/e.safetensors", "");
    refused_encode("--prompt x --model none --out e.safetensors", 1, "none", "expected a model's");
    refused_encode("--prompt x --variant fp16 --out e.safetensors", 1, "variant fp16", "no part");
    refused_encode("--prompt x --extract-ema --out e.safetensors", 1, "averaged", "folder");
    refused_encode("--prompt x --prediction-type v --out e.safetensors", 2, "--prediction-type",
                   "v_prediction");
    refused_encode("--prompt \"$(printf 'caf\\351')\" --out e.safetensors", 1, "offset 3", "");
}

static int all_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embeddings_are_the_prompts),
        cmocka_unit_test(the_empty_negative_is_stored),
        cmocka_unit_test(cut_prompts_are_told),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return runner_main(argc, argv, all_tests);
}
