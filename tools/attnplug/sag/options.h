/* options.h: attnplug sag's options by subject.
 *
 * A subject is a file options_<subject>.c that says everything about its options: their rows in the
 * help, what is wrong with their values, what they mean to attn_sag_open and attn_sag_run.  To add
 * one: its values in sag_arguments, its name in SAG_SUBJECTS, its file in meson.build. */
#ifndef ATTNPLUG_TOOLS_SAG_OPTIONS_H
#define ATTNPLUG_TOOLS_SAG_OPTIONS_H

#include "attn_sag.h"
#include "cli.h"
#include "error.h"
#include "processor_words.h"

/* In the order of the help and of the checks. */
#define SAG_SUBJECTS(X)                                                                            \
    X(prompts)                                                                                     \
    X(sampling)                                                                                    \
    X(model)                                                                                       \
    X(attention)                                                                                   \
    X(adapters)                                                                                    \
    X(image_prompt)                                                                                \
    X(safety)                                                                                      \
    X(output)

/* A whole number that was not given. */
#define SAG_NOT_GIVEN INT64_MIN

/* One --processor, taken apart. */
struct processor_option {
    char *glob; /* NULL: every layer */
    struct processor_words words;
    cli_processor files;
};

struct prompts_options {
    cli_texts texts, negatives;
    const char *embeds_file, *negative_embeds_file;
    attn_tensor embeds, negative_embeds; /* loaded; rank 0: none */
    int64_t per_prompt, clip_skip;
};

struct sampling_options {
    double guidance_scale, sag_scale, eta;
    int64_t height, width, steps;
    const char *scheduler, *latents_file;
    attn_tensor latents; /* loaded; rank 0: none */
    cli_texts seed_texts;
    uint64_t seeds[CLI_MAX_TEXTS]; /* seed_texts.n */
};

struct model_options {
    const char *folder, *device, *dtype, *variant, *prediction_type;
    bool ema;
    char *built_in; /* the built-in model's folder, where no other was named */
    int64_t threads;
};

struct attention_options {
    const char *op;
    cli_texts processor_texts;
    struct processor_option processors[CLI_MAX_TEXTS];
    attn_sag_processor specs[CLI_MAX_TEXTS]; /* of processors */
    uint32_t n_processors;
    cli_texts kwargs_texts;
    struct processor_words kwargs[CLI_MAX_TEXTS];
    attn_param *kwargs_all;
    uint32_t n_kwargs, n_kwargs_all;
};

struct adapters_options {
    cli_texts lora_texts, inversion_texts;
    const char *custom_diffusion;
    double lora_scale;
    bool ignore_unknown;
    attn_sag_lora loras[CLI_MAX_TEXTS];           /* of lora_texts */
    attn_sag_inversion inversions[CLI_MAX_TEXTS]; /* of inversion_texts */
    char *copies[2 * CLI_MAX_TEXTS];              /* of both, cut where their colons were */
    uint32_t n_copies;
};

struct image_prompt_options {
    cli_texts adapter_texts, image_texts;
    const char *encoder, *embeds_file;
    attn_sag_ip_adapter adapters[CLI_MAX_TEXTS]; /* adapter_texts.n */
    char *copies[CLI_MAX_TEXTS];                 /* what adapters point to */
    attn_sag_image_prompt images[CLI_MAX_TEXTS]; /* image_texts.n */
    attn_tensor embeds[CLI_MAX_TEXTS];           /* n_embeds, loaded */
    uint32_t n_embeds;
};

struct safety_options {
    bool without;
};

struct output_options {
    const char *pattern, *type, *latents_file, *steps_pattern;
    int64_t callback_steps;
    bool slicing, tiling;
};

/* The command line, and what it names, loaded. */
struct sag_arguments {
    struct prompts_options prompts;
    struct sampling_options sampling;
    struct model_options model;
    struct attention_options attention;
    struct adapters_options adapters;
    struct image_prompt_options image_prompt;
    struct safety_options safety;
    struct output_options output;
};

enum { SAG_SUBJECT_ROWS = 24 };

/* What a subject does, in this order.  NULL members are nothing to do. */
struct sag_subject {
    const char *name;
    /* Sets the defaults and fills at most SAG_SUBJECT_ROWS rows; how many. */
    size_t (*rows)(struct sag_arguments *a, cli_option *rows);
    /* The values, after parsing, by themselves and with the other subjects'.  0, or the exit status
     * with everything said. */
    int (*check)(struct sag_arguments *a);
    /* The values that name plugins.  0, or the exit status with everything said. */
    int (*plugins)(struct sag_arguments *a, attn_registry *registry);
    /* Reads the files that the options name. */
    attn_status (*load)(struct sag_arguments *a, attn_error *err);
    /* What the options mean; all that is pointed to lives until `free`. */
    void (*open)(struct sag_arguments *a, attn_sag_open_options *o);
    void (*run)(struct sag_arguments *a, attn_sag_run_options *o);
    /* ", Key: value" for a picture's parameters. */
    void (*describe)(const struct sag_arguments *a, FILE *to);
    void (*free)(struct sag_arguments *a);
};

#define SAG_DECLARE(subject) extern const struct sag_subject sag_##subject;
SAG_SUBJECTS(SAG_DECLARE)
#undef SAG_DECLARE
extern const struct sag_subject *const sag_subjects[];
extern const size_t sag_n_subjects;

/* options.c: reads the command line.  CLI_GO, or the exit status with everything said;
 * arguments_free either way. */
int arguments_read(struct sag_arguments *a, int argc, char **argv);
void arguments_free(struct sag_arguments *a);
/* How many pictures the arguments ask for, embeddings loaded; at most UINT32_MAX. */
uint32_t arguments_images(const struct sag_arguments *a);

/* For checks: a count that was given is between low and INT32_MAX.  0, or the exit status. */
int count_check(const char *name, int64_t value, int64_t low);

/* sag_input.c: a stored tensor of fp32 copied to memory (data is the caller's to free); absent
 * where it is optional and missing. */
attn_status tensor_load(const char *path, const char *name, bool optional, attn_tensor *out,
                        attn_error *err);
/* options_adapters.c: cuts ":number" off the end; false where there is none: a colon in a file's
 * name stays. */
bool number_cut(char *text, double *number);
/* The built-in model's folder, for the caller to free; NULL where it is not installed. */
char *model_find(void);

#endif
