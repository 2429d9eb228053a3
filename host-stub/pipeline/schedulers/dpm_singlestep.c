/* DPM-Solver, singlestep: groups of as many calls as the order, each group from one base sample.
 *
 * With final_sigmas_type zero the last call is of order 1, as in later versions of diffusers:
 * v0.26.3 divides by an infinite distance where order 3 leaves two calls over. */
#include "dpm.h"

#include <string.h>

enum { BASE = SOLVER_KEPT };

static attn_status singlestep_configure(scheduler *s, json_t *config, attn_error *err)
{
    solver *o = s->own;
    attn_status status = dpm_configure(s, config, 0, o, err);
    return status ? status
                  : option_flag(config, "lower_order_final", 0, &o->lower_order_final, err);
}

static attn_status singlestep_set_timesteps(scheduler *s, int64_t steps, attn_error *err)
{
    return solver_set_timesteps(s, s->own, steps, err);
}

/* Calls count up within a group: 1, 2, 3, 1, 2, 3. The run's end is lowered where the options say
 * so, where the calls do not fill the last group, and where it leaves no noise. */
static int64_t order_at(const scheduler *s, const solver *o, size_t index)
{
    size_t order = (size_t)o->order;
    size_t count = s->count;
    int lowered = o->lower_order_final || count % order || o->ends_at_zero;
    if (lowered && index + 1 == count && (count % order != 2 || o->ends_at_zero)) {
        return 1;
    }
    return (int64_t)(index % order) + 1;
}

static attn_status singlestep_step(scheduler *s, const scheduler_call *call, float *out,
                                   attn_error *err)
{
    const solver *o = s->own;
    size_t index = call->index;
    size_t newest = index % SOLVER_KEPT;
    float *base = state_array(s, BASE);
    int64_t order = order_at(s, o, index);
    solver_point at[SOLVER_KEPT];
    for (size_t k = 0; k < (size_t)order; k++) {
        at[k] = solver_point_at(s, index - k);
    }
    (void)err;
    /* diffusers limits x0 alone here. */
    solver_convert(s, call, o->data, 0, newest);
    if (order == 1) {
        memcpy(base, call->sample, call->n * sizeof *base);
    }
    solver_move move = dpm_move(o, order, at, solver_point_at(s, index + 1), 1);
    solver_apply(s, &move, base, newest, SOLVER_KEPT, NULL, out, call->n);
    return ATTN_OK;
}

const scheduler_class scheduler_dpm_singlestep = {
    .name = "DPMSolverSinglestepScheduler",
    .order = 1,
    .own_size = sizeof(solver),
    .takes = TAKES_THRESHOLD | TAKES_KARRAS,
    .betas = BETAS_COMMON,
    .predictions = PREDICT_ANY,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .spacing = SPACING_LINSPACE,
    .configure = singlestep_configure,
    .set_timesteps = singlestep_set_timesteps,
    .step = singlestep_step,
};
