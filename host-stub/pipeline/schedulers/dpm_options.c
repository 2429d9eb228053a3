/* dpm_options.c: the options of DPM-Solver. */
#include "dpm.h"

enum { DATA = 1, NOISE = 2, SDE_DATA = 4, SDE_NOISE = 8 };

/* Names of other solvers' algorithms stand for this one's default, as in diffusers. */
static const option_name algorithm_names[] = {
    {"dpmsolver", NOISE},          {"dpmsolver++", DATA}, {"sde-dpmsolver", SDE_NOISE},
    {"sde-dpmsolver++", SDE_DATA}, {"deis", DATA},        {NULL, 0}};
static const option_name type_names[] = {{"midpoint", 0}, {"heun", 1}, {"logrho", 0},
                                         {"bh1", 0},      {"bh2", 0},  {NULL, 0}};
static const option_name final_names[] = {{"zero", 1}, {"sigma_min", 0}, {NULL, 0}};
static const option_name variance_names[] = {
    {"learned", 1},     {"learned_range", 1},   {"fixed_small", 0}, {"fixed_small_log", 0},
    {"fixed_large", 0}, {"fixed_large_log", 0}, {NULL, 0}};

/* Only a model that also predicts its variance would be read differently. */
static attn_status variance_check(json_t *config, attn_error *err)
{
    int learned = 0;
    attn_status status =
        option_choice(config, "variance_type", variance_names, 0, 0, &learned, err);
    if (!status && learned) {
        status = option_fail("variance_type", json_object_get(config, "variance_type"),
                             "a fixed one: a model of Stable Diffusion predicts no variance", err);
    }
    return status;
}

attn_status dpm_configure(scheduler *s, json_t *config, int stochastic, solver *o, attn_error *err)
{
    int algorithm = 0;
    int allowed = DATA | NOISE | (stochastic ? SDE_DATA | SDE_NOISE : 0);
    attn_status status =
        option_choice(config, "algorithm_type", algorithm_names, allowed, DATA, &algorithm, err);
    o->data = algorithm & (DATA | SDE_DATA);
    o->stochastic = algorithm & (SDE_DATA | SDE_NOISE);
    if (!status) {
        status = option_whole(config, "solver_order", 2, 1, o->stochastic ? 2 : SOLVER_KEPT,
                              &o->order, err);
    }
    if (!status) {
        status = option_choice(config, "solver_type", type_names, 0, 0, &o->heun, err);
    }
    if (!status) {
        status =
            option_choice(config, "final_sigmas_type", final_names, 0, 1, &o->ends_at_zero, err);
    }
    if (!status && !o->data && o->ends_at_zero) {
        status = attn_fail(err, ATTN_INVALID,
                           "final_sigmas_type: zero (the default) with algorithm_type %s, expected"
                           " sigma_min: a solver of noise cannot step to where there is none",
                           json_string_value(json_object_get(config, "algorithm_type")));
    }
    if (!status) {
        /* Any number means something, below every lambda there is to above. */
        status = option_number(config, "lambda_min_clipped", -1.7e308, -1.79e308, 1e6,
                               &o->lambda_min_clipped, err);
    }
    s->arrays = SOLVER_KEPT + 2;
    return status ? status : variance_check(config, err);
}
