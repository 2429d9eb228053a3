/* UniPC: Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of
 * Diffusion Models", arXiv 2302.04867, as in diffusers v0.26.3
 * src/diffusers/schedulers/scheduling_unipc_multistep.py.
 *
 * Each call first corrects the sample that the last one predicted, then predicts the next. */
#include "solver.h"

#include <math.h>
#include <string.h>

enum { MOST_ORDER = 8, MOST_DISABLED = 1000 };
enum { OUTPUTS, KEPT = MOST_ORDER + 1, LAST = KEPT, SCRATCH, ARRAYS };

typedef struct {
    solver common;
    int bh1; /* B(h) = h rather than e^h - 1 */
    int64_t disabled[MOST_DISABLED];
    size_t n_disabled;
} unipc;

/* out = sample * x + sum of output[k] * outputs, [0] the one at the end of the step, [1] where it
 * begins, then older ones. */
typedef struct {
    double sample, output[KEPT];
} unipc_move;

static const option_name type_names[] = {{"bh1", 1},  {"bh2", 0},    {"midpoint", 0},
                                         {"heun", 0}, {"logrho", 0}, {NULL, 0}};

static attn_status disabled_read(unipc *own, json_t *config, attn_error *err)
{
    json_t *list = json_object_get(config, "disable_corrector");
    size_t count = json_array_size(list);
    if (!list || json_is_null(list)) {
        return ATTN_OK;
    }
    if (!json_is_array(list) || count > MOST_DISABLED) {
        return option_fail("disable_corrector", list, "a list of at most 1000 step numbers", err);
    }
    for (size_t i = 0; i < count; i++) {
        if (!json_is_integer(json_array_get(list, i))) {
            return option_fail("disable_corrector", list, "a list of step numbers", err);
        }
        own->disabled[i] = json_integer_value(json_array_get(list, i));
    }
    own->n_disabled = count;
    return ATTN_OK;
}

static attn_status unipc_configure(scheduler *s, json_t *config, attn_error *err)
{
    unipc *own = s->own;
    solver *o = &own->common;
    json_t *inner = json_object_get(config, "solver_p");
    if (inner && !json_is_null(inner)) {
        return option_fail("solver_p", inner, "null: a file cannot hold another scheduler", err);
    }
    attn_status status = option_choice(config, "solver_type", type_names, 0, 0, &own->bh1, err);
    if (!status) {
        status = option_whole(config, "solver_order", 2, 1, MOST_ORDER, &o->order, err);
    }
    if (!status) {
        status = option_flag(config, "predict_x0", 1, &o->data, err);
    }
    if (!status) {
        status = option_flag(config, "lower_order_final", 1, &o->lower_order_final, err);
    }
    o->lambda_min_clipped = -INFINITY;
    o->repeats_last_karras = 1;
    s->arrays = ARRAYS;
    return status ? status : disabled_read(own, config, err);
}

static attn_status unipc_set_timesteps(scheduler *s, int64_t steps, attn_error *err)
{
    const unipc *own = s->own;
    return solver_set_timesteps(s, &own->common, steps, err);
}

static int64_t order_at(const scheduler *s, const solver *o, size_t index)
{
    int64_t order = o->order;
    int64_t left = (int64_t)(s->count - index);
    if (o->lower_order_final && left < order) {
        order = left;
    }
    return order < (int64_t)index + 1 ? order : (int64_t)index + 1;
}

/* x of a x = b, [n] and row-major [n, n], by elimination with the largest pivot; b becomes x. The
 * rows are powers of distinct numbers, so there is a pivot. */
static void solve(double a[MOST_ORDER][MOST_ORDER], double *b, size_t n)
{
    for (size_t c = 0; c < n; c++) {
        size_t pivot = c;
        for (size_t r = c + 1; r < n; r++) {
            pivot = fabs(a[r][c]) > fabs(a[pivot][c]) ? r : pivot;
        }
        for (size_t k = 0; k < n; k++) {
            double held = a[c][k];
            a[c][k] = a[pivot][k];
            a[pivot][k] = held;
        }
        double held = b[c];
        b[c] = b[pivot];
        b[pivot] = held;
        for (size_t r = 0; r < n; r++) {
            double factor = r == c ? 0 : a[r][c] / a[c][c];
            for (size_t k = c; k < n && r != c; k++) {
                a[r][k] -= factor * a[c][k];
            }
            b[r] -= r == c ? 0 : factor * b[c];
        }
    }
    for (size_t c = 0; c < n; c++) {
        b[c] /= a[c][c];
    }
}

/* What the differences at the distances r[n] (in steps) count, [n] into rho: the paper's
 * conditions on order n. `grown` is e^hh - 1. */
static void weights_fill(const double *r, size_t n, double hh, double grown, double scale,
                         double *rho)
{
    double a[MOST_ORDER][MOST_ORDER];
    double phi = grown / hh - 1;
    double factorial = 1;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < n; k++) {
            a[i][k] = pow(r[k], (double)i);
        }
        rho[i] = phi * factorial / scale;
        factorial *= (double)(i + 2);
        phi = phi / hh - 1 / factorial;
    }
    solve(a, rho, n);
}

/* From point `begin` to the next with outputs there and at order - 1 points before; with the
 * output at the end too where it corrects. */
static unipc_move move_find(const scheduler *s, const unipc *own, size_t begin, size_t order,
                            int corrects)
{
    solver_point from = solver_point_at(s, begin);
    solver_point to = solver_point_at(s, begin + 1);
    double h = to.lambda - from.lambda;
    double hh = own->common.data ? -h : h;
    double grown = expm1(hh);
    double scale = own->bh1 ? hh : grown;
    double r[MOST_ORDER];
    double rho[MOST_ORDER] = {0.5};
    double factor = own->common.data ? to.alpha : to.sigma;
    unipc_move move = {own->common.data ? to.sigma / from.sigma : to.alpha / from.alpha, {0}};
    if (h == 0) {
        return move; /* Karras' sigmas end with the last one again */
    }
    for (size_t k = 1; k < order; k++) {
        r[k - 1] = (solver_point_at(s, begin - k).lambda - from.lambda) / h;
    }
    r[order - 1] = 1;
    size_t n = corrects ? order : order - 1;
    if (corrects ? order > 1 : order > 2) {
        weights_fill(r, n, hh, grown, scale, rho);
    }
    move.output[1] = -factor * grown;
    for (size_t k = 0; k < n; k++) {
        double weight = -factor * scale * rho[k] / r[k];
        move.output[k == order - 1 ? 0 : k + 2] += weight;
        move.output[1] -= weight;
    }
    return move;
}

/* `end` is the call that made output[0]. */
static void move_apply(const scheduler *s, const unipc_move *move, const float *sample, size_t end,
                       float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double sum = move->sample * (double)sample[i];
        for (size_t k = 0; k < KEPT; k++) {
            if (move->output[k] != 0) {
                sum += move->output[k] * (double)state_array(s, (end + KEPT - k) % KEPT)[i];
            }
        }
        out[i] = (float)sum;
    }
}

static int corrects(const unipc *own, size_t index)
{
    for (size_t i = 0; i < own->n_disabled; i++) {
        if (own->disabled[i] == (int64_t)index - 1) { /* a file may say any number */
            return 0;
        }
    }
    return index > 0;
}

static attn_status unipc_step(scheduler *s, const scheduler_call *call, float *out, attn_error *err)
{
    const unipc *own = s->own;
    size_t index = call->index;
    float *last = state_array(s, LAST);
    (void)err;
    solver_convert(s, call, own->common.data, 0, index % KEPT);
    if (corrects(own, index)) {
        size_t order = (size_t)order_at(s, &own->common, index - 1);
        unipc_move correction = move_find(s, own, index - 1, order, 1);
        move_apply(s, &correction, last, index, last, call->n);
    } else {
        memcpy(last, call->sample, call->n * sizeof *last);
    }
    size_t order = (size_t)order_at(s, &own->common, index);
    unipc_move prediction = move_find(s, own, index, order, 0);
    /* The output at the end is not there yet: the slot counts from the one after this call. */
    move_apply(s, &prediction, last, index + 1, out, call->n);
    return ATTN_OK;
}

const scheduler_class scheduler_unipc = {
    .name = "UniPCMultistepScheduler",
    .order = 1,
    .own_size = sizeof(unipc),
    .takes = TAKES_THRESHOLD | TAKES_SPACING | TAKES_KARRAS,
    .betas = BETAS_COMMON,
    .predictions = PREDICT_ANY,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .spacing = SPACING_LINSPACE,
    .configure = unipc_configure,
    .set_timesteps = unipc_set_timesteps,
    .step = unipc_step,
};
