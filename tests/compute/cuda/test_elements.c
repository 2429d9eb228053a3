/* Copies, element-wise operations and scheduler arithmetic. */
#include "device.h"

#include <cuda_runtime_api.h>

#include <math.h>
#include <stdlib.h>

/* The number that an element of this type holds after rounding. */
static double rounded(const attn_tensor *like, double value)
{
    union {
        float f;
        uint32_t u;
    } cell = {0};
    attn_tensor one = *like;
    one.data = &cell;
    one.rank = 1;
    one.shape[0] = 1;
    element_set(&one, 0, value);
    return element(&one, 0);
}

static int64_t broadcast(const int64_t *from, const int64_t *to, int64_t i)
{
    int64_t at = 0, step = 1;
    for (int d = 3; d >= 0; --d) {
        at += from[d] == 1 ? 0 : i % to[d] * step;
        step *= from[d];
        i /= to[d];
    }
    return at;
}

static void copy_case(const int64_t *from, const int64_t *to, enum dtype in, enum dtype out,
                      enum layout a, enum layout b)
{
    struct sample x = sample_random(in, a, 4, from, 0.0), y = sample_output(out, b, 4, to);
    int64_t n = count_of(&y.h);
    double *expected = doubles(n);
    for (int64_t i = 0; i < n; ++i)
        expected[i] = rounded(&y.h, element(&x.h, broadcast(from, to, i)));
    LAUNCH(copy, &x.t, &y.t);
    expect_close(&y, expected, 1e-30, "copy");
    free(expected);
    sample_release(&x);
    sample_release(&y);
}

static void copies_convert_turn_and_broadcast(void **unused)
{
    static const int64_t tos[][4] = {{2, 3, 5, 299}, {2, 3, 40, 64}, {1, 1, 1, 7}, {3, 33, 1, 65}};
    (void)unused;
    for (int v = 0; v < 4 * DTYPES * DTYPES * LAYOUTS * LAYOUTS; ++v) {
        const int64_t *to = tos[v % 4];
        int64_t from[4] = {to[0], to[1], to[2], to[3]};
        const int kind = v * 7 / 3 % 5;
        if (kind == 1)
            from[0] = from[2] = 1;
        else if (kind == 2)
            from[1] = from[3] = 1;
        copy_case(from, to, (enum dtype)(v / 4 % DTYPES), (enum dtype)(v / 12 % DTYPES),
                  (enum layout)(v / 36 % LAYOUTS), (enum layout)(v / (36 * LAYOUTS)));
    }
}

struct operation {
    const char *name;
    int inputs; /* x, bias or second, residual or third */
};

static double reference(int op, double alpha, double beta, double scale, int act, double a,
                        double b, double c)
{
    switch (op) {
    case 0:
        return alpha * a + beta * b;
    case 1:
        return activation(act, a);
    case 2:
        return alpha * activation(act, a + b) + beta * c;
    case 3:
        return a + scale * (b - a);
    default:
        return a + scale * (b - c);
    }
}

static void launch(int op, float alpha, float beta, const float *scale, int act, struct sample *x,
                   struct sample *y)
{
    if (op == 0)
        LAUNCH(combine, alpha, &x[0].t, beta, &x[1].t, &y->t);
    else if (op == 1)
        LAUNCH(activate, act, &x[0].t, &y->t);
    else if (op == 2)
        LAUNCH(epilogue, alpha, act, &x[0].t, &x[1].t, beta, &x[2].t, &y->t);
    else if (op == 3)
        LAUNCH(guide, &x[0].t, &x[1].t, scale, &y->t);
    else
        LAUNCH(guide_sag, &x[0].t, &x[1].t, &x[2].t, scale, &y->t);
}

static void element_case(int op, int v, const float *scale)
{
    static const char *const names[] = {"combine", "activate", "epilogue", "guide", "guide_sag"};
    static const int64_t shapes[][4] = {
        {2, 3, 5, 320}, {1, 1, 37, 77}, {2, 4, 4, 4}, {1, 1, 1, 8193}};
    const int64_t *shape = shapes[v % 4], *bias = &shape[3];
    const float alpha = 0.75f, beta = v % 3 ? -1.25f : 0.0f;
    const int act = v % 4;
    struct sample x[3],
        y = sample_output((enum dtype)(v / 2 % DTYPES), (enum layout)(v % LAYOUTS), 4, shape);
    for (int i = 0; i < 3; ++i) {
        enum layout layout = (enum layout)((v / 3 + i * (v / 30)) % LAYOUTS);
        bool is_bias = op == 2 && i == 1;
        x[i] = sample_random((enum dtype)((v + i * v / 5) % DTYPES), layout, is_bias ? 1 : 4,
                             is_bias ? bias : shape, 0.0);
    }
    int64_t n = count_of(&y.h);
    double *expected = doubles(n);
    for (int64_t i = 0; i < n; ++i)
        expected[i] = reference(op, alpha, beta, 7.5, act, element(&x[0].h, i),
                                element(&x[1].h, op == 2 ? i % shape[3] : i), element(&x[2].h, i));
    launch(op, alpha, beta, scale, act, x, &y);
    expect_close(&y, expected, 0.0, names[op]);
    free(expected);
    for (int i = 0; i < 3; ++i)
        sample_release(&x[i]);
    sample_release(&y);
}

static void elements_match_double(void **unused)
{
    const int64_t one[] = {1};
    struct sample scale = sample_random(F32, PLAIN, 1, one, 0.0);
    (void)unused;
    element_set(&scale.h, 0, 7.5);
    sample_upload(&scale);
    for (int op = 0; op < 5; ++op) {
        for (int v = 0; v < 60; ++v)
            element_case(op, v, scale.t.data);
    }
    sample_release(&scale);
}

static void outputs_may_be_inputs(void **unused)
{
    const int64_t shape[] = {3, 5, 7, 24};
    (void)unused;
    for (int type = 0; type < DTYPES; ++type) {
        struct sample x = sample_random((enum dtype)type, PLAIN, 4, shape, 0.0);
        struct sample b = sample_random((enum dtype)type, PLAIN, 4, shape, 0.0);
        int64_t n = count_of(&x.h);
        double *expected = doubles(n);
        for (int64_t i = 0; i < n; ++i)
            expected[i] = 0.5 * element(&x.h, i) + 2.0 * element(&b.h, i);
        LAUNCH(combine, 0.5f, &x.t, 2.0f, &b.t, &x.t);
        expect_close(&x, expected, 0.0, "combine in place");
        free(expected);
        sample_release(&x);
        sample_release(&b);
    }
}

static void fills_and_optional_inputs(void **unused)
{
    const int64_t shape[] = {2, 3, 5, 33};
    (void)unused;
    for (int v = 0; v < DTYPES * LAYOUTS; ++v) {
        struct sample y =
            sample_output((enum dtype)(v % DTYPES), (enum layout)(v / DTYPES), 4, shape);
        struct sample x = sample_random(F16, PLAIN, 4, shape, 0.0);
        int64_t n = count_of(&y.h);
        double *expected = doubles(n);
        for (int64_t i = 0; i < n; ++i)
            expected[i] = -1.5;
        LAUNCH(fill, -1.5f, &y.t);
        expect_close(&y, expected, 1e-30, "fill");
        for (int64_t i = 0; i < n; ++i)
            expected[i] = 2.0 * element(&x.h, i);
        LAUNCH(epilogue, 2.0f, KERNEL_ACT_NONE, &x.t, NULL, 0.0f, NULL, &y.t);
        expect_close(&y, expected, 0.0, "epilogue without bias and residual");
        LAUNCH(combine, 2.0f, &x.t, 0.0f, NULL, &y.t);
        expect_close(&y, expected, 0.0, "combine of one");
        free(expected);
        sample_release(&x);
        sample_release(&y);
    }
}

static void geglu_matches_double(void **unused)
{
    static const int64_t widths[] = {320, 77, 8, 1};
    (void)unused;
    for (int v = 0; v < 4 * DTYPES * LAYOUTS; ++v) {
        const int64_t c = widths[v % 4], in[] = {2, 9, 2 * c}, out[] = {2, 9, c}, bias[] = {2 * c};
        const enum dtype type = (enum dtype)(v / 4 % DTYPES);
        const bool biased = v % 3 != 0;
        struct sample x = sample_random(type, (enum layout)(v / 12), 3, in, 0.0);
        struct sample b = sample_random(type, PLAIN, 1, bias, 0.0);
        struct sample y =
            sample_output((enum dtype)(v % 5 ? type : F32), (enum layout)(v % LAYOUTS), 3, out);
        double *expected = doubles(18 * c);
        for (int64_t i = 0; i < 18 * c; ++i) {
            const int64_t row = i / c, k = i % c;
            double a = element(&x.h, row * 2 * c + k), g = element(&x.h, row * 2 * c + c + k);
            a += biased ? element(&b.h, k) : 0.0;
            g += biased ? element(&b.h, c + k) : 0.0;
            expected[i] = a * activation(KERNEL_ACT_GELU, g);
        }
        LAUNCH(geglu, &x.t, biased ? &b.t : NULL, &y.t);
        expect_close(&y, expected, 0.0, "geglu");
        free(expected);
        sample_release(&x);
        sample_release(&b);
        sample_release(&y);
    }
}

static void mix_case(uint32_t n_y, uint32_t n_x, int64_t n, int step)
{
    const int64_t shape[] = {n}, table[] = {3 * (int64_t)n_y * n_x}, one[] = {1};
    struct sample x[KERNEL_MIX_INPUTS], y[KERNEL_MIX_OUTPUTS];
    const attn_tensor *xs[KERNEL_MIX_INPUTS], *ys[KERNEL_MIX_OUTPUTS];
    struct sample c = sample_random(F32, PLAIN, 1, table, 0.0);
    struct sample s = sample_random(I32, PLAIN, 1, one, 0.0);
    double *expected = doubles(n_y * n);
    const int64_t row = (int64_t)step * n_y * n_x;
    element_set(&s.h, 0, step);
    sample_upload(&s);
    for (uint32_t i = 0; i < n_x; ++i) {
        x[i] = sample_random((enum dtype)(i % DTYPES), n % 8 == 5 ? ODD : PLAIN, 1, shape, 0.0);
        xs[i] = &x[i].t;
        if (i == 2) { /* left out everywhere: what it holds does not matter */
            element_set(&x[i].h, n / 2, NAN);
            sample_upload(&x[i]);
            for (uint32_t o = 0; o < n_y; ++o)
                element_set(&c.h, row + o * n_x + i, 0.0);
        }
    }
    sample_upload(&c);
    for (uint32_t o = 0; o < n_y; ++o) {
        y[o] = sample_output((enum dtype)(o % DTYPES), PLAIN, 1, shape);
        ys[o] = &y[o].t;
        for (uint32_t i = 0; i < n_x; ++i) {
            double by = element(&c.h, row + o * n_x + i);
            for (int64_t k = 0; by != 0.0 && k < n; ++k)
                expected[o * n + k] += by * element(&x[i].h, k);
        }
    }
    /* the first output takes the place of the first input */
    ys[0] = &x[0].t;
    LAUNCH(mix, n_y, ys, n_x, xs, c.t.data, step ? s.t.data : NULL);
    expect_close(&x[0], expected, 0.0, "mix in place");
    for (uint32_t o = 1; o < n_y; ++o)
        expect_close(&y[o], expected + o * n, 0.0, "mix");
    for (uint32_t i = 0; i < n_x; ++i)
        sample_release(&x[i]);
    for (uint32_t o = 0; o < n_y; ++o)
        sample_release(&y[o]);
    sample_release(&c);
    sample_release(&s);
    free(expected);
}

static void mixes_match_double(void **unused)
{
    (void)unused;
    mix_case(1, 2, 16384, 0);
    mix_case(1, 8, 4096 + 5, 1);
    mix_case(4, 8, 1001, 2);
    mix_case(3, 3, 7, 2);
    mix_case(2, 1, 4096, 1);
}

/* The counter of a loop, in a graph that is captured before any of its kernels has run. */
static void steps_advance_in_a_graph(void **unused)
{
    const int64_t six[] = {6}, one[] = {1};
    struct sample table = sample_random(F32, PLAIN, 1, six, 0.0),
                  y = sample_output(F32, PLAIN, 1, six);
    struct sample step = sample_random(I32, PLAIN, 1, one, 0.0);
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    (void)unused;
    element_set(&step.h, 0, 0.0);
    sample_upload(&step);
    assert_int_equal(cudaStreamCreate(&stream), 0);
    assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), 0);
    expect_launched(attn_cuda_kernels.step_pick(table.t.data, step.t.data, 2, 3, y.t.data, stream),
                    "step_pick");
    expect_launched(attn_cuda_kernels.step_advance(step.t.data, 1, stream), "step_advance");
    assert_int_equal(cudaStreamEndCapture(stream, &graph), 0);
    assert_int_equal(cudaGraphInstantiate(&exec, graph, 0), 0);
    for (int round = 0; round < 3; ++round) {
        double expected[6];
        for (int i = 0; i < 6; ++i)
            expected[i] = element(&table.h, round * 2 + i % 2);
        assert_int_equal(cudaGraphLaunch(exec, stream), 0);
        expect_close(&y, expected, 1e-30, "step_pick");
    }
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
    sample_release(&table);
    sample_release(&y);
    sample_release(&step);
}

int elements_group(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_advance_in_a_graph),
        cmocka_unit_test(copies_convert_turn_and_broadcast),
        cmocka_unit_test(elements_match_double),
        cmocka_unit_test(outputs_may_be_inputs),
        cmocka_unit_test(fills_and_optional_inputs),
        cmocka_unit_test(geglu_matches_double),
        cmocka_unit_test(mixes_match_double),
    };
    return cmocka_run_group_tests_name("elements", tests, NULL, NULL);
}
