/* sag_linear.h: a scheduler's arithmetic as tables of coefficients.
 *
 * What a scheduler makes of predictions is, for nearly all of them, a linear combination of the
 * latents and predictions of this call and of a few before it, and of noise.  Here the scheduler is
 * asked for the coefficients of every call of a run, by stepping it over unit vectors; a device
 * then needs no scheduler.  One that clips, thresholds or looks back further is not linear in this
 * sense, and keeps its run on the host. */
#ifndef ATTNPLUG_PIPELINE_SAG_LINEAR_H
#define ATTNPLUG_PIPELINE_SAG_LINEAR_H

#include "scheduler.h"

enum { LINEAR_LAGS = 5, LINEAR_INPUTS = 8 };

/* A quantity that the next latents are made of: of the call `lag` before. */
enum linear_kind { LINEAR_SAMPLE, LINEAR_OUTPUT, LINEAR_NOISE };
struct linear_input {
    enum linear_kind kind;
    size_t lag;
};

struct linear_run {
    size_t calls;
    float *scale;   /* [calls]: what the model is shown = scale x sample */
    float *predict; /* [calls][2][2]: x0, noise of (model output, sample) */
    float *renoise; /* [calls][2]: degraded latents of (x0, noise) */
    float *next;    /* [calls][n_inputs]: next latents */
    struct linear_input inputs[LINEAR_INPUTS];
    size_t n_inputs;
    size_t lags; /* calls to look back; 0: none */
};

/* 1: filled, to be freed with linear_free.  0: this run is not linear.  -1: no memory.
 * scheduler_set_timesteps precedes; the run starts again afterwards. */
int linear_read(scheduler *s, size_t calls, float eta, struct linear_run *run);
void linear_free(struct linear_run *run);

#endif
