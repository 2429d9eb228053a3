/* shapes.c: the attentions of known models, batch 2 (with and without the prompt) but for FLUX. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *set;
    struct bench_shape shape;
} known[] = {
    /* Stable Diffusion 1.5 at 512 x 512: self attention, then cross attention to 77 tokens, VAE */
    {"sd15", {2, 8, 4096, 4096, 40}},
    {"sd15", {2, 8, 1024, 1024, 80}},
    {"sd15", {2, 8, 256, 256, 160}},
    {"sd15", {2, 8, 64, 64, 160}},
    {"sd15", {2, 8, 4096, 77, 40}},
    {"sd15", {2, 8, 1024, 77, 80}},
    {"sd15", {2, 8, 256, 77, 160}},
    {"sd15", {1, 1, 4096, 4096, 512}},
    /* Stable Diffusion XL at 1024 x 1024 */
    {"sdxl", {2, 10, 4096, 4096, 64}},
    {"sdxl", {2, 20, 1024, 1024, 64}},
    {"sdxl", {2, 10, 4096, 77, 64}},
    {"sdxl", {2, 20, 1024, 77, 64}},
    /* FLUX.1 at 1024 x 1024: 4096 of the picture and 512 of the prompt */
    {"flux", {1, 24, 4608, 4608, 128}},
};

static bool parse(const char *text, struct bench_shape *s)
{
    int64_t *const numbers[] = {&s->b, &s->h, &s->nq, &s->nk, &s->d};
    for (int i = 0; i < 5; i++) {
        char *end = NULL;
        *numbers[i] = strtoll(text, &end, 10);
        if (end == text || *numbers[i] < 1 || *numbers[i] > 1 << 24 ||
            *end != (i < 4 ? ',' : '\0')) {
            return false;
        }
        text = end + 1;
    }
    return true;
}

bool bench_shapes_add(const char *text, struct bench_shape shapes[BENCH_MAX_SHAPES], int *n)
{
    const int before = *n;
    struct bench_shape one;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].set, text) == 0 && *n < BENCH_MAX_SHAPES) {
            shapes[(*n)++] = known[i].shape;
        }
    }
    if (*n == before && *n < BENCH_MAX_SHAPES && parse(text, &one)) {
        shapes[(*n)++] = one;
    }
    return *n > before;
}

double bench_flop(const struct bench_shape *s)
{
    return 4.0 * (double)s->b * (double)s->h * (double)s->nq * (double)s->nk * (double)s->d;
}
