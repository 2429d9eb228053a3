/* Enlargement, embeddings, timesteps and self-attention guidance's blur. */
#include "device.h"

#include <math.h>
#include <stdlib.h>

static int64_t nearest(int64_t at, int64_t in, int64_t out)
{
    int64_t i = (int64_t)((float)at * ((float)in / (float)out));
    return i < in ? i : in - 1;
}

static void enlargements_take_the_nearest(void **unused)
{
    static const int64_t sizes[][5] = {
        {8, 8, 16, 16, 320}, {3, 5, 7, 13, 12}, {5, 4, 5, 9, 3}, {1, 1, 3, 2, 8}};
    (void)unused;
    for (int v = 0; v < 4 * DTYPES * LAYOUTS; ++v) {
        const int64_t *s = sizes[v % 4], in[] = {2, s[0], s[1], s[4]},
                      out[] = {2, s[2], s[3], s[4]};
        const enum dtype type = (enum dtype)(v / 4 % DTYPES);
        struct sample x = sample_random(type, (enum layout)(v / 12), 4, in, 0.0);
        struct sample y = sample_output(type, (enum layout)(v % LAYOUTS), 4, out);
        int64_t n = count_of(&y.h);
        double *expected = doubles(n);
        for (int64_t i = 0; i < n; ++i) {
            const int64_t pixel = i / s[4], b = pixel / (s[2] * s[3]);
            const int64_t fy = nearest(pixel / s[3] % s[2], s[0], s[2]);
            const int64_t fx = nearest(pixel % s[3], s[1], s[3]);
            expected[i] = element(&x.h, ((b * s[0] + fy) * s[1] + fx) * s[4] + i % s[4]);
        }
        LAUNCH(upsample, &x.t, &y.t);
        expect_close(&y, expected, 1e-30, "upsample");
        free(expected);
        sample_release(&x);
        sample_release(&y);
    }
}

static void embed_case(enum dtype type, enum layout layout, int64_t width, bool placed, bool wrong)
{
    const int64_t ids[] = {2, 77}, table[] = {100, width}, positions[] = {80, width};
    const int64_t out[] = {2, 77, width};
    struct sample i = sample_random(I32, PLAIN, 2, ids, 0.0);
    struct sample t = sample_random(type, layout, 2, table, 0.0);
    struct sample p = sample_random(type, PLAIN, 2, positions, 0.0);
    struct sample y = sample_output(type, layout, 3, out);
    double *expected = doubles(154 * width);
    for (int64_t k = 0; k < 154; ++k)
        element_set(&i.h, k, wrong && k == 5 ? 100 : (double)(int)(uniform() * 100.0));
    sample_upload(&i);
    for (int64_t k = 0; k < 154 * width; ++k) {
        const int64_t id = (int64_t)element(&i.h, k / width);
        expected[k] = id > 99 ? NAN : element(&t.h, id * width + k % width);
        expected[k] += placed ? element(&p.h, k / width % 77 * width + k % width) : 0.0;
    }
    LAUNCH(embed, &i.t, &t.t, placed ? &p.t : NULL, &y.t);
    if (wrong) {
        sample_fetch(&y);
        for (int64_t k = 0; k < 154 * width; ++k)
            assert_int_equal(isnan(element(&y.h, k)), isnan(expected[k]));
    } else {
        expect_close(&y, expected, 0.0, "embed");
    }
    free(expected);
    sample_release(&i);
    sample_release(&t);
    sample_release(&p);
    sample_release(&y);
}

static void embeddings_add_positions(void **unused)
{
    (void)unused;
    for (int v = 0; v < DTYPES * LAYOUTS; ++v)
        embed_case((enum dtype)(v % DTYPES), (enum layout)(v / DTYPES), v % 2 ? 64 : 37, v % 4 != 3,
                   false);
    embed_case(F16, PLAIN, 64, true, true);
    embed_case(F32, ODD, 5, false, true);
}

static void timesteps_match_fp32_rounding(void **unused)
{
    static const double times[] = {999.0, 0.0, 1.0, 481.0, 961.25};
    (void)unused;
    for (int v = 0; v < 2 * DTYPES * 2; ++v) {
        const int64_t dim = v % 2 ? 320 : 33, b[] = {5}, out[] = {5, dim}, half = dim / 2;
        const int flip = v / 2 % 2;
        const float shift = (float)(v / 4 % 2);
        struct sample t = sample_random(F32, PLAIN, 1, b, 0.0);
        struct sample y = sample_output((enum dtype)(v / 4), v % 3 ? PLAIN : TURNED, 2, out);
        double *expected = doubles(5 * dim);
        for (int64_t i = 0; i < 5; ++i) {
            element_set(&t.h, i, times[i]);
            for (int64_t k = 0; k < half; ++k) {
                float exponent = -9.210340371976184f * (float)k / ((float)half - shift);
                float angle = (float)times[i] * (float)exp((double)exponent);
                expected[i * dim + (flip ? half + k : k)] = sin((double)angle);
                expected[i * dim + (flip ? k : half + k)] = cos((double)angle);
            }
        }
        sample_upload(&t);
        LAUNCH(timestep, &t.t, flip, shift, &y.t);
        expect_close(&y, expected, 0.0, "timestep");
        free(expected);
        sample_release(&t);
        sample_release(&y);
    }
}

static int64_t reflected(int64_t at, int64_t size)
{
    at = at < 0 ? -at : at;
    return at < size ? at : 2 * (size - 1) - at;
}

static double blurred(const attn_tensor *x, int64_t b, int64_t y, int64_t column, int64_t c)
{
    double sum = 0.0, all = 0.0;
    for (int64_t dy = -4; dy <= 4; ++dy) {
        for (int64_t dx = -4; dx <= 4; ++dx) {
            const double weight = exp(-0.5 * (double)(dy * dy + dx * dx));
            const int64_t line = b * x->shape[1] + reflected(y + dy, x->shape[1]);
            const int64_t at = line * x->shape[2] + reflected(column + dx, x->shape[2]);
            sum += weight * element(x, at * x->shape[3] + c);
            all += weight;
        }
    }
    return sum / all;
}

static void sag_case(const int64_t *shape, int64_t mh, int64_t mw, enum layout layout, bool bytes)
{
    const int64_t cells[] = {shape[0], mh * mw};
    struct sample x = sample_random(F32, layout, 4, shape, 0.0);
    struct sample y = sample_output(F32, (enum layout)((layout + 1) % LAYOUTS), 4, shape);
    struct sample mass = sample_random(F32, SLICE, 2, cells, 1.0);
    struct sample mask = sample_random(U8, PLAIN, 2, cells, 0.0);
    int64_t n = count_of(&y.h);
    double *expected = doubles(n);
    element_set(&mass.h, 0, 1.0); /* not above the threshold */
    for (int64_t i = 0; i < shape[0] * mh * mw; ++i)
        element_set(&mask.h, i, i % 3 == 0 ? 2.0 : 0.0);
    sample_upload(&mass);
    sample_upload(&mask);
    for (int64_t i = 0; i < n; ++i) {
        const int64_t c = i % shape[3], pixel = i / shape[3], b = pixel / (shape[1] * shape[2]);
        const int64_t line = pixel / shape[2] % shape[1], column = pixel % shape[2];
        const int64_t cell =
            (b * mh + nearest(line, mh, shape[1])) * mw + nearest(column, mw, shape[2]);
        bool set = bytes ? element(&mask.h, cell) != 0.0 : element(&mass.h, cell) > 1.0;
        expected[i] = set ? blurred(&x.h, b, line, column, c) : element(&x.h, i);
    }
    LAUNCH(sag_degrade, &mass.t, mh, mw, bytes ? &mask.t : NULL, &x.t, &y.t);
    expect_close(&y, expected, 0.0, "sag_degrade");
    free(expected);
    sample_release(&x);
    sample_release(&y);
    sample_release(&mass);
    sample_release(&mask);
}

static void degraded_pictures_match_double(void **unused)
{
    static const int64_t shapes[][4] = {
        {2, 64, 64, 4}, {1, 5, 7, 4}, {1, 33, 18, 3}, {2, 16, 31, 9}};
    (void)unused;
    for (int v = 0; v < 4 * LAYOUTS; ++v) {
        const int64_t *s = shapes[v % 4];
        sag_case(s, s[1] / 3, s[2] / 4, (enum layout)(v / 4), v % 5 == 2);
    }
}

int sources_group(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enlargements_take_the_nearest),
        cmocka_unit_test(embeddings_add_positions),
        cmocka_unit_test(timesteps_match_fp32_rounding),
        cmocka_unit_test(degraded_pictures_match_double),
    };
    return cmocka_run_group_tests_name("sources", tests, NULL, NULL);
}
