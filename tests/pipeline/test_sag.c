/* SAG's arithmetic against the formulas written out plainly in double. */
#include "golden.h"

#include "random.h"
#include "sag.h"

/* The blur as its definition has it: a 9 x 9 kernel over the plane with reflected borders. */
static double blur_plain(const float *in, int height, int width, int y, int x)
{
    double sum = 0;
    double weights = 0;
    for (int dy = -4; dy <= 4; dy++) {
        for (int dx = -4; dx <= 4; dx++) {
            double weight = exp(-0.5 * (dy * dy + dx * dx));
            int yy = abs(y + dy);
            int xx = abs(x + dx);
            yy = yy < height ? yy : 2 * (height - 1) - yy;
            xx = xx < width ? xx : 2 * (width - 1) - xx;
            sum += weight * in[yy * width + xx];
            weights += weight;
        }
    }
    return sum / weights;
}

static void test_blur(void **state)
{
    static const int sizes[][2] = {{5, 5}, {5, 9}, {16, 16}, {7, 33}, {22, 26}};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int height = sizes[i][0];
        int width = sizes[i][1];
        size_t cells = (size_t)height * (size_t)width;
        enum { PLANES = 3 };
        float *in = malloc(PLANES * cells * sizeof *in);
        float *out = malloc(PLANES * cells * sizeof *out);
        float *want = malloc(PLANES * cells * sizeof *want);
        float *scratch = malloc(cells * sizeof *scratch);
        random_generator generator;
        assert_true(in && out && want && scratch);
        random_seed(&generator, 7);
        random_normal(&generator, in, PLANES * cells);
        for (size_t k = 0; k < PLANES * cells; k++) {
            in[k] *= k % 100 ? 1.0f : 8.0f;
            out[k] = NAN;
            scratch[k % cells] = NAN;
        }
        for (size_t plane = 0; plane < PLANES; plane++) {
            for (int at = 0; at < height * width; at++) {
                want[plane * cells + (size_t)at] =
                    (float)blur_plain(in + plane * cells, height, width, at / width, at % width);
            }
        }
        sag_blur(in, out, scratch, PLANES, (size_t)height, (size_t)width);
        assert_true(relative_l2(out, want, PLANES * cells) < 1e-6);
        free(in);
        free(out);
        free(want);
        free(scratch);
    }
}

static void test_mask(void **state)
{
    const float mass[6] = {0.5f, 1.0f, 1.0f + 0x1p-23f, 0.99995f, 2.0f, NAN};
    const uint8_t want[6] = {0, 0, 1, 0, 1, 0};
    uint8_t mask[6];
    (void)state;
    assert_int_equal(sag_mask(mass, mask, 6), 3);
    assert_memory_equal(mask, want, 6);
}

/* torch.nn.functional.interpolate's own answers for these sizes. */
static void test_nearest(void **state)
{
    static const size_t to_22[22] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                     3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5};
    (void)state;
    for (size_t i = 0; i < 22; i++) {
        assert_int_equal(sag_nearest(i, 6, 22), to_22[i]);
        assert_int_equal(sag_nearest(i, 22, 22), i);
        assert_int_equal(sag_nearest(i, 11, 22), i / 2);
    }
}

static void test_blend(void **state)
{
    const float x0[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    float blurred[8] = {-1, -2, -3, -4, -5, -6, -7, -8};
    const uint8_t mask[2] = {1, 0};
    const float want[8] = {-1, -2, 3, 4, -5, -6, 7, 8};
    float out[8];
    (void)state;
    sag_blend(x0, blurred, mask, out, 2, 1, 4, 1, 2);
    assert_memory_equal(out, want, sizeof want);
    sag_blend(x0, blurred, mask, blurred, 2, 1, 4, 1, 2);
    assert_memory_equal(blurred, want, sizeof want);
}

static void test_combine(void **state)
{
    const float uncond[2] = {1, 2};
    const float cond[2] = {2, 0};
    const float degraded[2] = {0.5f, 4};
    float out[2];
    (void)state;
    guidance_combine(uncond, cond, 7.5f, out, 2);
    assert_float_equal(out[0], 8.5, 1e-6);
    assert_float_equal(out[1], -13, 1e-6);
    sag_combine(uncond, degraded, 0.5f, out, 2);
    assert_float_equal(out[0], 8.75, 1e-6);
    assert_float_equal(out[1], -14, 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blur),    cmocka_unit_test(test_mask),
        cmocka_unit_test(test_nearest), cmocka_unit_test(test_blend),
        cmocka_unit_test(test_combine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
