/* DEIS: Zhang and Chen, "Fast Sampling of Diffusion Models with Exponential Integrator", arXiv
 * 2204.13902, in log rho (formula 16), as in diffusers v0.26.3
 * src/diffusers/schedulers/scheduling_deis_multistep.py. */
#include "solver.h"

#include <math.h>

static const option_name algorithm_names[] = {
    {"deis", 0}, {"dpmsolver", 0}, {"dpmsolver++", 0}, {NULL, 0}};
static const option_name type_names[] = {{"logrho", 0}, {"midpoint", 0}, {"heun", 0},
                                         {"bh1", 0},    {"bh2", 0},      {NULL, 0}};

static attn_status deis_configure(scheduler *s, json_t *config, attn_error *err)
{
    solver *o = s->own;
    int same = 0; /* the other solvers' names all stand for the one there is */
    attn_status status = option_choice(config, "algorithm_type", algorithm_names, 0, 0, &same, err);
    if (!status) {
        status = option_choice(config, "solver_type", type_names, 0, 0, &same, err);
    }
    if (!status) {
        status = option_whole(config, "solver_order", 2, 1, SOLVER_KEPT, &o->order, err);
    }
    if (!status) {
        status = option_flag(config, "lower_order_final", 1, &o->lower_order_final, err);
    }
    o->lambda_min_clipped = -INFINITY;
    o->repeats_last_karras = 1;
    s->arrays = SOLVER_KEPT + 1;
    return status;
}

static attn_status deis_set_timesteps(scheduler *s, int64_t steps, attn_error *err)
{
    return solver_set_timesteps(s, s->own, steps, err);
}

/* The antiderivatives over rho of Lagrange's polynomials in log rho: of the one that is 1 at b and
 * 0 at c, and at b, c and d. Each up to a constant. */
static double integral_of_two(double rho, double b, double c)
{
    return rho * (log(rho) - log(c) - 1) / (log(b) - log(c));
}

static double integral_of_three(double rho, double b, double c, double d)
{
    double l = log(rho);
    double sum = log(c) * (log(d) - l + 1) - log(d) * l + log(d) + l * l - 2 * l + 2;
    return rho * sum / ((log(b) - log(c)) * (log(b) - log(d)));
}

static attn_status deis_step(scheduler *s, const scheduler_call *call, float *out, attn_error *err)
{
    const solver *o = s->own;
    size_t index = call->index;
    int64_t order = solver_order_at(s, o, index);
    solver_point from = solver_point_at(s, index);
    solver_point to = solver_point_at(s, index + 1);
    solver_move move = {.sample = to.alpha / from.alpha};
    double end = s->sigmas[index + 1];
    double rho[SOLVER_KEPT];
    for (size_t k = 0; k < (size_t)order; k++) {
        rho[k] = s->sigmas[index - k];
    }
    (void)err;
    if (order == 1) {
        move.output[0] = end - rho[0];
    } else if (order == 2) {
        for (int k = 0; k < 2; k++) {
            move.output[k] = integral_of_two(end, rho[k], rho[1 - k]) -
                             integral_of_two(rho[0], rho[k], rho[1 - k]);
        }
    } else {
        for (int k = 0; k < 3; k++) {
            double c = rho[(k + 1) % 3];
            double d = rho[(k + 2) % 3];
            move.output[k] =
                integral_of_three(end, rho[k], c, d) - integral_of_three(rho[0], rho[k], c, d);
        }
    }
    for (size_t k = 0; k < SOLVER_KEPT; k++) {
        move.output[k] *= to.alpha;
    }
    solver_convert(s, call, 0, 1, index % SOLVER_KEPT);
    solver_apply(s, &move, call->sample, index % SOLVER_KEPT, SOLVER_KEPT, NULL, out, call->n);
    return ATTN_OK;
}

const scheduler_class scheduler_deis = {
    .name = "DEISMultistepScheduler",
    .order = 1,
    .own_size = sizeof(solver),
    .takes = TAKES_THRESHOLD | TAKES_SPACING | TAKES_KARRAS,
    .betas = BETAS_COMMON,
    .predictions = PREDICT_ANY,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .spacing = SPACING_LINSPACE,
    .configure = deis_configure,
    .set_timesteps = deis_set_timesteps,
    .step = deis_step,
};
