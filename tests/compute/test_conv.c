#include "check.h"

#include <math.h>
#include <stdlib.h>

struct conv_case {
    int64_t batch, height, width, in, in2, out, kernel, stride, pad_low, pad_high;
    enum dtype weight_type, x_type;
    enum layout x_layout, y_layout;
    enum activation act;
    bool residual;
};

struct conv_call {
    const struct conv *conv;
    attn_tensor x, x2, y;
    struct epilogue e;
    const float *scales; /* of low-rank terms */
    uint32_t n_scales;
};

static void operation(attn_work *w, void *arg)
{
    const struct conv_call *c = arg;
    w->scales = c->scales;
    w->n_scales = c->n_scales;
    work_compute(w)->api->conv(w, c->conv, &c->x, &c->x2, &c->e, &c->y);
}

static double input_at(const struct conv_call *c, int64_t b, int64_t y, int64_t x, int64_t channel)
{
    const attn_tensor *t = channel < c->x.shape[3] ? &c->x : &c->x2;
    if (y < 0 || y >= t->shape[1] || x < 0 || x >= t->shape[2])
        return 0.0;
    if (t == &c->x2)
        channel -= c->x.shape[3];
    return element(t, ((b * t->shape[1] + y) * t->shape[2] + x) * t->shape[3] + channel);
}

static double convolved(const struct conv_case *k, const struct conv_call *c, const attn_tensor *w,
                        int64_t at, int64_t oc)
{
    int64_t ox = at % c->y.shape[2], oy = at / c->y.shape[2] % c->y.shape[1];
    int64_t b = at / c->y.shape[2] / c->y.shape[1], in = k->in + k->in2;
    double sum = 0.0;
    for (int64_t ic = 0; ic < in; ++ic) {
        for (int64_t tap = 0; tap < k->kernel * k->kernel; ++tap) {
            int64_t ky = tap / k->kernel, kx = tap % k->kernel;
            sum += input_at(c, b, oy * k->stride + ky - k->pad_low,
                            ox * k->stride + kx - k->pad_low, ic) *
                   element(w, (oc * in + ic) * k->kernel * k->kernel + tap);
        }
    }
    return sum;
}

static double activated(enum activation act, double v)
{
    return act == ACT_SILU   ? v / (1.0 + exp(-v))
           : act == ACT_GELU ? 0.5 * v * erfc(-v * sqrt(0.5))
                             : v;
}

static void run_case(struct fixture *f, const struct conv_case *k)
{
    const int64_t out_h = (k->height + k->pad_low + k->pad_high - k->kernel) / k->stride + 1;
    const int64_t out_w = (k->width + k->pad_low + k->pad_high - k->kernel) / k->stride + 1;
    const int64_t xs[] = {k->batch, k->height, k->width, k->in};
    const int64_t x2s[] = {k->batch, k->height, k->width, k->in2};
    const int64_t ys[] = {k->batch, out_h, out_w, k->out}, bs[] = {k->out};
    const int64_t ws[] = {k->out, k->in + k->in2, k->kernel, k->kernel};
    struct sample x = sample_random(k->x_type, k->x_layout, 4, xs);
    struct sample x2 = sample_random(F32, SLICE, 4, x2s),
                  w = sample_random(k->weight_type, PLAIN, 4, ws);
    struct sample b = sample_random(k->weight_type, PLAIN, 1, bs);
    struct sample r = sample_random(F32, k->y_layout, 4, ys);
    struct sample y = sample_output(F32, k->y_layout, 4, ys);
    struct conv_desc desc = {.in_channels = k->in + k->in2,
                             .out_channels = k->out,
                             .kernel = k->kernel,
                             .stride = k->stride,
                             .pad_low = k->pad_low,
                             .pad_high = k->pad_high,
                             .weight = &w.t,
                             .bias = k->residual ? NULL : &b.t};
    struct conv *conv;
    ATTN_ERROR_ON(err, 256);
    if (f->c->api->conv_create(f->c, &desc, &conv, &err) != ATTN_OK)
        fail_msg("%s", err.text);
    struct conv_call c = {.conv = conv,
                          .x = x.t,
                          .y = y.t,
                          .e = {.activation = k->act, .residual = k->residual ? &r.t : NULL}};
    if (k->in2)
        c.x2 = x2.t;
    double *expected = malloc((size_t)tensor_count(&y.t) * sizeof *expected);
    assert_non_null(expected);
    for (int64_t i = 0; i < tensor_count(&y.t); ++i) {
        int64_t oc = i % k->out;
        double v = convolved(k, &c, &w.t, i / k->out, oc) + (k->residual ? 0.0 : element(&b.t, oc));
        expected[i] = activated(k->act, v) + (k->residual ? element(&r.t, i) : 0.0);
    }
    run_twice(f, operation, &c);
    assert_close(&y.t, expected, bound_of(F32), "conv");
    free(expected);
    f->c->api->conv_destroy(f->c, conv);
    sample_release(&x);
    sample_release(&x2);
    sample_release(&w);
    sample_release(&b);
    sample_release(&r);
    sample_release(&y);
}

static void every_kind(void **state)
{
    static const struct conv_case cases[] = {
        {1, 5, 7, 3, 0, 4, 3, 1, 1, 1, F32, F32, PLAIN, PLAIN, ACT_NONE, false},
        {2, 9, 6, 20, 0, 33, 3, 1, 1, 1, F16, F32, SLICE, SLICE, ACT_SILU, true},
        {2, 8, 8, 60, 0, 60, 3, 1, 1, 1, F32, F32, PLAIN, PLAIN, ACT_NONE, true},
        {1, 8, 9, 16, 24, 50, 3, 1, 1, 1, BF16, F32, PLAIN, SLICE, ACT_NONE, false},
        {2, 8, 10, 12, 0, 17, 3, 2, 1, 1, F32, F32, PLAIN, PLAIN, ACT_NONE, false},
        {1, 8, 9, 12, 0, 17, 3, 2, 0, 1, F32, F32, SLICE, PLAIN, ACT_NONE, false},
        {3, 4, 5, 40, 0, 31, 1, 1, 0, 0, F16, F32, SLICE, SLICE, ACT_GELU, false},
        {3, 4, 5, 40, 9, 31, 1, 1, 0, 0, F32, F32, SLICE, SLICE, ACT_NONE, true},
        {1, 7, 7, 8, 0, 8, 5, 1, 2, 2, F32, F32, PLAIN, PLAIN, ACT_NONE, false},
        {1, 1, 1, 4, 0, 320, 3, 1, 1, 1, F32, F32, PLAIN, PLAIN, ACT_NONE, false},
        {1, 6, 6, 10, 0, 5, 3, 1, 1, 1, F32, F16, TURNED, BACKWARD, ACT_NONE, true},
        {1, 3, 40, 1, 0, 1, 1, 2, 0, 0, F32, F32, PLAIN, PLAIN, ACT_NONE, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i)
        run_case(*state, &cases[i]);
}

static void residual_may_be_y(void **state)
{
    struct fixture *f = *state;
    const int64_t s[] = {1, 4, 4, 6}, ws[] = {6, 6, 1, 1};
    struct sample x = sample_random(F32, PLAIN, 4, s), w = sample_random(F32, PLAIN, 4, ws);
    struct sample y = sample_output(F32, PLAIN, 4, s);
    struct conv_desc desc = {
        .in_channels = 6, .out_channels = 6, .kernel = 1, .stride = 1, .weight = &w.t};
    struct conv *conv;
    assert_int_equal(f->c->api->conv_create(f->c, &desc, &conv, NULL), ATTN_OK);
    struct conv_call c = {.conv = conv, .x = x.t, .y = y.t};
    run_twice(f, operation, &c);
    double expected[96];
    for (int64_t i = 0; i < 96; ++i)
        expected[i] = 2.0 * element(&y.t, i);
    c.e.residual = &y.t;
    ATTN_ERROR_ON(err, 256);
    operation(pass_dry(f->pass, &err), &c);
    attn_work *work = pass_real(f->pass, NULL, &err);
    operation(work, &c);
    assert_int_equal(work->status, ATTN_OK);
    assert_close(&y.t, expected, bound_of(F32), "residual = y");
    f->c->api->conv_destroy(f->c, conv);
    sample_release(&x);
    sample_release(&w);
    sample_release(&y);
}

/* down and up of two low-rank terms, and the weight that has them added. */
static double with_terms(const struct conv_term *terms, const float *scales, const attn_tensor *w,
                         int64_t oc, int64_t at, int64_t taps)
{
    double sum = element(w, oc * taps + at);
    for (int i = 0; i < 2; ++i) {
        const int64_t rank = terms[i].down.shape[0];
        for (int64_t r = 0; r < rank; ++r)
            sum += (double)terms[i].factor * (double)scales[terms[i].slot] *
                   element(&terms[i].up, oc * rank + r) * element(&terms[i].down, r * taps + at);
    }
    return sum;
}

/* y = act(conv(x, W + sum s up down)) + residual, x in two parts, stride 2. */
static void low_rank_terms(void **state)
{
    enum { IN = 5, OUT = 7, SIDE = 6, HALF = 3, TAPS = IN * 9 };
    struct fixture *f = *state;
    const float scales[] = {0.7f, -1.3f};
    const int64_t xs[] = {2, SIDE, SIDE, 3}, x2s[] = {2, SIDE, SIDE, 2},
                  ys[] = {2, HALF, HALF, OUT};
    const int64_t ws[] = {OUT, IN, 3, 3}, downs[2][4] = {{2, IN, 3, 3}, {3, IN, 3, 3}};
    const int64_t ups[2][2] = {{OUT, 2}, {OUT, 3}};
    struct sample x = sample_random(F32, PLAIN, 4, xs), x2 = sample_random(F32, PLAIN, 4, x2s);
    struct sample w = sample_random(F32, PLAIN, 4, ws), y = sample_output(F32, PLAIN, 4, ys);
    struct sample r = sample_random(F32, PLAIN, 4, ys), merged = sample_random(F32, PLAIN, 4, ws);
    struct sample down[2], up[2];
    struct conv_term terms[2];
    for (int i = 0; i < 2; ++i) {
        down[i] = sample_random(F32, PLAIN, 4, downs[i]);
        up[i] = sample_random(F32, PLAIN, 2, ups[i]);
        terms[i] = (struct conv_term){
            .down = down[i].t, .up = up[i].t, .factor = 0.1f, .slot = (uint32_t)i};
    }
    for (int64_t i = 0; i < OUT * TAPS; ++i)
        ((float *)merged.t.data)[i] =
            (float)with_terms(terms, scales, &w.t, i / TAPS, i % TAPS, TAPS);
    const struct conv_desc desc = {.in_channels = IN,
                                   .out_channels = OUT,
                                   .kernel = 3,
                                   .stride = 2,
                                   .pad_low = 1,
                                   .pad_high = 1,
                                   .weight = &w.t,
                                   .terms = terms,
                                   .n_terms = 2};
    const struct conv_case k = {.in = 3, .in2 = 2, .kernel = 3, .stride = 2, .pad_low = 1};
    struct conv *conv;
    assert_int_equal(f->c->api->conv_create(f->c, &desc, &conv, NULL), ATTN_OK);
    for (int i = 0; i < 4; ++i) {
        const enum activation act = i & 1 ? ACT_SILU : ACT_NONE;
        struct conv_call c = {.conv = conv,
                              .x = x.t,
                              .x2 = x2.t,
                              .y = y.t,
                              .e = {act, i & 2 ? &r.t : NULL},
                              .scales = scales,
                              .n_scales = 2};
        double expected[2 * HALF * HALF * OUT];
        for (int64_t n = 0; n < 2 * HALF * HALF * OUT; ++n)
            expected[n] = activated(act, convolved(&k, &c, &merged.t, n / OUT, n % OUT)) +
                          (i & 2 ? element(&r.t, n) : 0.0);
        run_twice(f, operation, &c);
        assert_close(&y.t, expected, bound_of(F32), "low-rank terms");
    }
    f->c->api->conv_destroy(f->c, conv);
    for (int i = 0; i < 2; ++i) {
        sample_release(&down[i]);
        sample_release(&up[i]);
    }
    sample_release(&merged);
    sample_release(&r);
    sample_release(&y);
    sample_release(&w);
    sample_release(&x2);
    sample_release(&x);
}

static void wrong_shapes(void **state)
{
    struct fixture *f = *state;
    const int64_t xs[] = {1, 4, 4, 6}, ws[] = {5, 6, 3, 3}, ys[] = {1, 4, 3, 5};
    struct sample x = sample_random(F32, PLAIN, 4, xs), w = sample_random(F32, PLAIN, 4, ws);
    struct sample y = sample_output(F32, PLAIN, 4, ys);
    struct conv_desc desc = {.in_channels = 6,
                             .out_channels = 4,
                             .kernel = 3,
                             .stride = 1,
                             .pad_low = 1,
                             .pad_high = 1,
                             .weight = &w.t};
    struct conv *conv;
    ATTN_ERROR_ON(err, 256);
    assert_int_equal(f->c->api->conv_create(f->c, &desc, &conv, &err), ATTN_INVALID);
    assert_string_equal(err.text,
                        "conv: weight [5, 6, 3, 3] f32: expected [4, 6, 3, 3] of a float type");
    desc.out_channels = 5;
    assert_int_equal(f->c->api->conv_create(f->c, &desc, &conv, &err), ATTN_OK);
    struct conv_call c = {.conv = conv, .x = x.t, .y = y.t};
    expect_refusal(f, operation, &c, ATTN_INVALID, "y [1, 4, 3, 5] f32");
    f->c->api->conv_destroy(f->c, conv);
    sample_release(&x);
    sample_release(&w);
    sample_release(&y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind),
        cmocka_unit_test(residual_may_be_y),
        cmocka_unit_test(low_rank_terms),
        cmocka_unit_test(wrong_shapes),
    };
    return RUN_GROUP(tests);
}
