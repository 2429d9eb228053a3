/* sag.h: what the files of `attnplug sag` share. */
#ifndef ATTNPLUG_TOOLS_SAG_H
#define ATTNPLUG_TOOLS_SAG_H

#include "attn_sag.h"
#include "cli.h"
#include "error.h"
#include "safetensors.h"

enum { SAG_INTERRUPTED = 130 };
#define SAG_NOT_GIVEN INT64_MIN

/* One --processor, taken apart. */
struct processor_option {
    char *text; /* a copy that glob, name and params point into */
    const char *glob;
    const char *name;
    attn_param *params;
    uint32_t n_params;
};

/* The command line.  Counts that were not given are SAG_NOT_GIVEN or the default. */
struct sag_arguments {
    cli_texts prompts, negatives, seed_texts, processor_texts;
    uint64_t seeds[CLI_MAX_TEXTS]; /* seed_texts.n */
    struct processor_option processors[CLI_MAX_TEXTS];
    uint32_t n_processors;
    const char *model, *device, *dtype, *op, *scheduler;
    const char *latents, *prompt_embeds, *negative_prompt_embeds;
    const char *output, *output_type, *save_latents;
    double guidance_scale, sag_scale, eta;
    int64_t height, width, steps, per_prompt, clip_skip, callback_steps, threads;
    bool no_safety_checker;
};

/* sag_arguments.c: CLI_GO, or the exit status with everything said. */
int arguments_read(struct sag_arguments *a, int argc, char **argv);
void arguments_free(struct sag_arguments *a);

/* sag_processor.c: [GLOB=]NAME[+NAME][:param=value,...]; 0 or the exit status. */
int processor_parse(struct processor_option *p, const char *text);
void processor_free(struct processor_option *p);

/* sag_input.c: a stored tensor of fp32 copied to memory; absent where it is optional and missing.
 */
attn_status tensor_load(const char *path, const char *name, bool optional, attn_tensor *out,
                        attn_error *err);
/* The built-in model's folder, for the caller to free; NULL where it is not installed. */
char *model_find(void);

/* sag_progress.c: a line on stderr while a terminal watches. */
struct progress {
    bool shown; /* stderr is a terminal */
    bool drawn; /* a line stands there */
    double began;
};
void progress_begin(struct progress *p);
void progress_draw(struct progress *p, uint32_t done, uint32_t steps);
void progress_end(struct progress *p);

/* sag_output.c: everything that a run leaves.  Files appear whole or not at all. */
struct made {
    const attn_sag_result *result;
    const char *model;   /* its folder */
    const char *sampler; /* diffusers' class of the scheduler */
};
int output_check(const struct sag_arguments *a, uint32_t n_images);
int output_write(const struct sag_arguments *a, const struct made *m);

#endif
