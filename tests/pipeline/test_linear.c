/* Schedulers as tables of coefficients: a run by the tables is the run by the scheduler, for every
 * class that says it is linear; those that are not say so.
 *
 * Argument: a scheduler_config.json. */
#include "sag_linear.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 6, STEPS = 12, MOST_CALLS = 64 };

static const char *config;

static float number(void)
{
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) * 0x1p-23f - 1.0f;
}

static void fill(float *x)
{
    for (int i = 0; i < N; i++)
        x[i] = number();
}

static double distance(const float *a, const float *b)
{
    double difference = 0, size = 0;
    for (int i = 0; i < N; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / (size + 1e-30));
}

/* What the model answers at each call, the latents that it sees, and what is drawn. */
static float outputs[MOST_CALLS][N], samples[MOST_CALLS + 1][N], noises[MOST_CALLS][N];

static void by_tables(const struct linear_run *run, size_t call, float *out)
{
    for (int e = 0; e < N; e++) {
        out[e] = 0;
        for (size_t k = 0; k < run->n_inputs; k++) {
            const struct linear_input *in = &run->inputs[k];
            const float c = run->next[call * run->n_inputs + k];
            if (c != 0)
                out[e] += c * (in->kind == LINEAR_SAMPLE   ? samples[call - in->lag][e]
                               : in->kind == LINEAR_OUTPUT ? outputs[call - in->lag][e]
                                                           : noises[call][e]);
        }
    }
}

static double compare(scheduler *s, const struct linear_run *run, float eta)
{
    double worst = 0;
    fill(samples[0]);
    for (size_t i = 0; i < run->calls; i++) {
        float x0[N], noise[N], shown[N], again[N], next[N];
        fill(outputs[i]);
        fill(noises[i]);
        scheduler_scale_model_input(s, i, samples[i], shown, N);
        scheduler_predict(s, i, outputs[i], samples[i], x0, noise, N);
        scheduler_add_noise(s, i, x0, noise, again, N);
        for (int e = 0; e < N; e++) {
            const float *p = &run->predict[4 * i], *r = &run->renoise[2 * i];
            const float a = p[0] * outputs[i][e] + p[1] * samples[i][e];
            const float b = p[2] * outputs[i][e] + p[3] * samples[i][e];
            assert_true(fabsf(run->scale[i] * samples[i][e] - shown[e]) <= 1e-6f * fabsf(shown[e]));
            assert_true(fabsf(a - x0[e]) <= 1e-4f * (1 + fabsf(x0[e])));
            assert_true(fabsf(r[0] * a + r[1] * b - again[e]) <= 1e-4f * (1 + fabsf(again[e])));
        }
        const scheduler_call call = {.index = i,
                                     .model_output = outputs[i],
                                     .sample = samples[i],
                                     .noise = scheduler_wants_noise(s, i, eta) ? noises[i] : NULL,
                                     .eta = eta,
                                     .n = N,
                                     .each = N};
        assert_int_equal(scheduler_step(s, &call, samples[i + 1], NULL), 0);
        by_tables(run, i, next);
        double d = distance(next, samples[i + 1]);
        worst = d > worst ? d : worst;
    }
    return worst;
}

/* 1 where the class is linear. */
static int class_check(const char *name, float eta)
{
    ATTN_ERROR_ON(err, 512);
    scheduler *s = NULL;
    struct linear_run run;
    size_t calls;
    if (scheduler_open(config, name, &s, &err) || scheduler_set_timesteps(s, STEPS, &err))
        fail_msg("%s: %s", name, err.text);
    (void)scheduler_timesteps(s, &calls);
    assert_true(calls <= MOST_CALLS);
    int linear = linear_read(s, calls, eta, &run);
    assert_true(linear >= 0);
    if (linear) {
        double worst = compare(s, &run, eta);
        print_message("%-36s eta %g: %zu inputs, %zu calls back, %.1e\n", name, (double)eta,
                      run.n_inputs, run.lags, worst);
        assert_true(worst <= 1e-5);
        linear_free(&run);
    } else {
        print_message("%-36s eta %g: not linear\n", name, (double)eta);
    }
    scheduler_close(s);
    return linear;
}

static void every_class(void **state)
{
    size_t linear = 0;
    (void)state;
    for (size_t i = 0; scheduler_class_name(i); i++)
        linear += (size_t)class_check(scheduler_class_name(i), 0);
    assert_true(linear >= 8);
}

static void what_must_be_linear(void **state)
{
    static const char *const names[] = {"DDIMScheduler", "PNDMScheduler",
                                        "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_true(class_check(names[i], 0));
    assert_true(class_check("DDIMScheduler", 1));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_class),
        cmocka_unit_test(what_must_be_linear),
    };
    if (argc != 2)
        return 2;
    config = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
