#include "check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct call {
    enum { COPY, FILL, COMBINE, ACTIVATE } what;
    attn_tensor a, b, out;
    float alpha, beta;
    enum activation act;
};

static void operation(attn_work *w, void *arg)
{
    const struct call *c = arg;
    struct compute *compute = work_compute(w);
    if (c->what == COPY)
        compute->plugin.copy(w, &c->a, &c->out);
    else if (c->what == FILL)
        compute->plugin.fill(w, c->alpha, &c->out);
    else if (c->what == COMBINE)
        compute->plugin.combine(w, c->alpha, &c->a, c->beta, &c->b, &c->out);
    else
        compute->api->activate(w, c->act, &c->a, &c->out);
}

static void copies_convert_and_broadcast(void **state)
{
    const int64_t to[] = {2, 3, 5, 300};
    static const int64_t froms[][4] = {{2, 3, 5, 300}, {1, 3, 1, 300}, {2, 1, 5, 1}, {1, 1, 1, 1}};
    for (int variant = 0; variant < 4 * LAYOUTS * DTYPES * DTYPES; ++variant) {
        const int64_t *from = froms[variant % 4];
        enum dtype in = (enum dtype)(variant / 4 % DTYPES),
                   out = (enum dtype)(variant / 12 % DTYPES);
        enum layout layout = (enum layout)(variant / 36);
        struct sample a = sample_random(in, layout, 4, from);
        struct sample y = sample_output(out, (enum layout)((layout + 1) % LAYOUTS), 4, to);
        struct sample rounded = sample_output(out, PLAIN, 4, to);
        struct call c = {.what = COPY, .a = a.t, .out = y.t};
        int64_t n = tensor_count(&y.t);
        double *expected = malloc((size_t)n * sizeof *expected);
        assert_non_null(expected);
        for (int64_t i = 0; i < n; ++i) {
            int64_t at = 0, rest = i, step = 1;
            for (int d = 3; d >= 0; --d) {
                at += from[d] == 1 ? 0 : rest % to[d] * step;
                step *= from[d];
                rest /= to[d];
            }
            element_set(&rounded.t, i, element(&a.t, at));
            expected[i] = element(&rounded.t, i);
        }
        run_twice(*state, operation, &c);
        assert_close(&y.t, expected, 0.0, "copy");
        free(expected);
        sample_release(&a);
        sample_release(&y);
        sample_release(&rounded);
    }
}

/* Every fp16 and bf16 there is, there and back; and numbers between them. */
static void conversions_are_exact(void **state)
{
    const int64_t s[] = {65536};
    struct fixture *f = *state;
    for (int type = F16; type <= BF16; ++type) {
        struct sample half = sample_output((enum dtype)type, PLAIN, 1, s);
        struct sample wide = sample_output(F32, PLAIN, 1, s);
        struct sample back = sample_output((enum dtype)type, PLAIN, 1, s);
        for (uint32_t i = 0; i < 65536; ++i)
            ((uint16_t *)half.t.data)[i] = (uint16_t)i;
        struct call c = {.what = COPY, .a = half.t, .out = wide.t};
        run_twice(f, operation, &c);
        c.a = wide.t;
        c.out = back.t;
        run_twice(f, operation, &c);
        for (int64_t i = 0; i < 65536; ++i) {
            double v = element(&half.t, i);
            if (isnan(v)) {
                assert_true(isnan(element(&wide.t, i)) && isnan(element(&back.t, i)));
                continue;
            }
            assert_true(v == element(&wide.t, i));
            assert_int_equal(((uint16_t *)half.t.data)[i], ((uint16_t *)back.t.data)[i]);
        }
        for (int64_t i = 0; i < 65536; ++i) {
            int exponent = (int)(uniform() * 44.0) - 28;
            element_set(&wide.t, i, ldexp(normal(), exponent));
            element_set(&half.t, i, element(&wide.t, i)); /* the test's own rounding */
        }
        run_twice(f, operation, &c);
        assert_memory_equal(half.t.data, back.t.data, 65536 * sizeof(uint16_t));
        sample_release(&half);
        sample_release(&wide);
        sample_release(&back);
    }
}

static void combines(void **state)
{
    for (int variant = 0; variant < LAYOUTS * DTYPES * 2; ++variant) {
        const int64_t s[] = {3, 7, 2500};
        enum layout layout = (enum layout)(variant % LAYOUTS);
        enum dtype type = (enum dtype)(variant / LAYOUTS % DTYPES);
        bool one = variant / LAYOUTS / DTYPES;
        struct sample a = sample_random(type, layout, 3, s), b = sample_random(F32, PLAIN, 3, s);
        struct sample y = sample_output(type, (enum layout)((layout + 2) % LAYOUTS), 3, s);
        struct call c = {.what = COMBINE, .a = a.t, .out = y.t, .alpha = 0.5f};
        if (!one) {
            c.b = b.t;
            c.beta = -2.0f;
        }
        double *expected = malloc((size_t)tensor_count(&y.t) * sizeof *expected);
        assert_non_null(expected);
        for (int64_t i = 0; i < tensor_count(&y.t); ++i)
            expected[i] = 0.5 * element(&a.t, i) - (one ? 0.0 : 2.0 * element(&b.t, i));
        run_twice(*state, operation, &c);
        assert_close(&y.t, expected, bound_of(type), "combine");
        c.out = a.t; /* out may be a */
        run_twice(*state, operation, &c);
        free(expected);
        sample_release(&a);
        sample_release(&b);
        sample_release(&y);
    }
}

static void fills(void **state)
{
    for (int layout = 0; layout < LAYOUTS; ++layout) {
        const int64_t s[] = {4, 9};
        struct sample y = sample_output(BF16, (enum layout)layout, 2, s);
        struct call c = {.what = FILL, .out = y.t, .alpha = -2.5f};
        double expected[36];
        for (int i = 0; i < 36; ++i)
            expected[i] = -2.5;
        run_twice(*state, operation, &c);
        assert_close(&y.t, expected, 0.0, "fill");
        sample_release(&y);
    }
}

static void activations(void **state)
{
    const int64_t s[] = {60001};
    for (int act = ACT_NONE; act <= ACT_QUICK_GELU; ++act) {
        struct sample x = sample_output(F32, PLAIN, 1, s), y = sample_output(F32, PLAIN, 1, s);
        double worst = 0.0;
        for (int64_t i = 0; i < s[0]; ++i)
            element_set(&x.t, i, ((double)i - 30000.0) / 1500.0 * (i % 7 ? 1.0 : 10.0));
        struct call c = {.what = ACTIVATE, .a = x.t, .out = y.t, .act = (enum activation)act};
        run_twice(*state, operation, &c);
        for (int64_t i = 0; i < s[0]; ++i) {
            double v = element(&x.t, i);
            double e = act == ACT_SILU         ? v / (1.0 + exp(-v))
                       : act == ACT_QUICK_GELU ? v / (1.0 + exp(-1.702 * v))
                       : act == ACT_GELU       ? 0.5 * v * erfc(-v * sqrt(0.5))
                                               : v;
            double d = fabs(element(&y.t, i) - e);
            worst = d / (1.0 + fabs(e)) > worst ? d / (1.0 + fabs(e)) : worst;
            assert_false(isnan(d));
        }
        if (worst > 4e-7)
            fail_msg("activation %d: off by %.3g", act, worst);
        sample_release(&x);
        sample_release(&y);
    }
}

static void refusals(void **state)
{
    const int64_t s[] = {3, 4}, t[] = {3, 5};
    struct sample a = sample_random(F32, PLAIN, 2, s), y = sample_output(F32, PLAIN, 2, t);
    struct call c = {.what = COPY, .a = a.t, .out = y.t};
    expect_refusal(*state, operation, &c, ATTN_INVALID, "[3, 4] f32 does not broadcast to [3, 5]");
    c.what = COMBINE;
    expect_refusal(*state, operation, &c, ATTN_INVALID, "expected one shape");
    c.what = ACTIVATE;
    expect_refusal(*state, operation, &c, ATTN_INVALID, "expected one shape");
    c.what = FILL;
    c.out.bits = 64;
    expect_refusal(*state, operation, &c, ATTN_INVALID, "expected fp32, fp16 or bf16");
    sample_release(&a);
    sample_release(&y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_convert_and_broadcast),
        cmocka_unit_test(conversions_are_exact),
        cmocka_unit_test(combines),
        cmocka_unit_test(fills),
        cmocka_unit_test(activations),
        cmocka_unit_test(refusals),
    };
    return RUN_GROUP(tests);
}
