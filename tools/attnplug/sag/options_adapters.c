/* options_adapters.c: what changes a model's weights or its words. */
#include "options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t rows(struct sag_arguments *arguments, cli_option *rows)
{
    struct adapters_options *a = &arguments->adapters;
    size_t n = 0;
    a->lora_scale = 1;
    rows[n++] = (cli_option){"lora", CLI_TEXTS, &a->lora_texts, "FILE[:SCALE[:TEXT_SCALE]]",
                             "at that scale (1), at another in the text encoder; may be repeated"};
    rows[n++] = (cli_option){"lora-scale", CLI_FLOAT, &a->lora_scale, "X",
                             "of all --lora together, besides their own (1)"};
    rows[n++] = (cli_option){"lora-ignore-unknown", CLI_FLAG, &a->ignore_unknown, NULL,
                             "go on where a LoRA's file has tensors that fit nothing in the model"};
    rows[n++] = (cli_option){"custom-diffusion", CLI_TEXT, &a->custom_diffusion, "FILE",
                             "weights of Custom Diffusion"};
    rows[n++] =
        (cli_option){"textual-inversion", CLI_TEXTS, &a->inversion_texts, "FILE[:TOKEN]",
                     "vectors of a new token, which prompts may then have; may be repeated"};
    return n;
}

static char *copy_keep(struct adapters_options *a, const char *text)
{
    char *copy = strdup(text);
    if (copy) {
        a->copies[a->n_copies++] = copy;
    }
    return copy;
}

bool number_cut(char *text, double *number)
{
    char *colon = strrchr(text, ':');
    char *end = NULL;
    if (!colon || !colon[1]) {
        return false;
    }
    *number = strtod(colon + 1, &end);
    if (*end) {
        return false;
    }
    *colon = 0;
    return true;
}

static int lora_read(struct adapters_options *a, uint32_t i)
{
    const char *text = a->lora_texts.items[i];
    attn_sag_lora *lora = &a->loras[i];
    double last = 1;
    double first = 1;
    char *copy = copy_keep(a, text);
    if (!copy) {
        return cli_fail("out of memory");
    }
    *lora = (attn_sag_lora){.file = copy, .scale = a->lora_scale};
    if (number_cut(copy, &last)) {
        lora->scale = last * a->lora_scale;
        if (number_cut(copy, &first)) {
            lora->scale = first * a->lora_scale;
            lora->text_encoder_scale = last * a->lora_scale;
            lora->flags = ATTN_SAG_LORA_TEXT_SCALE;
        }
    }
    if (!isfinite(first) || !isfinite(last)) {
        return cli_misuse("--lora: \"%s\", expected finite scales", text);
    }
    return *copy ? 0 : cli_misuse("--lora: \"%s\" names no file", text);
}

static int inversion_read(struct adapters_options *a, uint32_t i)
{
    const char *text = a->inversion_texts.items[i];
    char *copy = copy_keep(a, text);
    if (!copy) {
        return cli_fail("out of memory");
    }
    a->inversions[i] = (attn_sag_inversion){.file = copy};
    char *colon = strrchr(copy, ':');
    /* A file that has a colon in its name is meant as a whole. */
    if (colon && access(copy, F_OK) != 0) {
        *colon = 0;
        a->inversions[i].token = colon + 1;
        if (!colon[1]) {
            return cli_misuse("--textual-inversion: \"%s\" has no token behind its colon", text);
        }
    }
    return *copy ? 0 : cli_misuse("--textual-inversion: \"%s\" names no file", text);
}

static int check(struct sag_arguments *arguments)
{
    struct adapters_options *a = &arguments->adapters;
    int wrong = 0;
    for (uint32_t i = 0; i < a->lora_texts.n && !wrong; i++) {
        wrong = lora_read(a, i);
    }
    for (uint32_t i = 0; i < a->inversion_texts.n && !wrong; i++) {
        wrong = inversion_read(a, i);
    }
    return wrong;
}

static void open(struct sag_arguments *arguments, attn_sag_open_options *o)
{
    const struct adapters_options *a = &arguments->adapters;
    o->loras = a->loras;
    o->n_loras = a->lora_texts.n;
    o->inversions = a->inversions;
    o->n_inversions = a->inversion_texts.n;
    o->custom_diffusion = a->custom_diffusion;
    o->flags |= a->ignore_unknown ? ATTN_SAG_LORA_IGNORE_UNKNOWN : 0;
}

/* Those that change a picture, so that it can be made again. */
static void describe(const struct sag_arguments *arguments, FILE *to)
{
    const struct adapters_options *a = &arguments->adapters;
    for (uint32_t i = 0; i < a->lora_texts.n; i++) {
        const char *slash = strrchr(a->loras[i].file, '/');
        (void)fprintf(to, ", LoRA: %s:%g", slash && slash[1] ? slash + 1 : a->loras[i].file,
                      a->loras[i].scale);
    }
}

static void free_copies(struct sag_arguments *arguments)
{
    struct adapters_options *a = &arguments->adapters;
    while (a->n_copies) {
        free(a->copies[--a->n_copies]);
    }
}

const struct sag_subject sag_adapters = {.name = "Adapters",
                                         .rows = rows,
                                         .check = check,
                                         .open = open,
                                         .describe = describe,
                                         .free = free_copies};
