#include "check.h"

#include <math.h>
#include <stdlib.h>

struct linear_case {
    attn_linear linear;
    attn_tensor x, y, c;
    float alpha, beta;
    struct epilogue e;
    bool with_epilogue, gated;
    const float *scales;
    uint32_t n_scales;
};

static void operation(attn_work *w, void *arg)
{
    const struct linear_case *l = arg;
    struct compute *c = work_compute(w);
    w->scales = l->scales;
    w->n_scales = l->n_scales;
    if (l->gated)
        c->api->geglu(w, &l->x, &l->linear, &l->y);
    else if (l->with_epilogue)
        c->api->linear(w, &l->x, &l->linear, &l->e, &l->y);
    else
        c->plugin.linear(w, l->alpha, &l->x, &l->linear, l->beta, &l->c, &l->y);
}

static double gelu(double x)
{
    return 0.5 * x * erfc(-x * sqrt(0.5));
}

static double activated(enum activation act, double v)
{
    return act == ACT_SILU         ? v / (1.0 + exp(-v))
           : act == ACT_QUICK_GELU ? v / (1.0 + exp(-1.702 * v))
           : act == ACT_GELU       ? gelu(v)
                                   : v;
}

/* x weight^T + bias + terms, one element. */
static double plain(const struct linear_case *l, int64_t row, int64_t column)
{
    int64_t depth = tensor_last(&l->x);
    double sum = l->linear.bias.rank ? element(&l->linear.bias, column) : 0.0;
    for (int64_t k = 0; k < depth; ++k)
        sum += element(&l->x, row * depth + k) * element(&l->linear.weight, column * depth + k);
    for (uint32_t i = 0; i < l->linear.n_terms; ++i) {
        const attn_term *t = &l->linear.terms[i];
        int64_t rank = t->down.shape[0];
        for (int64_t r = 0; r < rank; ++r) {
            double down = 0.0;
            for (int64_t k = 0; k < depth; ++k)
                down += element(&l->x, row * depth + k) * element(&t->down, r * depth + k);
            sum += t->factor * l->scales[t->slot] * down * element(&t->up, column * rank + r);
        }
    }
    return sum;
}

static double *expected_of(const struct linear_case *l)
{
    int64_t columns = tensor_last(&l->y), n = tensor_count(&l->y);
    double *out = malloc((size_t)(n ? n : 1) * sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < n; ++i) {
        int64_t row = i / columns, column = i % columns;
        double v = plain(l, row, column);
        if (l->gated)
            out[i] = v * gelu(plain(l, row, columns + column));
        else if (l->with_epilogue)
            out[i] =
                activated(l->e.activation, v) + (l->e.residual ? element(l->e.residual, i) : 0.0);
        else
            out[i] = l->alpha * v + (l->c.rank ? l->beta * element(&l->c, i) : 0.0);
    }
    return out;
}

/* Rows 1 to 4 take another way than many rows; each count of rows is its own tile; columns beside
 * the width of a panel; depths of one and of an odd number. */
static const int64_t sizes[][3] = {{1, 7, 5},    {2, 64, 33},   {4, 320, 48}, {5, 1, 1},
                                   {13, 33, 17}, {27, 40, 120}, {29, 77, 31}, {100, 130, 65},
                                   {3, 5, 0},    {0, 5, 3}};

static void shapes_and_layouts(void **state)
{
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
        for (int layout = 0; layout < LAYOUTS; ++layout) {
            int64_t m = sizes[i][0], k = sizes[i][1], n = sizes[i][2];
            const int64_t xs[] = {1, m, k}, ws[] = {n, k}, bs[] = {n}, ys[] = {1, m, n};
            enum layout l = (enum layout)layout;
            struct sample x = sample_random(F32, l, 3, xs), w = sample_random(F32, l, 2, ws);
            struct sample b = sample_random(F32, PLAIN, 1, bs), c = sample_random(F32, l, 3, ys);
            struct sample y = sample_output(F32, l, 3, ys);
            struct linear_case lc = {.linear = {.weight = w.t, .bias = b.t},
                                     .x = x.t,
                                     .y = y.t,
                                     .c = c.t,
                                     .alpha = 0.75f,
                                     .beta = i % 2 ? -0.5f : 0.0f};
            double *expected = expected_of(&lc);
            run_twice(*state, operation, &lc);
            assert_close(&y.t, expected, bound_of(F32), "linear");
            free(expected);
            sample_release(&x);
            sample_release(&w);
            sample_release(&b);
            sample_release(&c);
            sample_release(&y);
        }
    }
}

static void mixed_types(void **state)
{
    const int64_t xs[] = {2, 19, 50}, ws[] = {37, 50}, bs[] = {37}, ys[] = {2, 19, 37};
    for (int tx = 0; tx < DTYPES; ++tx) {
        for (int tw = 0; tw < DTYPES; ++tw) {
            for (int ty = 0; ty < DTYPES; ++ty) {
                struct sample x = sample_random((enum dtype)tx, SLICE, 3, xs);
                struct sample w = sample_random((enum dtype)tw, PLAIN, 2, ws);
                struct sample b = sample_random((enum dtype)tw, PLAIN, 1, bs);
                struct sample y = sample_output((enum dtype)ty, TURNED, 3, ys);
                struct linear_case lc = {
                    .linear = {.weight = w.t, .bias = b.t}, .x = x.t, .y = y.t, .alpha = 1.0f};
                double *expected = expected_of(&lc);
                run_twice(*state, operation, &lc);
                assert_close(&y.t, expected, bound_of((enum dtype)ty), "mixed linear");
                free(expected);
                sample_release(&x);
                sample_release(&w);
                sample_release(&b);
                sample_release(&y);
            }
        }
    }
}

static void y_may_be_c(void **state)
{
    const int64_t xs[] = {31, 24}, ws[] = {45, 24}, ys[] = {31, 45};
    struct sample x = sample_random(F32, PLAIN, 2, xs), w = sample_random(F32, PLAIN, 2, ws);
    struct sample c = sample_random(F32, SLICE, 2, ys), y = sample_output(F32, SLICE, 2, ys);
    struct linear_case lc = {
        .linear = {.weight = w.t}, .x = x.t, .y = y.t, .c = c.t, .alpha = 2.0f, .beta = 0.5f};
    double *expected = expected_of(&lc);
    struct fixture *f = *state;
    ATTN_ERROR_ON(err, 256);
    lc.c = y.t;
    operation(pass_dry(f->pass, &err), &lc);
    attn_work *work = pass_real(f->pass, NULL, &err);
    assert_non_null(work);
    for (int64_t i = 0; i < tensor_count(&y.t); ++i)
        element_set(&y.t, i, element(&c.t, i));
    operation(work, &lc);
    assert_int_equal(work->status, ATTN_OK);
    assert_close(&y.t, expected, bound_of(F32), "y = c");
    free(expected);
    sample_release(&x);
    sample_release(&w);
    sample_release(&c);
    sample_release(&y);
}

static void epilogues_and_geglu(void **state)
{
    for (int64_t m = 1; m <= 40; m += m < 16 ? 1 : 23) {
        for (int act = ACT_NONE; act <= ACT_QUICK_GELU + 1; ++act) {
            bool gated = act > ACT_QUICK_GELU;
            const int64_t n = 53, k = 30;
            const int64_t xs[] = {m, k}, ws[] = {gated ? 2 * n : n, k}, ys[] = {m, n};
            struct sample x = sample_random(F32, PLAIN, 2, xs),
                          w = sample_random(F32, PLAIN, 2, ws);
            struct sample b = sample_random(F16, BACKWARD, 1, ws);
            struct sample r = sample_random(F32, SLICE, 2, ys),
                          y = sample_output(F32, SLICE, 2, ys);
            struct linear_case lc = {.linear = {.weight = w.t, .bias = b.t},
                                     .x = x.t,
                                     .y = y.t,
                                     .e = {.activation = gated ? ACT_NONE : (enum activation)act,
                                           .residual = m % 2 ? &r.t : NULL},
                                     .with_epilogue = true,
                                     .gated = gated};
            double *expected = expected_of(&lc);
            run_twice(*state, operation, &lc);
            assert_close(&y.t, expected, bound_of(F32), gated ? "geglu" : "epilogue");
            free(expected);
            sample_release(&x);
            sample_release(&w);
            sample_release(&b);
            sample_release(&r);
            sample_release(&y);
        }
    }
}

static void low_rank_terms(void **state)
{
    struct fixture *f = *state;
    for (int64_t m = 1; m < 30; m += 9) {
        const int64_t k = 44, n = 35, xs[] = {m, k}, ws[] = {n, k}, ys[] = {m, n};
        const int64_t ranks[] = {4, 9}, slots[] = {1, 0};
        struct sample x = sample_random(F32, PLAIN, 2, xs), w = sample_random(F32, PLAIN, 2, ws);
        struct sample y = sample_output(F32, PLAIN, 2, ys), c = sample_random(F32, PLAIN, 2, ys);
        struct sample down[2], up[2];
        attn_term terms[2] = {{.kind = ATTN_TERM_LOW_RANK}, {.kind = ATTN_TERM_LOW_RANK}};
        for (int i = 0; i < 2; ++i) {
            const int64_t ds[] = {ranks[i], k}, us[] = {n, ranks[i]};
            down[i] = sample_random(i ? F16 : F32, PLAIN, 2, ds);
            up[i] = sample_random(i ? F16 : F32, TURNED, 2, us);
            terms[i].down = down[i].t;
            terms[i].up = up[i].t;
            terms[i].slot = (uint32_t)slots[i];
            terms[i].factor = 0.25f;
        }
        const float scales[] = {0.5f, -1.25f};
        struct linear_case lc = {.linear = {.weight = w.t, .terms = terms, .n_terms = 2},
                                 .x = x.t,
                                 .y = y.t,
                                 .c = c.t,
                                 .alpha = 0.5f,
                                 .beta = 1.5f,
                                 .scales = scales,
                                 .n_scales = 2};
        double *expected = expected_of(&lc);
        run_twice(f, operation, &lc);
        assert_close(&y.t, expected, bound_of(F32), "terms");
        assert_true(pass_has_seen(f->pass, terms));
        pass_forget_terms(f->pass);
        assert_false(pass_has_seen(f->pass, terms));
        terms[1].kind = 7;
        expect_refusal(f, operation, &lc, ATTN_UNSUPPORTED, "term 1 is of kind 7");
        terms[1].kind = ATTN_TERM_LOW_RANK;
        terms[1].down.shape[1] = 3;
        expect_refusal(f, operation, &lc, ATTN_INVALID, "term 1 has down [9, 3] f16");
        free(expected);
        for (int i = 0; i < 2; ++i) {
            sample_release(&down[i]);
            sample_release(&up[i]);
        }
        sample_release(&x);
        sample_release(&w);
        sample_release(&y);
        sample_release(&c);
    }
}

static void wrong_shapes(void **state)
{
    const int64_t xs[] = {3, 8}, ws[] = {5, 7}, ys[] = {3, 5};
    struct sample x = sample_random(F32, PLAIN, 2, xs), w = sample_random(F32, PLAIN, 2, ws);
    struct sample y = sample_output(F32, PLAIN, 2, ys);
    struct linear_case lc = {.linear = {.weight = w.t}, .x = x.t, .y = y.t, .alpha = 1.0f};
    expect_refusal(*state, operation, &lc, ATTN_INVALID, "x [3, 8] f32, weight [5, 7] f32");
    lc.linear.weight.shape[1] = 8;
    lc.beta = 1.0f;
    expect_refusal(*state, operation, &lc, ATTN_INVALID, "c absent");
    lc.beta = 0.0f;
    lc.linear.weight.code = ATTN_CODE_INT;
    expect_refusal(*state, operation, &lc, ATTN_INVALID, "i32");
    sample_release(&x);
    sample_release(&w);
    sample_release(&y);
}

/* A weight that changes after it was unloaded is packed anew. */
static void packs_follow_their_weights(void **state)
{
    struct fixture *f = *state;
    const int64_t xs[] = {40, 16}, ws[] = {20, 16}, ys[] = {40, 20};
    struct sample x = sample_random(F32, PLAIN, 2, xs), w = sample_random(F32, PLAIN, 2, ws);
    struct sample y = sample_output(F32, PLAIN, 2, ys);
    struct linear_case lc = {.linear = {.weight = w.t}, .x = x.t, .y = y.t, .alpha = 1.0f};
    for (int i = 0; i < 3; ++i) {
        double *expected = expected_of(&lc);
        run_twice(f, operation, &lc);
        assert_close(&y.t, expected, bound_of(F32), "after a change");
        free(expected);
        attn_tensor gone = w.t;
        f->c->api->unload(f->c, &gone);
        assert_int_equal(gone.rank, 0);
        sample_scale(&w, -1.5);
    }
    sample_release(&x);
    sample_release(&w);
    sample_release(&y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_and_layouts),
        cmocka_unit_test(mixed_types),
        cmocka_unit_test(y_may_be_c),
        cmocka_unit_test(epilogues_and_geglu),
        cmocka_unit_test(low_rank_terms),
        cmocka_unit_test(wrong_shapes),
        cmocka_unit_test(packs_follow_their_weights),
    };
    return RUN_GROUP(tests);
}
