/* attnplug sag as a user calls it: what it writes, says and returns.
 *
 * Arguments: the program, the built-in model's folder. */
#include "sag_runner.h"

static void test_usage(void **state)
{
    (void)state;
    assert_int_equal(run("--help"), 0);
    assert_non_null(strstr(out_text, "--negative-prompt"));
    assert_string_equal(err_text, "");
    refused("", 2, "--prompt", "none given");
    refused("--promt x", 2, "--promt", "no such option");
    refused("--prompt", 2, "--prompt", "value is missing");
    refused("--prompt x red", 2, "red", "not expected");
}

static void test_values(void **state)
{
    (void)state;
    refused("--prompt x --guidance-scale nan", 2, "--guidance-scale", "nan");
    refused("--prompt x --sag-scale 1e999", 2, "--sag-scale", "expected a number");
    refused("--prompt x --eta 0.5x", 2, "--eta", "0.5x");
    refused("--prompt x --eta 2", 2, "--eta: 2", "0 to 1");
    refused("--prompt x --eta -0.1", 2, "--eta: -0.1", "0 to 1");
    refused("--prompt x --num-inference-steps 0", 2, "--num-inference-steps: 0", "from 1");
    refused("--prompt x --height 0", 2, "--height", "from 1");
    refused("--prompt x --width -8", 2, "--width", "-8");
    refused("--prompt x --num-inference-steps 99999999999", 2, "--num-inference-steps", "9");
    refused("--prompt x --seed -1", 2, "--seed", "-1");
    refused("--prompt x --output-type gif", 2, "--output-type", "gif");
    refused("--prompt x --op fastest", 2, "--op", "fastest");
    refused("--prompt x --processor nonsense", 2, "--processor", "nonsense");
    refused("--prompt x --ip-adapter-image a.png", 2, "--ip-adapter-image", "--ip-adapter");
    refused("--prompt x --image-encoder d", 2, "--image-encoder", "--ip-adapter");
    refused("--prompt x --ip-adapter a", 2, "--ip-adapter", "--ip-adapter-image");
    refused("--prompt x --ip-adapter :2", 2, "--ip-adapter", "names no file");
    refused("--prompt x --ip-adapter a:inf --ip-adapter-image i", 2, "--ip-adapter", "finite");
    refused("--prompt x --ip-adapter a --ip-adapter b --ip-adapter-image i", 2,
            "--ip-adapter-image", "1 times for 2");
    refused("--prompt x --ip-adapter a --ip-adapter-image i --ip-adapter-image-embeds e", 2,
            "--ip-adapter-image-embeds", "both given");
    refused("--prompt x --ip-adapter no.safetensors:0.5 --ip-adapter-image i.png", 1,
            "no.safetensors: ", "No such file");
    refused("--prompt x --processor standard:rank", 2, "rank", "name=value");
    refused("--prompt x --processor math", 2, "math", "--op");
    refused("--prompt x --prompt-embeds y", 2, "--prompt-embeds", "one of them");
    refused("--prompt x --prompt y --output a.png", 2, "a.png", "%d");
}

/* Adapters: the command's part of them is to take the words apart. */
static void test_adapters(void **state)
{
    (void)state;
    refused("--prompt x --lora :0.5", 2, "--lora", "names no file");
    refused("--prompt x --lora f:nan", 2, "--lora", "finite");
    refused("--prompt x --lora f:1:inf", 2, "--lora", "finite");
    refused("--prompt x --lora-scale y", 2, "--lora-scale", "y");
    refused("--prompt x --textual-inversion f:", 2, "--textual-inversion", "no token");
    refused("--prompt x --textual-inversion :t", 2, "--textual-inversion", "names no file");
    /* Only numbers behind a colon are a scale. */
    refused("--prompt x --lora a:b:0.5:2", 1, "a:b: ", "No such file");
    refused("--prompt x --lora a:b", 1, "a:b: ", "No such file");
    refused("--prompt x --textual-inversion a:b:t", 1, "a:b: ", "No such file");
    refused("--prompt x --custom-diffusion a:1", 1, "a:1: ", "No such file");
}

static void test_failures(void **state)
{
    (void)state;
    refused("--prompt x --model none", 1, "none", "expected a model's folder");
    refused("--prompt x --output none/a.png", 1, "none/a.png", "cannot write");
    refused("--prompt x --save-latents none/a", 1, "none/a", "cannot write");
    refused("--prompt x --width 130", 1, "width: 130", "multiple");
    refused("--prompt x --height 16", 1, "height: 16", "self-attention guidance");
    refused("--prompt \"$(printf 'caf\\351')\"", 1, "UTF-8", "offset 3");
    refused("--prompt x --scheduler NoScheduler", 1, "NoScheduler", "DDIMScheduler");
    refused("--prompt x --latents none", 1, "none", "No such file");
    refused("--prompt x --device tpu", 1, "device: tpu", "cpu");
    refused("--prompt x --device cuda:no", 1, "device: cuda:no", "cuda:1");
    refused("--prompt x --device cuda:999", 1, "device cuda", ""); /* no such GPU, or none at all */
    refused("--prompt x --processor '*.attn9=standard'", 1, "*.attn9", "no attention layer");
}

static void test_pictures(void **state)
{
    (void)state;
    assert_int_equal(quick_run(""), 0);
    assert_string_equal(out_text, "sag.png\n");
    assert_string_equal(err_text, "");
    picture_check("sag.png", 32, 48,
                  "red heart\nSteps: 2, Sampler: DDIMScheduler, CFG scale: 7.5,"
                  " Seed: 0, Size: 48x32, Model: emoji-128, SAG scale: 0.75");
    assert_int_equal(files_clear(), 1);
    assert_int_equal(quick_run("--prompt rocket --negative-prompt dog --seed 5 --output 'p %d.png'"
                               " --save-latents l.safetensors"),
                     0);
    assert_string_equal(out_text, "p 0.png\np 1.png\nl.safetensors\n");
    picture_check("p 1.png", 32, 48, "rocket\nNegative prompt: dog\nSteps: 2");
    assert_int_equal(files_clear(), 3);
}

static void test_other_types(void **state)
{
    char bytes[512];
    struct stat info;
    (void)state;
    assert_int_equal(quick_run("--output-type npy"), 0);
    assert_string_equal(out_text, "sag.npy\n");
    assert_int_equal(stat("sag.npy", &info), 0);
    assert_int_equal(info.st_size, 128 + 4 * 32 * 48 * 3);
    text_read("sag.npy", bytes, sizeof bytes);
    assert_memory_equal(bytes, "\x93NUMPY\x01\x00\x76\x00{'descr': '<f4'", 24);
    assert_non_null(strstr(bytes + 10, "'shape': (1, 32, 48, 3)"));
    assert_int_equal(bytes[127], '\n');
    assert_int_equal(files_clear(), 1);
    assert_int_equal(quick_run("--output-type latent"), 0);
    assert_string_equal(out_text, "sag.safetensors\n");
    /* What was written is taken back as a start. */
    assert_int_equal(quick_run("--latents sag.safetensors --height 32 --width 48"), 0);
    assert_int_equal(files_clear(), 2);
}

static void test_long_prompt(void **state)
{
    (void)state;
    assert_int_equal(quick_run("--prompt \"$(yes red heart | head -40 | tr '\\n' ' ') rocket\""
                               " --output 'p%d.png'"),
                     0);
    assert_non_null(strstr(err_text, "warning: "));
    assert_non_null(strstr(err_text, "red heart rocket"));
    assert_int_equal(files_clear(), 2);
}

static void test_same_seed(void **state)
{
    static char first[65536], second[65536];
    (void)state;
    assert_int_equal(quick_run("--seed 3 --output a.png"), 0);
    assert_int_equal(quick_run("--seed 3 --output b.png"), 0);
    text_read("a.png", first, sizeof first);
    text_read("b.png", second, sizeof second);
    assert_memory_equal(first, second, sizeof first);
    assert_int_equal(files_clear(), 2);
}

static void test_interrupt(void **state)
{
    static const int signals[] = {SIGINT, SIGTERM};
    (void)state;
    for (int i = 0; i < 2; i++) {
        const struct timespec wait = {.tv_nsec = 700000000};
        pid_t child = start("--prompt 'red heart' --num-inference-steps 900");
        nanosleep(&wait, NULL);
        assert_int_equal(kill(child, signals[i]), 0);
        assert_int_equal(finish(child), 130);
        assert_non_null(strstr(err_text, "interrupted"));
        assert_string_equal(out_text, "");
        assert_int_equal(files_clear(), 0);
    }
}

/* A model with a safety checker is looked at by it, and used without it on demand only. */
static void test_safety_checker(void **state)
{
    char command[8192];
    (void)state;
    snprintf(command, sizeof command,
             "mkdir m && ln -s %s/* m/ && rm m/model_index.json && mkdir m/safety_checker &&"
             " mv m .m",
             demo_folder);
    assert_int_equal(system(command), 0);
    assert_int_equal(quick_run("--model .m"), 1);
    assert_non_null(strstr(err_text, "--no-safety-checker"));
    assert_int_equal(quick_run("--model .m --no-safety-checker"), 0);
    assert_null(strstr(err_text, "safety checker"));
    assert_int_equal(quick_run("--model .m --no-safety-checker --verbose"), 0);
    assert_non_null(strstr(err_text, "picture 0 flagged by the safety checker: not checked"));
    snprintf(command, sizeof command,
             "rmdir .m/safety_checker && ln -s %s/../../../tests/golden/models/tiny-image/* .m/",
             demo_folder);
    assert_int_equal(system(command), 0);
    assert_int_equal(quick_run("--model .m"), 0);
    assert_non_null(strstr(err_text, "picture 0 flagged by the safety checker: "));
    assert_null(strstr(err_text, "not checked"));
    assert_int_equal(system("rm -r .m"), 0);
    assert_int_equal(files_clear(), 1);
}

static int all_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usage),       cmocka_unit_test(test_values),
        cmocka_unit_test(test_failures),    cmocka_unit_test(test_adapters),
        cmocka_unit_test(test_pictures),    cmocka_unit_test(test_other_types),
        cmocka_unit_test(test_long_prompt), cmocka_unit_test(test_same_seed),
        cmocka_unit_test(test_interrupt),   cmocka_unit_test(test_safety_checker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return runner_main(argc, argv, all_tests);
}
