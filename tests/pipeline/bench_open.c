/* How much memory opening a model takes over what its weights need: what the process held at most,
 * and the weights in fp32, which is what a CPU computes with.
 *
 * Usage: bench_open PLUGINS MODEL [VARIANT] */
#include "attn_host.h"
#include "attn_sag.h"
#include "sag_files.h"
#include "tensor_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A line of /proc/self/status in bytes. */
static double status_line(const char *key)
{
    char line[256];
    double kilobytes = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, strlen(key)) == 0) {
            kilobytes = strtod(line + strlen(key) + 1, NULL);
        }
    }
    if (file) {
        fclose(file);
    }
    return kilobytes * 1024;
}

/* Bytes in fp32 of the tensors that a pipeline uses: all but the VAE's encoder. */
static double weights_bytes(const attn_sag_open_options *o, attn_error *err)
{
    static const char *const bases[] = {"diffusion_pytorch_model", "diffusion_pytorch_model",
                                        "model"};
    struct sag_files files;
    double bytes = 0;
    attn_status status = files_open(&files, o, err);
    for (int part = PART_UNET; part <= PART_TEXT && !status; part++) {
        struct model_source source;
        struct tensor_set *set = NULL;
        char *folder = NULL;
        status = files_source(&files, (enum model_part)part, &source, &folder, err);
        if (!status) {
            status = tensor_set_open(&source, bases[part], &set, err);
        }
        for (size_t i = 0; !status && i < tensor_set_count(set); i++) {
            const safetensors_tensor *t = tensor_set_at(set, i);
            if (strncmp(t->name, "encoder.", 8) != 0 || part != PART_VAE) {
                bytes += (double)t->bytes * 32 / t->dtype.bits;
            }
        }
        tensor_set_close(set);
        free(folder);
    }
    files_close(&files);
    return bytes;
}

int main(int argc, char **argv)
{
    ATTN_ERROR_ON(err, 2048);
    attn_registry *registry = NULL;
    attn_sag *sag = NULL;
    if (argc < 3) {
        (void)fprintf(stderr, "usage: bench_open PLUGINS MODEL [VARIANT]\n");
        return 2;
    }
    const char *paths[] = {argv[1]};
    const attn_registry_options options = {.size = sizeof options,
                                           .flags =
                                               ATTN_REGISTRY_ONLY_PATHS | ATTN_REGISTRY_TRUST_ALL,
                                           .paths = paths,
                                           .n_paths = 1};
    const attn_sag_open_options o = {.size = sizeof o,
                                     .model = argv[2],
                                     .scheduler = "DDIMScheduler",
                                     .variant = argc > 3 ? argv[3] : NULL};
    struct timespec begin;
    struct timespec end;
    const double before = status_line("VmHWM:");
    clock_gettime(CLOCK_MONOTONIC, &begin);
    attn_status status = attn_registry_open(&options, &registry, &err);
    if (!status) {
        status = attn_sag_open(registry, &o, &sag, &err);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    const double peak = status_line("VmHWM:");
    const double anonymous = status_line("RssAnon:");
    const double mapped = status_line("RssFile:");
    const double weights = status ? 0 : weights_bytes(&o, &err);
    if (!status) {
        printf("weights %.0f MB, peak %.0f MB (%+.1f %%), then %.0f MB of own memory and %.0f MB of"
               " files; %.0f MB before; %.1f s\n",
               weights / 1e6, peak / 1e6, 100 * (peak / weights - 1), anonymous / 1e6, mapped / 1e6,
               before / 1e6,
               (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec));
    } else {
        (void)fprintf(stderr, "bench_open: %s\n", err.text);
    }
    attn_sag_close(sag);
    attn_registry_close(registry);
    return status != ATTN_OK;
}
