/* options_output.c: what is left on the disk. */
#include "sag.h"

#include <string.h>

static size_t rows(struct sag_arguments *a, cli_option *rows)
{
    struct output_options *o = &a->output;
    size_t n = 0;
    o->type = "png";
    o->callback_steps = 1;
    rows[n++] = (cli_option){"output", CLI_TEXT, &o->pattern, "FILE",
                             "%d: the picture's number, from 0; %s: its seed; %%: a percent sign"
                             " (sag.png)"};
    rows[n++] = (cli_option){"output-type", CLI_TEXT, &o->type, "TYPE",
                             "png, npy (fp32 [n, height, width, 3], 0 to 1) or latent (png)"};
    rows[n++] = (cli_option){"save-latents", CLI_TEXT, &o->latents_file, "FILE",
                             "the final latents, besides"};
    rows[n++] = (cli_option){"callback", CLI_TEXT, &o->steps_pattern, "FILE",
                             "the latents after each step; %d: the step, from 0"};
    rows[n++] = (cli_option){"callback-steps", CLI_INT, &o->callback_steps, "N",
                             "steps from one look at progress to the next (1)"};
    rows[n++] = (cli_option){"vae-slicing", CLI_FLAG, &o->slicing, NULL,
                             "decode pictures one by one, which takes less memory"};
    rows[n++] = (cli_option){"vae-tiling", CLI_FLAG, &o->tiling, NULL,
                             "decode large pictures in tiles, which takes less memory"};
    return n;
}

static int check(struct sag_arguments *a)
{
    struct output_options *o = &a->output;
    bool png = strcmp(o->type, "png") == 0;
    bool npy = strcmp(o->type, "npy") == 0;
    if (!png && !npy && strcmp(o->type, "latent") != 0) {
        return cli_misuse("--output-type: \"%s\", expected png, npy or latent", o->type);
    }
    if (!o->pattern) {
        bool several = a->prompts.texts.n * a->prompts.per_prompt > 1;
        o->pattern =
            png ? (several ? "sag-%d.png" : "sag.png") : (npy ? "sag.npy" : "sag.safetensors");
    }
    int wrong = count_check("callback-steps", o->callback_steps, 1);
    if (!wrong && o->steps_pattern) {
        wrong = pattern_check("callback", o->steps_pattern, a->sampling.steps > o->callback_steps);
    }
    return wrong;
}

static void run(struct sag_arguments *a, attn_sag_run_options *o)
{
    const struct output_options *out = &a->output;
    o->output_type = strcmp(out->type, "png") == 0   ? "pil"
                     : strcmp(out->type, "npy") == 0 ? "np"
                                                     : "latent";
    o->flags |= out->slicing ? ATTN_SAG_VAE_SLICING : 0;
    o->flags |= out->tiling ? ATTN_SAG_VAE_TILING : 0;
    o->callback_steps = (uint32_t)out->callback_steps;
}

const struct sag_subject sag_output = {.name = "Output", .rows = rows, .check = check, .run = run};
