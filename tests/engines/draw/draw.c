/* draw.c: an engine that embeds the whole pipeline, attn_sag.h, and nothing else.
 *
 *   draw MODEL "PROMPT" OUT.ppm [STEPS]     Ctrl-C stops after the current step, and no file is
 * left
 */
#include <attn_sag.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static attn_sag *sag;

static void on_interrupt(int number)
{
    (void)number;
    /* attn_sag.h promises it for signal handlers and any thread; the linter cannot know. */
    attn_sag_cancel(sag); /* NOLINT(bugprone-signal-handler) */
}

static int32_t on_step(void *ctx, uint32_t step, uint32_t n_steps, float timestep,
                       const attn_tensor *latents)
{
    (void)ctx;
    printf("step %u of %u, timestep %g, latents %lld x %lld\n", step + 1, n_steps, timestep,
           (long long)latents->shape[3], (long long)latents->shape[2]);
    return fflush(stdout) != 0; /* anything but 0 stops */
}

static int write_ppm(const char *path, const attn_tensor *image)
{
    FILE *file = fopen(path, "wb");
    size_t bytes = (size_t)(image->shape[1] * image->shape[2] * 3);
    if (!file)
        return 1;
    fprintf(file, "P6\n%lld %lld\n255\n", (long long)image->shape[2], (long long)image->shape[1]);
    int bad = fwrite(image->data, 1, bytes, file) != bytes;
    return fclose(file) != 0 || bad;
}

int main(int argc, char **argv)
{
    char text[1024] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    attn_registry *plugins = NULL;
    if (argc < 4)
        return 2;
    const char *prompts[] = {argv[2]};
    const uint64_t seeds[] = {7};
    /* zeroes stand for the defaults */
    attn_sag_open_options open = {.size = sizeof open, .model = argv[1]};
    attn_sag_run_options run = {.size = sizeof run,
                                .prompts = prompts,
                                .n_prompts = 1,
                                .seeds = seeds,
                                .n_seeds = 1,
                                .callback = on_step,
                                .num_inference_steps = argc > 4 ? (uint32_t)atoi(argv[4]) : 25,
                                .output_type = "pil"};
    attn_sag_result result = {.size = sizeof result};
    int failed =
        attn_registry_open(NULL, &plugins, &err) || attn_sag_open(plugins, &open, &sag, &err);
    if (!failed) {
        signal(SIGINT, on_interrupt);
        failed = attn_sag_run(sag, &run, &result, &err) != ATTN_OK;
    }
    if (failed)
        fprintf(stderr, "draw: %s\n", text);
    else if ((failed = write_ppm(argv[3], &result.images)))
        fprintf(stderr, "draw: cannot write %s\n", argv[3]);
    attn_sag_result_free(&result);
    attn_sag_close(sag);
    attn_registry_close(plugins);
    return failed;
}
