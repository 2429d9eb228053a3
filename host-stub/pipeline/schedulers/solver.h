/* What the solvers in half the log signal-to-noise ratio share: DPM-Solver, DEIS and UniPC, whose
 * latents keep their variance. */
#ifndef ATTNPLUG_PIPELINE_SOLVER_H
#define ATTNPLUG_PIPELINE_SOLVER_H

#include "scheduler_private.h"

enum { SOLVER_KEPT = 3 };

/* One point of a run, from its fp32 sigma. */
typedef struct {
    double alpha, sigma; /* latents are alpha x0 + sigma noise */
    double lambda;       /* log(alpha / sigma); infinite at the end of a run that leaves no noise */
} solver_point;

solver_point solver_point_at(const scheduler *s, size_t index);

/* DPM-Solver and DEIS: how a step of an order moves its base sample by the model's outputs, the
 * newest first: out = sample * x + sum of output[k] * outputs[k] + noise * drawn noise. */
typedef struct {
    double sample, output[SOLVER_KEPT], noise;
} solver_move;

/* Options of these classes. */
typedef struct {
    int64_t order;
    int data;       /* the solver speaks of x0 rather than of noise (the "++" ones) */
    int stochastic; /* the "sde" ones */
    int heun;       /* solver_type heun rather than midpoint */
    int lower_order_final, euler_at_final;
    int lu;                  /* use_lu_lambdas */
    int ends_at_zero;        /* final_sigmas_type zero rather than sigma_min */
    int repeats_last_karras; /* DEIS and UniPC end Karras' sigmas with the last one again */
    double lambda_min_clipped;
} solver;

/* Fills timesteps, sigmas and levels of a run. */
attn_status solver_set_timesteps(scheduler *s, const solver *o, int64_t steps, attn_error *err);

/* The call's model output as the solver wants it, x0 if `data` else noise, into array `slot`.
 * `limited`: thresholding holds for noise as well. */
void solver_convert(scheduler *s, const scheduler_call *call, int data, int limited, size_t slot);

/* Sums up a move: outputs are arrays newest % kept, (newest - 1) % kept, ... */
void solver_apply(const scheduler *s, const solver_move *move, const float *sample, size_t newest,
                  size_t kept, const float *noise, float *out, size_t n);

/* The move of DPM-Solver to point `to`, from where the newest output was made or, `singlestep`, the
 * oldest: the newest at `at[0]`, `order` - 1 before it at `at[1]`, `at[2]`. */
solver_move dpm_move(const solver *o, int64_t order, const solver_point *at, solver_point to,
                     int singlestep);

/* The order that a multistep run has at a call, with fewer at its start and, where the options say
 * so, at its end. */
int64_t solver_order_at(const scheduler *s, const solver *o, size_t index);

#endif
