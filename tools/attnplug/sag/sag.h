/* sag.h: what the files of `attnplug sag` share besides its options. */
#ifndef ATTNPLUG_TOOLS_SAG_H
#define ATTNPLUG_TOOLS_SAG_H

#include "options.h"

enum { SAG_INTERRUPTED = 130 };

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
    const char *sampler; /* diffusers' class of the scheduler */
};

/* sag_names.c: patterns of file names: %d (with a width, %03d) is a number, %s the seed, %% a
 * percent sign.  `numbered`: %d has to be there.  0, or the exit status. */
int pattern_check(const char *option, const char *pattern, bool numbered);
bool pattern_numbered(const char *pattern);
char *pattern_path(const char *pattern, uint32_t number, uint64_t seed); /* the caller's to free */
/* Of the generator that drew for picture `index`. */
uint64_t picture_seed(const struct sag_arguments *a, uint32_t index);
/* How a picture was made, in the form that other programs read: prompt, negative prompt, then "Key:
 * value" pairs; the caller's to free. */
char *parameters_text(const struct sag_arguments *a, const struct made *m, uint32_t index);

/* Before the work: the files' names, and that they can be written. */
int output_check(const struct sag_arguments *a, uint32_t n_images);
/* After a step: the latents, for --callback. */
attn_status step_write(const struct sag_arguments *a, uint32_t step, float timestep,
                       const attn_tensor *latents, attn_error *err);
int output_write(const struct sag_arguments *a, const struct made *m);

#endif
