/* options_prompts.c: what to draw, as texts or as stored embeddings. */
#include "options.h"

#include <stdlib.h>

static size_t rows(struct sag_arguments *a, cli_option *rows)
{
    struct prompts_options *p = &a->prompts;
    size_t n = 0;
    p->per_prompt = 1;
    rows[n++] =
        (cli_option){"prompt", CLI_TEXTS, &p->texts, "TEXT", "what to draw; may be repeated"};
    rows[n++] = (cli_option){"negative-prompt", CLI_TEXTS, &p->negatives, "TEXT",
                             "what to stay away from: one for all prompts, or one for each"};
    rows[n++] = (cli_option){"prompt-embeds", CLI_TEXT, &p->embeds_file, "FILE",
                             "stored prompt_embeds (and negative_prompt_embeds) in place of"
                             " prompts"};
    rows[n++] = (cli_option){"negative-prompt-embeds", CLI_TEXT, &p->negative_embeds_file, "FILE",
                             "stored negative_prompt_embeds"};
    rows[n++] = (cli_option){"num-images-per-prompt", CLI_INT, &p->per_prompt, "N", "(1)"};
    rows[n++] = (cli_option){"clip-skip", CLI_INT, &p->clip_skip, "N",
                             "layers of the text encoder to leave out, for --prompt alone (0)"};
    return n;
}

static int check(struct sag_arguments *a)
{
    const struct prompts_options *p = &a->prompts;
    if (!p->texts.n && !p->embeds_file) {
        return cli_misuse("--prompt: none given, expected at least one or --prompt-embeds");
    }
    if (p->texts.n && p->embeds_file) {
        return cli_misuse("--prompt and --prompt-embeds: both given, expected one of them");
    }
    if (p->negatives.n && p->negative_embeds_file) {
        return cli_misuse("--negative-prompt and --negative-prompt-embeds: both given, expected"
                          " one of them");
    }
    if (p->clip_skip && p->embeds_file) {
        return cli_misuse("--clip-skip and --prompt-embeds: both given, but embeddings have left"
                          " the text encoder");
    }
    if (p->texts.n && p->negatives.n > 1 && p->negatives.n != p->texts.n) {
        return cli_misuse("--negative-prompt: given %u times, expected once, or %u times as"
                          " --prompt is",
                          p->negatives.n, p->texts.n);
    }
    int wrong = count_check("num-images-per-prompt", p->per_prompt, 1);
    return wrong ? wrong : count_check("clip-skip", p->clip_skip, 0);
}

static attn_status load(struct sag_arguments *a, attn_error *err)
{
    struct prompts_options *p = &a->prompts;
    attn_status status = ATTN_OK;
    if (p->embeds_file) {
        status = tensor_load(p->embeds_file, "prompt_embeds", false, &p->embeds, err);
    }
    if (!status && p->negative_embeds_file) {
        status = tensor_load(p->negative_embeds_file, "negative_prompt_embeds", false,
                             &p->negative_embeds, err);
    } else if (!status && p->embeds_file && !p->negatives.n) {
        status =
            tensor_load(p->embeds_file, "negative_prompt_embeds", true, &p->negative_embeds, err);
    }
    return status;
}

static void run(struct sag_arguments *a, attn_sag_run_options *o)
{
    const struct prompts_options *p = &a->prompts;
    o->prompts = p->texts.n ? p->texts.items : NULL;
    o->n_prompts = p->texts.n;
    o->n_negative = p->negatives.n;
    o->negative_prompts = p->negatives.items;
    o->prompt_embeds = p->embeds.rank ? &p->embeds : NULL;
    o->negative_prompt_embeds = p->negative_embeds.rank ? &p->negative_embeds : NULL;
    o->num_images_per_prompt = (uint32_t)p->per_prompt;
    o->clip_skip = (uint32_t)p->clip_skip;
}

static void describe(const struct sag_arguments *a, FILE *to)
{
    if (a->prompts.clip_skip) {
        (void)fprintf(to, ", Clip skip: %u", (unsigned)a->prompts.clip_skip);
    }
}

static void release(struct sag_arguments *a)
{
    free(a->prompts.embeds.data);
    free(a->prompts.negative_embeds.data);
}

const struct sag_subject sag_prompts = {.name = "Prompts",
                                        .rows = rows,
                                        .check = check,
                                        .load = load,
                                        .run = run,
                                        .describe = describe,
                                        .free = release};
