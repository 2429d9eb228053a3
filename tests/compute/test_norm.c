#include "check.h"

#include <math.h>
#include <stdlib.h>

struct norm_args {
    attn_norm norm;
    enum activation act;
    attn_tensor x, x2, add, scale, shift, zq, y;
    bool plugin; /* through attn_compute.norm */
};

static void operation(attn_work *w, void *arg)
{
    const struct norm_args *n = arg;
    struct compute *c = work_compute(w);
    if (n->plugin)
        c->plugin.norm(w, &n->norm, &n->x, &n->zq, &n->y);
    else
        c->api->norm(w, &n->norm, n->act, &n->x, &n->x2, &n->add, &n->scale, &n->shift, &n->y);
}

/* x with x2 and add: element (batch, row, channel) of [batch, rows, channels]. */
static double value_at(const struct norm_args *n, int64_t batch, int64_t row, int64_t rows,
                       int64_t channel)
{
    int64_t channels = tensor_last(&n->y), width = tensor_last(&n->x);
    double v = channel < width
                   ? element(&n->x, (batch * rows + row) * width + channel)
                   : element(&n->x2, (batch * rows + row) * (channels - width) + channel - width);
    return v + (n->add.rank ? element(&n->add, batch * channels + channel) : 0.0);
}

static double finish(const struct norm_args *n, double v, int64_t batch, int64_t channel)
{
    int64_t at = batch * tensor_last(&n->y) + channel;
    v = v * (n->norm.weight.rank ? element(&n->norm.weight, channel) : 1.0) +
        (n->norm.bias.rank ? element(&n->norm.bias, channel) : 0.0);
    v = v * (1.0 + (n->scale.rank ? element(&n->scale, at) : 0.0)) +
        (n->shift.rank ? element(&n->shift, at) : 0.0);
    return n->act == ACT_SILU ? v / (1.0 + exp(-v)) : v;
}

/* One group of one batch: rows [first, end), channels [from, to). */
static void group_expected(const struct norm_args *n, int64_t batch, int64_t rows, int64_t first,
                           int64_t end, int64_t from, int64_t to, double *out)
{
    double mean = 0.0, variance = 0.0, count = (double)((end - first) * (to - from));
    for (int64_t r = first; r < end; ++r) {
        for (int64_t c = from; c < to; ++c)
            mean += value_at(n, batch, r, rows, c) / count;
    }
    for (int64_t r = first; r < end; ++r) {
        for (int64_t c = from; c < to; ++c)
            variance += pow(value_at(n, batch, r, rows, c) - mean, 2) / count;
    }
    for (int64_t r = first; r < end; ++r) {
        for (int64_t c = from; c < to; ++c) {
            double v =
                (value_at(n, batch, r, rows, c) - mean) / sqrt(variance + (double)n->norm.eps);
            out[(batch * rows + r) * tensor_last(&n->y) + c] = finish(n, v, batch, c);
        }
    }
}

static double *expected_of(const struct norm_args *n)
{
    int64_t channels = tensor_last(&n->y), batches = n->y.shape[0];
    int64_t rows = channels && batches ? tensor_count(&n->y) / channels / batches : 0;
    double *out = malloc((size_t)tensor_count(&n->y) * sizeof *out);
    assert_non_null(out);
    for (int64_t batch = 0; batch < batches; ++batch) {
        if (n->norm.kind == ATTN_NORM_LAYER) {
            for (int64_t r = 0; r < rows; ++r)
                group_expected(n, batch, rows, r, r + 1, 0, channels, out);
            continue;
        }
        int64_t width = channels / n->norm.groups;
        for (int64_t g = 0; g < n->norm.groups; ++g)
            group_expected(n, batch, rows, 0, rows, g * width, (g + 1) * width, out);
    }
    return out;
}

static void group_norms(void **state)
{
    for (int variant = 0; variant < 24; ++variant) {
        bool two = variant & 1, modulated = variant & 2, picture = variant & 4;
        enum layout layout = (enum layout)(variant / 8);
        const int64_t c1 = two ? 22 : 30, c2 = 8, b = 2, channels = 30;
        const int64_t xs[] = {b, picture ? 9 : 97, picture ? 11 : c1, c1};
        const int64_t x2s[] = {b, xs[1], picture ? 11 : c2, c2};
        const int64_t ys[] = {b, xs[1], picture ? 11 : channels, channels};
        const int64_t vs[] = {channels}, bs[] = {b, channels};
        uint32_t rank = picture ? 4 : 3;
        struct sample x = sample_random(F32, layout, rank, xs);
        struct sample x2 = sample_random(F32, SLICE, rank, x2s);
        struct sample y = sample_output(F32, layout, rank, ys);
        struct sample weight = sample_random(F16, PLAIN, 1, vs),
                      bias = sample_random(F32, PLAIN, 1, vs);
        struct sample add = sample_random(F32, SLICE, 2, bs),
                      scale = sample_random(F32, SLICE, 2, bs);
        struct sample shift = sample_random(F32, SLICE, 2, bs);
        struct norm_args n = {.norm = {.kind = ATTN_NORM_GROUP, .groups = 6, .eps = 1e-5f},
                              .act = two ? ACT_SILU : ACT_NONE,
                              .x = x.t,
                              .y = y.t};
        if (two)
            n.x2 = x2.t;
        if (modulated) {
            n.add = add.t;
            n.scale = scale.t;
            n.shift = shift.t;
        }
        if (two != modulated) {
            n.norm.weight = weight.t;
            n.norm.bias = bias.t;
        }
        double *expected = expected_of(&n);
        run_twice(*state, operation, &n);
        assert_close(&y.t, expected, bound_of(F32), "group norm");
        free(expected);
        struct sample *all[] = {&x, &x2, &y, &weight, &bias, &add, &scale, &shift};
        for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
            sample_release(all[i]);
    }
}

/* A mean of a thousand deviations: sums of squares in fp32 would lose every digit. */
static void far_from_zero(void **state)
{
    const int64_t s[] = {1, 4000, 8};
    struct sample x = sample_random(F32, PLAIN, 3, s), y = sample_output(F32, PLAIN, 3, s);
    for (int64_t i = 0; i < tensor_count(&x.t); ++i)
        element_set(&x.t, i, 1000.0 + element(&x.t, i));
    struct norm_args n = {
        .norm = {.kind = ATTN_NORM_GROUP, .groups = 2, .eps = 1e-6f}, .x = x.t, .y = y.t};
    double *expected = expected_of(&n);
    run_twice(*state, operation, &n);
    /* One rounding of x * factor, 1000 times the result, is what fp32 leaves. */
    assert_close(&y.t, expected, 1e-4, "group norm far from zero");
    free(expected);
    sample_release(&x);
    sample_release(&y);
}

static void layer_norms(void **state)
{
    for (int layout = 0; layout < LAYOUTS; ++layout) {
        for (int64_t channels = 1; channels < 400; channels += 77) {
            const int64_t s[] = {2, 13, channels}, vs[] = {channels};
            struct sample x = sample_random(F32, (enum layout)layout, 3, s);
            struct sample y = sample_output(F32, (enum layout)layout, 3, s);
            struct sample weight = sample_random(F32, PLAIN, 1, vs);
            struct sample bias = sample_random(BF16, PLAIN, 1, vs);
            struct norm_args n = {.norm = {.kind = ATTN_NORM_LAYER, .eps = 1e-5f},
                                  .x = x.t,
                                  .y = y.t,
                                  .plugin = layout == SLICE};
            if (layout != TURNED)
                n.norm.weight = weight.t;
            if (layout != BACKWARD)
                n.norm.bias = bias.t;
            double *expected = expected_of(&n);
            run_twice(*state, operation, &n);
            assert_close(&y.t, expected, bound_of(F32), "layer norm");
            free(expected);
            sample_release(&x);
            sample_release(&y);
            sample_release(&weight);
            sample_release(&bias);
        }
    }
}

static double projected(const attn_linear *l, const attn_tensor *zq, int64_t batch, int64_t channel,
                        int64_t at)
{
    int64_t cells = zq->shape[2] * zq->shape[3];
    double sum = element(&l->bias, channel);
    for (int64_t k = 0; k < zq->shape[1]; ++k)
        sum += element(&l->weight, channel * zq->shape[1] + k) *
               element(zq, (batch * zq->shape[1] + k) * cells + at);
    return sum;
}

static void spatial_norm(void **state)
{
    const int64_t B = 2, C = 12, H = 6, W = 8, Z = 5, h = 3, w = 4;
    const int64_t xs[] = {B, C, H, W}, zs[] = {B, Z, h, w}, cs[] = {C, Z}, vs[] = {C};
    struct sample x = sample_random(F32, PLAIN, 4, xs), y = sample_output(F32, SLICE, 4, xs);
    struct sample zq = sample_random(F32, PLAIN, 4, zs);
    struct sample wy = sample_random(F32, PLAIN, 2, cs), wb = sample_random(F32, PLAIN, 2, cs);
    struct sample by = sample_random(F32, PLAIN, 1, vs), bb = sample_random(F32, PLAIN, 1, vs);
    struct norm_args n = {.norm = {.kind = ATTN_NORM_SPATIAL,
                                   .groups = 3,
                                   .eps = 1e-6f,
                                   .conv_y = {.weight = wy.t, .bias = by.t},
                                   .conv_b = {.weight = wb.t, .bias = bb.t}},
                          .x = x.t,
                          .zq = zq.t,
                          .y = y.t,
                          .plugin = true};
    double expected[2 * 12 * 6 * 8];
    for (int64_t b = 0; b < B; ++b) {
        for (int64_t g = 0; g < 3; ++g) {
            int64_t first = (b * C + g * 4) * H * W, count = 4 * H * W;
            double mean = 0.0, variance = 0.0;
            for (int64_t i = first; i < first + count; ++i)
                mean += element(&x.t, i) / (double)count;
            for (int64_t i = first; i < first + count; ++i)
                variance += pow(element(&x.t, i) - mean, 2) / (double)count;
            for (int64_t i = first; i < first + count; ++i) {
                int64_t c = i / (H * W) % C, at = i / W % H / 2 * w + i % W / 2;
                expected[i] = (element(&x.t, i) - mean) / sqrt(variance + 1e-6) *
                                  projected(&n.norm.conv_y, &zq.t, b, c, at) +
                              projected(&n.norm.conv_b, &zq.t, b, c, at);
            }
        }
    }
    run_twice(*state, operation, &n);
    assert_close(&y.t, expected, bound_of(F32), "spatial norm");
    n.zq = (attn_tensor){0};
    expect_refusal(*state, operation, &n, ATTN_INVALID, "zq absent");
    struct sample *all[] = {&x, &y, &zq, &wy, &wb, &by, &bb};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        sample_release(all[i]);
}

static void refusals(void **state)
{
    const int64_t s[] = {1, 4, 10}, vs[] = {9};
    struct sample x = sample_random(F32, PLAIN, 3, s), y = sample_output(F32, PLAIN, 3, s);
    struct sample v = sample_random(F32, PLAIN, 1, vs);
    struct norm_args n = {.norm = {.kind = ATTN_NORM_GROUP, .groups = 3}, .x = x.t, .y = y.t};
    expect_refusal(*state, operation, &n, ATTN_INVALID, "10 channels in 3 groups");
    n.norm.groups = 2;
    n.norm.weight = v.t;
    expect_refusal(*state, operation, &n, ATTN_INVALID, "weight [9] f32");
    n.norm.kind = 9;
    expect_refusal(*state, operation, &n, ATTN_UNSUPPORTED, "kind 9");
    sample_release(&x);
    sample_release(&y);
    sample_release(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(group_norms), cmocka_unit_test(far_from_zero),
        cmocka_unit_test(layer_norms), cmocka_unit_test(spatial_norm),
        cmocka_unit_test(refusals),
    };
    return RUN_GROUP(tests);
}
