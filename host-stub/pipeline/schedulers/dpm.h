/* Options that the two DPM-Solvers share. */
#ifndef ATTNPLUG_PIPELINE_DPM_H
#define ATTNPLUG_PIPELINE_DPM_H

#include "solver.h"

/* Reads everything but what only the multistep one has. `stochastic`: the sde algorithms exist. */
attn_status dpm_configure(scheduler *s, json_t *config, int stochastic, solver *o, attn_error *err);

#endif
