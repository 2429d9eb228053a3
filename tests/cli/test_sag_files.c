/* attnplug sag: the names and contents of its files, what contradicts, and what is left when it is
 * stopped.
 *
 * Arguments: the program, the built-in model's folder. */
#include "sag_runner.h"

static void test_names(void **state)
{
    (void)state;
    assert_int_equal(quick_run("--num-images-per-prompt 2 --seed 11 --seed 12"
                               " --output 'a%%-%s-%03d.png'"),
                     0);
    assert_string_equal(out_text, "a%-11-000.png\na%-12-001.png\n");
    picture_check("a%-12-001.png", 32, 48, "Seed: 12, Size: 48x32");
    picture_check("a%-12-001.png", 32, 48, ", Batch index: 1, Version: attnplug ");
    assert_int_equal(files_clear(), 2);
    /* the default numbers several */
    assert_int_equal(quick_run("--num-images-per-prompt 2"), 0);
    assert_string_equal(out_text, "sag-0.png\nsag-1.png\n");
    assert_int_equal(files_clear(), 2);
    refused("--prompt x --num-images-per-prompt 2 --output a.png", 2, "--output: a.png", "%d");
    refused("--prompt x --num-images-per-prompt 2 --output a%s.png", 2, "a%s.png", "%d");
    refused("--prompt x --output 100%.png", 2, "100%.png", "%%");
    refused("--prompt x --output a%5s.png", 2, "a%5s.png", "%%");
    refused("--prompt x --output a%x.png", 2, "a%x.png", "%%");
    refused("--prompt x --output a%", 2, "a%", "%%");
}

/* One picture of several is the picture that its seed gives alone. */
static void test_parts(void **state)
{
    struct stat info;
    (void)state;
    assert_int_equal(quick_run("--num-images-per-prompt 2 --output-type npy --output %d.npy"), 0);
    assert_string_equal(out_text, "0.npy\n1.npy\n");
    assert_int_equal(stat("1.npy", &info), 0);
    assert_int_equal(info.st_size, 128 + 4 * 32 * 48 * 3);
    assert_int_equal(files_clear(), 2);
    assert_int_equal(quick_run("--num-images-per-prompt 2 --output-type npy"), 0);
    assert_int_equal(stat("sag.npy", &info), 0);
    assert_int_equal(info.st_size, 128 + 2 * 4 * 32 * 48 * 3);
    assert_int_equal(files_clear(), 1);
    assert_int_equal(quick_run("--num-images-per-prompt 2 --output-type latent"
                               " --output l%d.safetensors"),
                     0);
    assert_string_equal(out_text, "l0.safetensors\nl1.safetensors\n");
    assert_int_equal(files_clear(), 2);
}

/* How it was made stands in the picture, with what is not as usual. */
static void test_parameters(void **state)
{
    (void)state;
    assert_int_equal(quick_run("--eta 0.5 --clip-skip 1 --negative-prompt dog --vae-slicing"
                               " --processor 'mid_block*=standard' --op math"
                               " --cross-attention-kwargs scale=0.5,a.scale=2"),
                     0);
    picture_check("sag.png", 32, 48,
                  "red heart\nNegative prompt: dog\nSteps: 2, Sampler: DDIMScheduler,"
                  " CFG scale: 7.5, Seed: 0, Size: 48x32, Model: emoji-128, Clip skip: 1,"
                  " SAG scale: 0.75, Eta: 0.5, Op: math, Processor: \"mid_block*=standard\","
                  " Cross attention: \"scale=0.5,a.scale=2\", Version: attnplug ");
    assert_int_equal(files_clear(), 1);
}

static void test_same_pixels(void **state)
{
    static char whole[65536], sliced[65536];
    (void)state;
    assert_int_equal(quick_run("--num-images-per-prompt 2 --output w%d.png"), 0);
    assert_int_equal(quick_run("--num-images-per-prompt 2 --output s%d.png --vae-slicing"), 0);
    text_read("w1.png", whole, sizeof whole);
    text_read("s1.png", sliced, sizeof sliced);
    assert_memory_equal(whole, sliced, sizeof whole);
    assert_int_equal(files_clear(), 4);
}

static void test_callback(void **state)
{
    static char first[65536], second[65536];
    (void)state;
    assert_int_equal(run("--prompt 'red heart' --height 32 --width 48 --num-inference-steps 5"
                         " --callback s%02d.safetensors --callback-steps 2 --save-latents"
                         " end.safetensors"),
                     0);
    assert_string_equal(out_text, "sag.png\nend.safetensors\n");
    text_read("s04.safetensors", first, sizeof first);
    text_read("end.safetensors", second, sizeof second);
    assert_non_null(strstr(first + 8, "\"step\":\"4\""));
    assert_non_null(strstr(first + 8, "\"timestep\":\"1\""));
    /* the last step's latents are the last ones */
    assert_memory_equal(strchr(first + 8, '}') ? first + 8 + *(unsigned char *)first : first,
                        second + 8 + *(unsigned char *)second, 4 * 8 * 12 * 4);
    assert_int_equal(files_clear(), 5);
    refused("--prompt x --callback s.safetensors", 2, "--callback: s.safetensors", "%d");
    refused("--prompt x --callback none/s%d --num-inference-steps 2 --height 32", 1, "none/s0",
            "cannot write");
    refused("--prompt x --callback-steps 0", 2, "--callback-steps: 0", "from 1");
}

static void test_contradictions(void **state)
{
    (void)state;
    refused("--prompt-embeds e --clip-skip 1", 2, "--clip-skip and --prompt-embeds", "both");
    refused("--prompt x --negative-prompt y --negative-prompt-embeds z", 2, "--negative-prompt",
            "one of them");
    refused("--prompt x --negative-prompt y --negative-prompt z", 2, "--negative-prompt",
            "given 2 times");
    refused("--prompt x --seed 1 --seed 2", 1, "seed: 2", "1 or 1");
    refused("--prompt x --cross-attention-kwargs scale", 2, "--cross-attention-kwargs scale",
            "name=value");
    refused("--prompt x --cross-attention-kwargs scale=", 2, "scale", "no value");
    refused("--prompt x --cross-attention-kwargs scale=big", 1, "scale", "no finite number");
    refused("--prompt x --cross-attention-kwargs scale=1 --cross-attention-kwargs scale=2", 1,
            "scale", "twice");
    refused("--prompt x --num-inference-steps 1001", 1, "num_inference_steps: 1001", "1000");
    refused("--prompt x --num-images-per-prompt 0", 2, "--num-images-per-prompt: 0", "from 1");
    refused("--prompt x --clip-skip 50", 1, "clip_skip is 50", "layers");
}

/* A word that no processor takes is told of, and changes nothing. */
static void test_unknown_kwarg(void **state)
{
    (void)state;
    assert_int_equal(quick_run("--cross-attention-kwargs gligen=1"), 0);
    assert_non_null(strstr(err_text, "warning: cross_attention_kwargs: gligen"));
    assert_int_equal(files_clear(), 1);
}

/* Embeddings from a file, in place of the text that they were made of. */
static void test_embeddings(void **state)
{
    (void)state;
    refused("--prompt-embeds none", 1, "none", "No such file");
    assert_int_equal(quick_run("--output-type latent --output l.safetensors"), 0);
    assert_int_equal(run("--prompt-embeds l.safetensors"), 1);
    assert_non_null(strstr(err_text, "l.safetensors: no tensor prompt_embeds"));
    assert_int_equal(files_clear(), 1);
}

/* Stopped while it writes each step's latents: what is there is whole, and there is no picture. */
static void test_interrupt(void **state)
{
    const struct timespec wait = {.tv_nsec = 900000000};
    (void)state;
    pid_t child = start("--prompt 'red heart' --num-inference-steps 900 --callback s%d"
                        " --output a.png --save-latents b");
    nanosleep(&wait, NULL);
    assert_int_equal(kill(child, SIGINT), 0);
    assert_int_equal(finish(child), 130);
    assert_non_null(strstr(err_text, "interrupted"));
    assert_string_equal(out_text, "");
    DIR *folder = opendir(".");
    assert_non_null(folder);
    for (struct dirent *e; (e = readdir(folder));) {
        struct stat info;
        assert_int_equal(stat(e->d_name, &info), 0);
        if (e->d_name[0] != '.') {
            assert_int_equal(e->d_name[0], 's'); /* neither a picture nor a part of one */
            assert_true(info.st_size > 4 * 32 * 32 * 4);
        } else {
            assert_true(S_ISDIR(info.st_mode)); /* "." and ".." */
        }
    }
    closedir(folder);
    files_clear();
}

static int all_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),         cmocka_unit_test(test_parts),
        cmocka_unit_test(test_parameters),    cmocka_unit_test(test_same_pixels),
        cmocka_unit_test(test_callback),      cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_unknown_kwarg), cmocka_unit_test(test_embeddings),
        cmocka_unit_test(test_interrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return runner_main(argc, argv, all_tests);
}
