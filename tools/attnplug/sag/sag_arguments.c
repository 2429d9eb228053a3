/* sag_arguments.c: the command line, read and checked for what can be said without a model. */
#include "sag.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char about[] =
    "Draws pictures with Stable Diffusion and self-attention guidance (SAG), every attention layer"
    " in a\nplugin.  The names of the files written go to stdout.  Exit: 0 done, 1 failed, 2 wrong"
    " usage, 130\ninterrupted.  A run that fails or is interrupted leaves no file behind.";

/* diffusers' options that this version lacks: known, so that they can be refused by name. */
static const char *const later[] = {
    "ip-adapter-image", "ip-adapter",       "image-encoder",     "cross-attention-kwargs", "lora",
    "lora-scale",       "custom-diffusion", "textual-inversion",
};
static const char *const later_flags[] = {"lora-ignore-unknown", "vae-tiling"};
enum {
    LATER = sizeof later / sizeof *later,
    LATER_FLAGS = sizeof later_flags / sizeof *later_flags,
    MOST_OPTIONS = 48
};

static int counts_check(const struct sag_arguments *a)
{
    const struct {
        const char *name;
        int64_t value, low;
    } counts[] = {
        {"height", a->height, 1},
        {"width", a->width, 1},
        {"num-inference-steps", a->steps, 1},
        {"num-images-per-prompt", a->per_prompt, 1},
        {"clip-skip", a->clip_skip, 0},
        {"callback-steps", a->callback_steps, 1},
        {"threads", a->threads, 1},
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        int64_t value = counts[i].value;
        if (value != SAG_NOT_GIVEN && (value < counts[i].low || value > INT32_MAX)) {
            return cli_misuse("--%s: %lld, expected a whole number from %lld to %d", counts[i].name,
                              (long long)value, (long long)counts[i].low, INT32_MAX);
        }
    }
    return 0;
}

static int seeds_read(struct sag_arguments *a)
{
    for (uint32_t i = 0; i < a->seed_texts.n; i++) {
        const char *text = a->seed_texts.items[i];
        char *end = NULL;
        errno = 0;
        a->seeds[i] = strtoull(text, &end, 10);
        if (*text < '0' || *text > '9' || *end || errno) {
            return cli_misuse("--seed: \"%s\", expected a whole number from 0 to %llu", text,
                              (unsigned long long)UINT64_MAX);
        }
    }
    return 0;
}

static int processors_read(struct sag_arguments *a)
{
    int status = 0;
    for (uint32_t i = 0; i < a->processor_texts.n && !status; i++) {
        a->n_processors++;
        status = processor_parse(&a->processors[i], a->processor_texts.items[i]);
    }
    return status;
}

static int names_check(const struct sag_arguments *a)
{
    ATTN_ERROR_ON(err, 512);
    attn_name name = {.size = sizeof name};
    if (a->op && attn_name_find(a->op, &name, &err)) {
        return cli_misuse("--op: %s", err.text);
    }
    if (strcmp(a->output_type, "png") != 0 && strcmp(a->output_type, "npy") != 0 &&
        strcmp(a->output_type, "latent") != 0) {
        return cli_misuse("--output-type: \"%s\", expected png, npy or latent", a->output_type);
    }
    return 0;
}

static int combination_check(struct sag_arguments *a)
{
    if (!a->prompts.n && !a->prompt_embeds) {
        return cli_misuse("--prompt: none given, expected at least one or --prompt-embeds");
    }
    if (a->prompts.n && a->prompt_embeds) {
        return cli_misuse("--prompt and --prompt-embeds: both given, expected one of them");
    }
    if (a->negatives.n && a->negative_prompt_embeds) {
        return cli_misuse("--negative-prompt and --negative-prompt-embeds: both given, expected"
                          " one of them");
    }
    if (!a->output) {
        bool png = strcmp(a->output_type, "png") == 0;
        bool several = a->prompts.n * a->per_prompt > 1;
        a->output = png ? (several ? "sag-%d.png" : "sag.png")
                        : (strcmp(a->output_type, "npy") == 0 ? "sag.npy" : "sag.safetensors");
    }
    return 0;
}

/* Where the values of refused options go. */
struct refusals {
    const char *texts[LATER];
    bool flags[LATER_FLAGS];
    bool slicing; /* pictures are decoded one by one always */
};

/* Returns how many options there are. */
static size_t options_fill(struct sag_arguments *a, struct refusals *r, cli_option *options)
{
    const cli_option rows[] = {
        {"prompt", CLI_TEXTS, &a->prompts, "TEXT", "what to draw; may be repeated"},
        {"negative-prompt", CLI_TEXTS, &a->negatives, "TEXT",
         "what to stay away from: one for all prompts, or one for each"},
        {"prompt-embeds", CLI_TEXT, &a->prompt_embeds, "FILE",
         "stored prompt_embeds (and negative_prompt_embeds) in place of prompts"},
        {"negative-prompt-embeds", CLI_TEXT, &a->negative_prompt_embeds, "FILE",
         "stored negative_prompt_embeds"},
        {"model", CLI_TEXT, &a->model, "DIR", "a folder in diffusers' format (built-in emoji-128)"},
        {"height", CLI_INT, &a->height, "N", "pixels (the model's own)"},
        {"width", CLI_INT, &a->width, "N", "likewise"},
        {"num-inference-steps", CLI_INT, &a->steps, "N", "(50)"},
        {"guidance-scale", CLI_FLOAT, &a->guidance_scale, "X",
         "classifier-free guidance, on above 1 (7.5)"},
        {"sag-scale", CLI_FLOAT, &a->sag_scale, "X", "self-attention guidance, on above 0 (0.75)"},
        {"num-images-per-prompt", CLI_INT, &a->per_prompt, "N", "(1)"},
        {"seed", CLI_TEXTS, &a->seed_texts, "N", "one for all pictures, or one for each (0)"},
        {"eta", CLI_FLOAT, &a->eta, "X", "DDIM's noise, 0 to 1 (0)"},
        {"clip-skip", CLI_INT, &a->clip_skip, "N", "layers of the text encoder to leave out (0)"},
        {"latents", CLI_TEXT, &a->latents, "FILE", "stored start latents in place of random ones"},
        {"scheduler", CLI_TEXT, &a->scheduler, "NAME", "diffusers' class in place of the folder's"},
        {"op", CLI_TEXT, &a->op, "NAME", "for every attention (auto)"},
        {"processor", CLI_TEXTS, &a->processor_texts, "[GLOB=]NAME[+NAME][:param=value,...]",
         "for the UNet's layers that match; the last match wins (standard)"},
        {"device", CLI_TEXT, &a->device, "NAME", "(cpu)"},
        {"dtype", CLI_TEXT, &a->dtype, "NAME", "(f32, f16, bf16)"},
        {"threads", CLI_INT, &a->threads, "N", "(one for each core)"},
        {"output", CLI_TEXT, &a->output, "FILE", "(sag.png) %d is the picture's number, from 0"},
        {"output-type", CLI_TEXT, &a->output_type, "TYPE",
         "png, npy (fp32 [n, height, width, 3], 0 to 1) or latent"},
        {"save-latents", CLI_TEXT, &a->save_latents, "FILE", "the final latents, besides"},
        {"callback-steps", CLI_INT, &a->callback_steps, "N", "steps between looks at progress (1)"},
        {"no-safety-checker", CLI_FLAG, &a->no_safety_checker, NULL,
         "use a model that comes with one without it"},
        {"vae-slicing", CLI_FLAG, &r->slicing, NULL, "(always so)"},
    };
    size_t n = sizeof rows / sizeof *rows;
    memcpy(options, rows, sizeof rows);
    for (int i = 0; i < LATER; i++) {
        options[n++] = (cli_option){later[i], CLI_TEXT, &r->texts[i], "X", "not in this version"};
    }
    for (int i = 0; i < LATER_FLAGS; i++) {
        options[n++] =
            (cli_option){later_flags[i], CLI_FLAG, &r->flags[i], NULL, "not in this version"};
    }
    return n;
}

static int refusals_check(const struct refusals *r)
{
    for (int i = 0; i < LATER; i++) {
        if (r->texts[i]) {
            return cli_misuse("--%s is not supported by this version", later[i]);
        }
    }
    for (int i = 0; i < LATER_FLAGS; i++) {
        if (r->flags[i]) {
            return cli_misuse("--%s is not supported by this version", later_flags[i]);
        }
    }
    return 0;
}

int arguments_read(struct sag_arguments *a, int argc, char **argv)
{
    cli_option options[MOST_OPTIONS];
    struct refusals refusals = {0};
    int first = 0;
    *a = (struct sag_arguments){.output_type = "png",
                                .per_prompt = 1,
                                .height = SAG_NOT_GIVEN,
                                .width = SAG_NOT_GIVEN,
                                .steps = 50,
                                .callback_steps = 1,
                                .threads = SAG_NOT_GIVEN,
                                .guidance_scale = 7.5,
                                .sag_scale = 0.75};
    const cli_command command = {"attnplug sag --prompt TEXT [OPTIONS]", about, options,
                                 options_fill(a, &refusals, options),    0,     0};
    int status = cli_parse(&command, argc, argv, &first);
    if (status != CLI_GO) {
        return status;
    }
    int wrong = refusals_check(&refusals);
    wrong = wrong ? wrong : counts_check(a);
    wrong = wrong ? wrong : seeds_read(a);
    wrong = wrong ? wrong : processors_read(a);
    wrong = wrong ? wrong : names_check(a);
    wrong = wrong ? wrong : combination_check(a);
    return wrong ? wrong : CLI_GO;
}

void arguments_free(struct sag_arguments *a)
{
    for (uint32_t i = 0; i < a->n_processors; i++) {
        processor_free(&a->processors[i]);
    }
}
