/* DPM-Solver, multistep: one call a step, older outputs give the higher orders. */
#include "dpm.h"

static attn_status multistep_configure(scheduler *s, json_t *config, attn_error *err)
{
    solver *o = s->own;
    attn_status status = dpm_configure(s, config, 1, o, err);
    if (!status) {
        status = option_flag(config, "lower_order_final", 1, &o->lower_order_final, err);
    }
    if (!status) {
        status = option_flag(config, "euler_at_final", 0, &o->euler_at_final, err);
    }
    return status ? status : option_flag(config, "use_lu_lambdas", 0, &o->lu, err);
}

static attn_status multistep_set_timesteps(scheduler *s, int64_t steps, attn_error *err)
{
    return solver_set_timesteps(s, s->own, steps, err);
}

static int multistep_wants_noise(const scheduler *s, size_t index, float eta)
{
    const solver *o = s->own;
    (void)index;
    (void)eta;
    return o->stochastic;
}

static attn_status multistep_step(scheduler *s, const scheduler_call *call, float *out,
                                  attn_error *err)
{
    const solver *o = s->own;
    size_t index = call->index;
    int64_t order = solver_order_at(s, o, index);
    solver_point at[SOLVER_KEPT];
    for (size_t k = 0; k < (size_t)order; k++) {
        at[k] = solver_point_at(s, index - k);
    }
    (void)err;
    solver_convert(s, call, o->data, 1, index % SOLVER_KEPT);
    solver_move move = dpm_move(o, order, at, solver_point_at(s, index + 1), 0);
    solver_apply(s, &move, call->sample, index % SOLVER_KEPT, SOLVER_KEPT,
                 o->stochastic ? call->noise : NULL, out, call->n);
    return ATTN_OK;
}

const scheduler_class scheduler_dpm_multistep = {
    .name = "DPMSolverMultistepScheduler",
    .order = 1,
    .own_size = sizeof(solver),
    .takes = TAKES_THRESHOLD | TAKES_SPACING | TAKES_KARRAS,
    .betas = BETAS_COMMON,
    .predictions = PREDICT_ANY,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .spacing = SPACING_LINSPACE,
    .configure = multistep_configure,
    .set_timesteps = multistep_set_timesteps,
    .step = multistep_step,
    .wants_noise = multistep_wants_noise,
};
