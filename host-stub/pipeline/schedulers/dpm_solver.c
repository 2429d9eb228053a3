/* dpm_solver.c: the moves of DPM-Solver and DPM-Solver++ (Lu et al. 2022, arXiv 2206.00927 and
 * 2211.01095), deterministic and stochastic, as in diffusers v0.26.3
 * src/diffusers/schedulers/scheduling_dpmsolver_{multistep,singlestep}.py. */
#include "solver.h"

#include <math.h>

/* How much each derivative of the model's output counts. */
typedef struct {
    double sample, value, slope, curve, noise;
} expansion;

/* What x0 does to the sample over a distance of h. */
static expansion data_expansion(const solver *o, int64_t order, double h, solver_point from,
                                solver_point to)
{
    double gone = expm1(-h);
    expansion e = {to.sigma / from.sigma, -to.alpha * gone, 0, 0, 0};
    if (o->stochastic) {
        double twice = -expm1(-2 * h);
        e = (expansion){to.sigma / from.sigma * exp(-h), to.alpha * twice, 0, 0,
                        to.sigma * sqrt(twice)};
        if (order == 2) {
            e.slope = o->heun ? to.alpha * (twice / (-2 * h) + 1) : 0.5 * to.alpha * twice;
        }
    } else if (order == 2 && !o->heun) {
        e.slope = -0.5 * to.alpha * gone;
    } else if (order > 1) {
        e.slope = to.alpha * (gone / h + 1);
        e.curve = -to.alpha * ((gone + h) / (h * h) - 0.5);
    }
    return e;
}

/* What noise does. */
static expansion noise_expansion(const solver *o, int64_t order, double h, solver_point from,
                                 solver_point to)
{
    double grown = expm1(h);
    double times = o->stochastic ? 2 : 1;
    expansion e = {to.alpha / from.alpha, -times * to.sigma * grown, 0, 0, 0};
    if (o->stochastic) {
        e.noise = to.sigma * sqrt(expm1(2 * h));
    }
    if (order == 2 && !o->heun) {
        e.slope = -0.5 * times * to.sigma * grown;
    } else if (order > 1) {
        e.slope = -times * to.sigma * (grown / h - 1);
        e.curve = -times * to.sigma * ((grown - h) / (h * h) - 0.5);
    }
    return e;
}

/* Multistep: the newest output is the value, differences to older ones are the derivatives. */
static solver_move multistep_move(const expansion *e, int64_t order, const solver_point *at,
                                  double h)
{
    solver_move move = {.sample = e->sample, .output = {e->value, 0, 0}, .noise = e->noise};
    if (order == 1) {
        return move;
    }
    double r0 = (at[0].lambda - at[1].lambda) / h;
    double near = e->slope / r0; /* of the difference of the newest two */
    double far = 0;              /* of the older two */
    if (order == 3) {
        double r1 = (at[1].lambda - at[2].lambda) / h;
        double bend = (e->slope * r0 + e->curve) / (r0 + r1);
        near += bend / r0;
        far = -bend / r1;
    }
    move.output[0] += near;
    move.output[1] += far - near;
    move.output[2] -= far;
    return move;
}

/* Singlestep: the oldest output, made where the step began, is the value. */
static solver_move singlestep_move(const solver *o, const expansion *e, int64_t order,
                                   const solver_point *at, double h)
{
    solver_move move = {.sample = e->sample, .noise = e->noise};
    double begin = at[order - 1].lambda;
    move.output[order - 1] = e->value;
    if (order == 1) {
        return move;
    }
    double r0 = (at[0].lambda - begin) / h;
    double newest = e->slope / r0; /* of the newest less the oldest */
    double middle = 0;             /* of the middle one less the oldest */
    if (order == 3 && o->heun) {
        double r1 = (at[1].lambda - begin) / h;
        middle = (e->slope * r0 - 2 * e->curve) / (r0 - r1) / r1;
        newest = (-e->slope * r1 + 2 * e->curve) / (r0 - r1) / r0;
    }
    move.output[0] += newest;
    move.output[order - 1] -= newest + middle;
    if (order == 3) {
        move.output[1] += middle;
    }
    return move;
}

solver_move dpm_move(const solver *o, int64_t order, const solver_point *at, solver_point to,
                     int singlestep)
{
    solver_point from = singlestep ? at[order - 1] : at[0];
    double h = to.lambda - from.lambda;
    expansion e =
        o->data ? data_expansion(o, order, h, from, to) : noise_expansion(o, order, h, from, to);
    return singlestep ? singlestep_move(o, &e, order, at, h) : multistep_move(&e, order, at, h);
}
