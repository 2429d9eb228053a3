#include "sag_linear.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Unit vectors are stretched by both: whoever clips values does not answer in proportion. */
static const float small = 0x1p-10f, large = 0x1p10f;

/* Calls of which a step is asked: it and those before it that may count.  A ring of them. */
enum { RING = LINEAR_LAGS + 2, KINDS = 3, WIDTH = RING * KINDS };

static size_t column_of(enum linear_kind kind, size_t call)
{
    return call % RING * KINDS + (size_t)kind;
}

/* Steps the scheduler through the run over unit vectors of `size`; out [calls][WIDTH].  A call's
 * vectors take the place of those of RING calls before; who remembers those remembers the calls in
 * between too, which is too much. */
static int steps_ask(scheduler *s, size_t calls, float eta, float size, float *out)
{
    float output[WIDTH], sample[WIDTH], noise[WIDTH];
    for (size_t i = 0; i < calls; i++) {
        memset(output, 0, sizeof output);
        memset(sample, 0, sizeof sample);
        memset(noise, 0, sizeof noise);
        output[column_of(LINEAR_OUTPUT, i)] = size;
        sample[column_of(LINEAR_SAMPLE, i)] = size;
        noise[column_of(LINEAR_NOISE, i)] = size;
        const scheduler_call call = {.index = i,
                                     .model_output = output,
                                     .sample = sample,
                                     .noise = scheduler_wants_noise(s, i, eta) ? noise : NULL,
                                     .eta = eta,
                                     .n = WIDTH,
                                     .each = WIDTH};
        if (scheduler_step(s, &call, out + i * WIDTH, NULL)) {
            return 0;
        }
    }
    return 1;
}

static int in_proportion(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float x = a[i] / small, y = b[i] / large;
        if (!isfinite(x) || !isfinite(y) || fabsf(x - y) > 1e-6f * (fabsf(x) + fabsf(y))) {
            return 0;
        }
    }
    return 1;
}

/* Which quantities count in any call; 0 where they are too many or too old. */
static int inputs_find(struct linear_run *r, const float *steps)
{
    for (size_t lag = 0; lag < RING; lag++) {
        for (size_t kind = 0; kind < KINDS; kind++) {
            int used = 0;
            for (size_t i = lag; i < r->calls && !used; i++) {
                used = steps[i * WIDTH + column_of((enum linear_kind)kind, i - lag)] != 0;
            }
            if (!used) {
                continue;
            }
            if (lag >= LINEAR_LAGS || (kind == LINEAR_NOISE && lag) ||
                r->n_inputs == LINEAR_INPUTS) {
                return 0;
            }
            r->inputs[r->n_inputs++] = (struct linear_input){(enum linear_kind)kind, lag};
            r->lags = lag > r->lags ? lag : r->lags;
        }
    }
    return 1;
}

/* The first calls have no call before them: a ring entry that nobody wrote is 0. */
static void next_fill(struct linear_run *r, const float *steps)
{
    for (size_t i = 0; i < r->calls; i++) {
        for (size_t k = 0; k < r->n_inputs; k++) {
            const struct linear_input *in = &r->inputs[k];
            r->next[i * r->n_inputs + k] =
                in->lag > i ? 0 : steps[i * WIDTH + column_of(in->kind, i - in->lag)] / small;
        }
    }
}

static void rest_fill(const scheduler *s, struct linear_run *r)
{
    static const float output[2] = {1, 0}, sample[2] = {0, 1};
    for (size_t i = 0; i < r->calls; i++) {
        const float one = 1;
        scheduler_scale_model_input(s, i, &one, &r->scale[i], 1);
        scheduler_predict(s, i, output, sample, &r->predict[4 * i], &r->predict[4 * i + 2], 2);
        scheduler_add_noise(s, i, output, sample, &r->renoise[2 * i], 2);
    }
}

int linear_read(scheduler *s, size_t calls, float eta, struct linear_run *run)
{
    float *asked = malloc(2 * calls * WIDTH * sizeof *asked);
    float *again = asked ? asked + calls * WIDTH : NULL;
    *run = (struct linear_run){.calls = calls};
    int linear = -1;
    run->scale = malloc(calls * sizeof(float));
    run->predict = malloc(calls * 4 * sizeof(float));
    run->renoise = malloc(calls * 2 * sizeof(float));
    run->next = malloc(calls * LINEAR_INPUTS * sizeof(float));
    if (!asked || !run->scale || !run->predict || !run->renoise || !run->next) {
        goto done;
    }
    linear = steps_ask(s, calls, eta, small, asked) && steps_ask(s, calls, eta, large, again) &&
             in_proportion(asked, again, calls * WIDTH) && inputs_find(run, asked);
    if (linear) {
        next_fill(run, asked);
        rest_fill(s, run);
    }
done:
    free(asked);
    if (linear != 1) {
        linear_free(run);
    }
    return linear;
}

void linear_free(struct linear_run *run)
{
    free(run->scale);
    free(run->predict);
    free(run->renoise);
    free(run->next);
    *run = (struct linear_run){0};
}
