/* options_sampling.c: from noise to latents: size, steps, scales, seeds. */
#include "options.h"

#include <errno.h>
#include <stdlib.h>

static size_t rows(struct sag_arguments *a, cli_option *rows)
{
    struct sampling_options *s = &a->sampling;
    size_t n = 0;
    s->height = SAG_NOT_GIVEN;
    s->width = SAG_NOT_GIVEN;
    s->steps = 50;
    s->guidance_scale = 7.5;
    s->sag_scale = 0.75;
    rows[n++] = (cli_option){"height", CLI_INT, &s->height, "N", "pixels (the model's own)"};
    rows[n++] = (cli_option){"width", CLI_INT, &s->width, "N", "pixels (the model's own)"};
    rows[n++] =
        (cli_option){"num-inference-steps", CLI_INT, &s->steps, "N", "from noise to picture (50)"};
    rows[n++] = (cli_option){"guidance-scale", CLI_FLOAT, &s->guidance_scale, "X",
                             "classifier-free guidance, on above 1 (7.5)"};
    rows[n++] = (cli_option){"sag-scale", CLI_FLOAT, &s->sag_scale, "X",
                             "self-attention guidance, on above 0 (0.75)"};
    rows[n++] = (cli_option){"scheduler", CLI_TEXT, &s->scheduler, "NAME",
                             "diffusers' class in place of the folder's"};
    rows[n++] = (cli_option){"eta", CLI_FLOAT, &s->eta, "X", "DDIM's noise, 0 to 1 (0)"};
    rows[n++] = (cli_option){"seed", CLI_TEXTS, &s->seed_texts, "N",
                             "once: one generator draws for all pictures; several times: one for"
                             " each picture (0)"};
    rows[n++] = (cli_option){"latents", CLI_TEXT, &s->latents_file, "FILE",
                             "stored start latents in place of random ones"};
    return n;
}

static int seeds_read(struct sampling_options *s)
{
    for (uint32_t i = 0; i < s->seed_texts.n; i++) {
        const char *text = s->seed_texts.items[i];
        char *end = NULL;
        errno = 0;
        s->seeds[i] = strtoull(text, &end, 10);
        if (*text < '0' || *text > '9' || *end || errno) {
            return cli_misuse("--seed: \"%s\", expected a whole number from 0 to %llu", text,
                              (unsigned long long)UINT64_MAX);
        }
    }
    return 0;
}

static int check(struct sag_arguments *a)
{
    struct sampling_options *s = &a->sampling;
    int wrong = count_check("height", s->height, 1);
    wrong = wrong ? wrong : count_check("width", s->width, 1);
    wrong = wrong ? wrong : count_check("num-inference-steps", s->steps, 1);
    wrong = wrong ? wrong : seeds_read(s);
    if (!wrong && (s->eta < 0 || s->eta > 1)) {
        wrong = cli_misuse("--eta: %g, expected a number from 0 to 1", s->eta);
    }
    return wrong;
}

static attn_status load(struct sag_arguments *a, attn_error *err)
{
    struct sampling_options *s = &a->sampling;
    return s->latents_file ? tensor_load(s->latents_file, "latents", false, &s->latents, err)
                           : ATTN_OK;
}

static void open_(struct sag_arguments *a, attn_sag_open_options *o)
{
    o->scheduler = a->sampling.scheduler;
}

/* 0 stands for the model's own. */
static uint32_t given(int64_t side)
{
    return side == SAG_NOT_GIVEN ? 0 : (uint32_t)side;
}

static void run(struct sag_arguments *a, attn_sag_run_options *o)
{
    const struct sampling_options *s = &a->sampling;
    o->flags |= ATTN_SAG_SET_GUIDANCE | ATTN_SAG_SET_SAG;
    o->guidance_scale = s->guidance_scale;
    o->sag_scale = s->sag_scale;
    o->eta = s->eta;
    o->height = given(s->height);
    o->width = given(s->width);
    o->num_inference_steps = (uint32_t)s->steps;
    o->latents = s->latents.rank ? &s->latents : NULL;
    o->seeds = s->seeds;
    o->n_seeds = s->seed_texts.n;
}

static void describe(const struct sag_arguments *a, FILE *to)
{
    (void)fprintf(to, ", SAG scale: %g", a->sampling.sag_scale);
    if (a->sampling.eta != 0) {
        (void)fprintf(to, ", Eta: %g", a->sampling.eta);
    }
}

static void release(struct sag_arguments *a)
{
    free(a->sampling.latents.data);
}

const struct sag_subject sag_sampling = {.name = "Sampling",
                                         .rows = rows,
                                         .check = check,
                                         .load = load,
                                         .open = open_,
                                         .run = run,
                                         .describe = describe,
                                         .free = release};
