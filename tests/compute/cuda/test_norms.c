/* Group, layer and spatial norms. */
#include "device.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct group_case {
    int64_t batch, height, width, first, second; /* channels of x, of x2 */
    uint32_t groups;
    enum dtype in, out;
    enum layout layout;
    int act;
    int vectors; /* bits: weight, bias, add, scale, shift */
    double offset;
    int in_place;
};

static double vector(const struct sample *s, int64_t at, double absent)
{
    return s->memory ? element(&s->h, at) : absent;
}

struct operands {
    struct sample x[2], y, v[5]; /* memory NULL: absent */
};

static double input(const struct group_case *c, const struct operands *o, int64_t batch,
                    int64_t row, int64_t channel)
{
    const int64_t rows = c->height * c->width, at = batch * rows + row;
    double v = channel < c->first ? element(&o->x[0].h, at * c->first + channel)
                                  : element(&o->x[1].h, at * c->second + channel - c->first);
    return v + vector(&o->v[2], batch * (c->first + c->second) + channel, 0.0);
}

static void reference_group(const struct group_case *c, const struct operands *o, int64_t batch,
                            int64_t group, double *y)
{
    const int64_t rows = c->height * c->width, channels = c->first + c->second;
    const int64_t width = channels / c->groups, first = group * width;
    double sum = 0.0, squares = 0.0, n = (double)(rows * width);
    double *value = doubles(rows * width);
    for (int64_t i = 0; i < rows * width; ++i)
        sum += value[i] = input(c, o, batch, i / width, first + i % width);
    const double mean = sum / n;
    for (int64_t i = 0; i < rows * width; ++i)
        squares += (value[i] - mean) * (value[i] - mean);
    const double inverse = 1.0 / sqrt(squares / n + 1e-5);
    for (int64_t i = 0; i < rows * width; ++i) {
        const int64_t ch = first + i % width, bc = batch * channels + ch;
        double v =
            (value[i] - mean) * inverse * vector(&o->v[0], ch, 1.0) + vector(&o->v[1], ch, 0.0);
        v = v * (1.0 + vector(&o->v[3], bc, 0.0)) + vector(&o->v[4], bc, 0.0);
        y[(batch * rows + i / width) * channels + ch] = activation(c->act, v);
    }
    free(value);
}

static void operands_make(const struct group_case *c, struct operands *o)
{
    const int64_t channels = c->first + c->second;
    const int64_t x[] = {c->batch, c->height, c->width, c->first};
    const int64_t x2[] = {c->batch, c->height, c->width, c->second};
    const int64_t y[] = {c->batch, c->height, c->width, channels}, row[] = {channels};
    const int64_t rows[] = {c->batch, channels};
    *o = (struct operands){0};
    o->x[0] = sample_random(c->in, c->layout, 4, x, c->offset);
    if (c->second)
        o->x[1] = sample_random(c->in, c->layout, 4, x2, c->offset);
    if (!c->in_place)
        o->y = sample_output(c->out, c->layout, 4, y);
    for (int i = 0; i < 5; ++i) {
        const enum dtype type = i % 2 ? F32 : c->in;
        if (c->vectors >> i & 1)
            o->v[i] = i < 2 ? sample_random(type, PLAIN, 1, row, 0.0)
                            : sample_random(type, i == 3 ? SLICE : PLAIN, 2, rows, 0.0);
    }
}

static const attn_tensor *given(const struct sample *s)
{
    return s->memory ? &s->t : NULL;
}

static void group_check(const struct group_case *c, const char *what)
{
    struct operands o;
    char text[160];
    operands_make(c, &o);
    const struct kernel_norm n = {.groups = c->groups,
                                  .eps = 1e-5f,
                                  .act = c->act,
                                  .x = &o.x[0].t,
                                  .x2 = given(&o.x[1]),
                                  .weight = given(&o.v[0]),
                                  .bias = given(&o.v[1]),
                                  .add = given(&o.v[2]),
                                  .scale = given(&o.v[3]),
                                  .shift = given(&o.v[4]),
                                  .y = c->in_place ? &o.x[0].t : &o.y.t};
    const uint64_t bytes = attn_cuda_kernels.group_norm_scratch(&n);
    void *scratch = device_take((size_t)bytes);
    double *expected = doubles(c->batch * c->height * c->width * (c->first + c->second));
    for (int64_t b = 0; b < c->batch; ++b) {
        for (int64_t g = 0; g < c->groups; ++g)
            reference_group(c, &o, b, g, expected);
    }
    LAUNCH(group_norm, &n, scratch);
    snprintf(text, sizeof text, "group norm, %s: %lldx%lldx%lldx(%lld+%lld), layout %d", what,
             (long long)c->batch, (long long)c->height, (long long)c->width, (long long)c->first,
             (long long)c->second, (int)c->layout);
    expect_close(c->in_place ? &o.x[0] : &o.y, expected, 0.0, text);
    free(expected);
    device_free(scratch);
    for (int i = 0; i < 2; ++i) {
        if (o.x[i].memory)
            sample_release(&o.x[i]);
    }
    if (o.y.memory)
        sample_release(&o.y);
    for (int i = 0; i < 5; ++i) {
        if (o.v[i].memory)
            sample_release(&o.v[i]);
    }
}

/* Shapes of Stable Diffusion 1.5's UNet and others that cut oddly into slabs. */
static void group_norms_of_models(void **unused)
{
    static const int64_t shapes[][5] = {
        {2, 64, 64, 320, 0},   {2, 32, 32, 640, 320}, {1, 16, 16, 1280, 640}, {2, 8, 8, 1280, 1280},
        {1, 64, 64, 640, 320}, {2, 7, 9, 96, 0},      {3, 5, 31, 64, 32},     {1, 1, 1, 64, 0},
        {1, 160, 128, 320, 0}, {1, 131, 77, 128, 0},  {1, 96, 90, 256, 0},    {2, 40, 33, 32, 0}};
    (void)unused;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) {
        for (int v = 0; v < DTYPES; ++v) {
            const int64_t *s = shapes[i];
            struct group_case c = {.batch = s[0],
                                   .height = s[1],
                                   .width = s[2],
                                   .first = s[3],
                                   .second = s[4],
                                   .groups = 32,
                                   .in = (enum dtype)v,
                                   .out = (enum dtype)v,
                                   .act = (int)((i + (size_t)v) % 2),
                                   .vectors = 3 | (int)(i + (size_t)v) % 3 * 12};
            if ((i == 4 || i == 8) && v != F16) /* large ones once */
                continue;
            group_check(&c, "vectors");
        }
    }
}

static void group_norms_of_any_layout(void **unused)
{
    static const int64_t shapes[][6] = {{2, 7, 9, 48, 0, 8},  {2, 6, 5, 30, 0, 5},
                                        {1, 9, 4, 24, 40, 4}, {2, 3, 5, 7, 14, 3},
                                        {1, 4, 4, 6, 0, 6},   {2, 1, 9, 64, 0, 1}};
    (void)unused;
    for (int v = 0; v < 6 * LAYOUTS * DTYPES; ++v) {
        const int64_t *s = shapes[v % 6];
        struct group_case c = {.batch = s[0],
                               .height = s[1],
                               .width = s[2],
                               .first = s[3],
                               .second = s[4],
                               .groups = (uint32_t)s[5],
                               .in = (enum dtype)(v / 6 % DTYPES),
                               .out = (enum dtype)(v % 4 ? v / 6 % DTYPES : v % DTYPES),
                               .layout = (enum layout)(v / 18),
                               .act = v % 4,
                               .vectors = (v * 11) % 32};
        group_check(&c, "layouts");
    }
}

static void group_norms_far_from_zero_and_in_place(void **unused)
{
    (void)unused;
    for (int v = 0; v < 2 * DTYPES; ++v) {
        const bool streamed = v >= DTYPES;
        struct group_case c = {.batch = 2,
                               .height = streamed ? 150 : 24,
                               .width = streamed ? 160 : 24,
                               .first = 64,
                               .groups = 8,
                               .in = (enum dtype)(v % DTYPES),
                               .out = (enum dtype)(v % DTYPES),
                               .act = KERNEL_ACT_SILU,
                               .vectors = 31,
                               .offset = v % DTYPES == F32 ? 3.0 : 12.0,
                               .in_place = 1};
        group_check(&c, "far from zero, in place");
    }
}

/* -- layer ------------------------------------------------------------------------------------- */

static void layer_check(int v)
{
    static const int64_t lengths[] = {320, 640, 1280, 768, 77, 8, 2048, 4096, 1, 1024, 264, 96};
    const int64_t c = lengths[v % 12], shape[] = {2, 3, 7, c}, row[] = {c};
    const enum dtype type = (enum dtype)(v / 12 % DTYPES);
    const enum layout layout = (enum layout)(v / 36);
    const bool in_place = v % 7 == 3, weighted = v % 5 != 1, biased = v % 4 != 2;
    struct sample x = sample_random(type, layout, 4, shape, v % 2 ? 3.0 : 0.0);
    struct sample y =
        sample_output(v % 6 == 5 ? F32 : type, (enum layout)(v % 2 ? layout : PLAIN), 4, shape);
    struct sample weight = sample_random(type, v % 3 ? PLAIN : ODD, 1, row, 0.0);
    struct sample bias = sample_random(v % 2 ? F32 : type, PLAIN, 1, row, 0.0);
    const struct kernel_norm n = {.eps = 1e-5f,
                                  .act = v % 11 == 0 ? KERNEL_ACT_GELU : KERNEL_ACT_NONE,
                                  .x = &x.t,
                                  .weight = weighted ? &weight.t : NULL,
                                  .bias = biased ? &bias.t : NULL,
                                  .y = in_place ? &x.t : &y.t};
    double *expected = doubles(42 * c);
    for (int64_t r = 0; r < 42; ++r) {
        double sum = 0.0, squares = 0.0;
        for (int64_t i = 0; i < c; ++i)
            sum += element(&x.h, r * c + i);
        for (int64_t i = 0; i < c; ++i)
            squares += pow(element(&x.h, r * c + i) - sum / (double)c, 2.0);
        for (int64_t i = 0; i < c; ++i) {
            double e =
                (element(&x.h, r * c + i) - sum / (double)c) / sqrt(squares / (double)c + 1e-5);
            e = e * (weighted ? element(&weight.h, i) : 1.0) + (biased ? element(&bias.h, i) : 0.0);
            expected[r * c + i] = activation(n.act, e);
        }
    }
    LAUNCH(layer_norm, &n);
    expect_close(in_place ? &x : &y, expected, 0.0, "layer norm");
    free(expected);
    sample_release(&x);
    sample_release(&y);
    sample_release(&weight);
    sample_release(&bias);
}

static void layer_norms_match_double(void **unused)
{
    (void)unused;
    for (int v = 0; v < 12 * DTYPES * LAYOUTS; ++v)
        layer_check(v);
}

static int64_t nearest(int64_t at, int64_t in, int64_t out)
{
    int64_t i = (int64_t)((float)at * ((float)in / (float)out));
    return i < in ? i : in - 1;
}

static void spatial_modulation_matches_double(void **unused)
{
    (void)unused;
    for (int v = 0; v < DTYPES * LAYOUTS * 2; ++v) {
        const int64_t c = v % 2 ? 16 : 5, full[] = {2, 9, 14, c}, small[] = {2, 4, 5, c};
        const enum dtype type = (enum dtype)(v / 2 % DTYPES);
        const enum layout layout = (enum layout)(v / 6);
        struct sample n = sample_random(type, layout, 4, full, 0.0);
        struct sample by = sample_random(type, PLAIN, 4, small, 0.0);
        struct sample add = sample_random(type, layout, 4, small, 0.0);
        double *expected = doubles(2 * 9 * 14 * c);
        for (int64_t i = 0; i < 2 * 9 * 14 * c; ++i) {
            const int64_t pixel = i / c, b = pixel / (9 * 14);
            const int64_t z =
                (b * 4 + nearest(pixel / 14 % 9, 4, 9)) * 5 + nearest(pixel % 14, 5, 14);
            expected[i] =
                element(&n.h, i) * element(&by.h, z * c + i % c) + element(&add.h, z * c + i % c);
        }
        LAUNCH(spatial_modulate, &n.t, &by.t, &add.t, &n.t);
        expect_close(&n, expected, 0.0, "spatial modulation");
        free(expected);
        sample_release(&n);
        sample_release(&by);
        sample_release(&add);
    }
}

int norms_group(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(group_norms_of_models),
        cmocka_unit_test(group_norms_of_any_layout),
        cmocka_unit_test(group_norms_far_from_zero_and_in_place),
        cmocka_unit_test(layer_norms_match_double),
        cmocka_unit_test(spatial_modulation_matches_double),
    };
    return cmocka_run_group_tests_name("norms", tests, NULL, NULL);
}
