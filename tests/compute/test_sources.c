#include "check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct call {
    enum { UPSAMPLE, EMBED, TIMESTEP, DEGRADE } what;
    attn_tensor x, table, positions, y, key_mass, mask_in;
    int64_t mh, mw;
    int32_t flip;
    float shift;
};

static void operation(attn_work *w, void *arg)
{
    const struct call *c = arg;
    const struct compute_api *api = work_compute(w)->api;
    if (c->what == UPSAMPLE)
        api->upsample(w, &c->x, &c->y);
    else if (c->what == EMBED)
        api->embed(w, &c->x, &c->table, &c->positions, &c->y);
    else if (c->what == TIMESTEP)
        api->timestep(w, &c->x, c->flip, c->shift, &c->y);
    else
        api->sag_degrade(w, &c->key_mass, c->mh, c->mw, &c->mask_in, &c->x, &c->y);
}

static void upsamples(void **state)
{
    static const int64_t sizes[][4] = {{3, 5, 6, 10}, {4, 4, 7, 9}, {1, 1, 3, 2}, {6, 6, 3, 6}};
    for (int i = 0; i < 16; ++i) {
        const int64_t *z = sizes[i / 4], xs[] = {2, z[0], z[1], 3}, ys[] = {2, z[2], z[3], 3};
        struct sample x = sample_random(i % 4 ? F32 : F16, (enum layout)(i % 4), 4, xs);
        struct sample y = sample_output(F32, (enum layout)(i % 4), 4, ys);
        struct call c = {.what = UPSAMPLE, .x = x.t, .y = y.t};
        double *expected = malloc((size_t)tensor_count(&y.t) * sizeof *expected);
        assert_non_null(expected);
        for (int64_t j = 0; j < tensor_count(&y.t); ++j) {
            int64_t ch = j % 3, ox = j / 3 % z[3], oy = j / 3 / z[3] % z[2],
                    b = j / 3 / z[3] / z[2];
            expected[j] =
                element(&x.t, ((b * z[0] + oy * z[0] / z[2]) * z[1] + ox * z[1] / z[3]) * 3 + ch);
        }
        run_twice(*state, operation, &c);
        assert_close(&y.t, expected, 0.0, "upsample");
        free(expected);
        sample_release(&x);
        sample_release(&y);
    }
}

static void embeddings(void **state)
{
    struct fixture *f = *state;
    const int64_t is[] = {2, 5}, ts[] = {11, 30}, ps[] = {7, 30}, ys[] = {2, 5, 30};
    struct sample ids = sample_output(I32, PLAIN, 2, is), table = sample_random(F16, PLAIN, 2, ts);
    struct sample positions = sample_random(F32, SLICE, 2, ps),
                  y = sample_output(F32, SLICE, 3, ys);
    for (int64_t i = 0; i < 10; ++i)
        element_set(&ids.t, i, (double)(i * 7 % 11));
    struct call c = {
        .what = EMBED, .x = ids.t, .table = table.t, .positions = positions.t, .y = y.t};
    double expected[300];
    for (int64_t i = 0; i < 300; ++i)
        expected[i] = element(&table.t, i / 30 * 7 % 11 * 30 + i % 30) +
                      element(&positions.t, i / 30 % 5 * 30 + i % 30);
    run_twice(f, operation, &c);
    assert_close(&y.t, expected, 1e-7, "embed");
    element_set(&ids.t, 3, 11.0);
    ATTN_ERROR_ON(err, 256);
    operation(pass_dry(f->pass, &err), &c);
    attn_work *w = pass_real(f->pass, NULL, &err);
    operation(w, &c);
    assert_int_equal(w->status, ATTN_INVALID);
    assert_string_equal(err.text, "embed: id 11: expected 0 to 10");
    c.table.shape[1] = 29;
    expect_refusal(f, operation, &c, ATTN_INVALID, "table [11, 29] f16");
    sample_release(&ids);
    sample_release(&table);
    sample_release(&positions);
    sample_release(&y);
}

static void timesteps(void **state)
{
    const int64_t ts[] = {3};
    for (int64_t dim = 6; dim <= 61; dim += 11) {
        const int64_t ys[] = {3, dim};
        struct sample t = sample_output(F32, PLAIN, 1, ts), y = sample_output(F32, PLAIN, 2, ys);
        const double steps[] = {0.0, 1.0, 981.0};
        for (int i = 0; i < 3; ++i)
            element_set(&t.t, i, steps[i]);
        struct call c = {.what = TIMESTEP,
                         .x = t.t,
                         .y = y.t,
                         .flip = dim % 2 == 0,
                         .shift = dim > 20 ? 1.0f : 0.0f};
        run_twice(*state, operation, &c);
        int64_t half = dim / 2;
        double expected[3 * 61];
        for (int64_t i = 0; i < 3 * dim; ++i) {
            int64_t at = i % dim, k = at % half;
            double angle =
                steps[i / dim] * exp(-log(10000.0) * (double)k / ((double)half - (double)c.shift));
            bool cosine = (at >= half) != (c.flip != 0);
            expected[i] = at == 2 * half ? 0.0 : cosine ? cos(angle) : sin(angle);
        }
        /* fp32 frequencies turn an angle of 981 by up to 1e-4. */
        assert_close(&y.t, expected, 5e-5, "timestep");
        sample_release(&t);
        sample_release(&y);
    }
}

static int64_t reflected(int64_t at, int64_t size)
{
    return at < 0 ? -at : at >= size ? 2 * size - 2 - at : at;
}

static double blurred(const attn_tensor *x, int64_t b, int64_t y, int64_t px, int64_t c)
{
    int64_t h = x->shape[1], w = x->shape[2];
    double sum = 0.0, weights = 0.0;
    for (int64_t dy = -4; dy <= 4; ++dy) {
        for (int64_t dx = -4; dx <= 4; ++dx) {
            double g = exp(-0.5 * (double)(dy * dy + dx * dx));
            sum += g * element(x, ((b * h + reflected(y + dy, h)) * w + reflected(px + dx, w)) *
                                          x->shape[3] +
                                      c);
            weights += g;
        }
    }
    return sum / weights;
}

static void degrades(void **state)
{
    for (int bytes = 0; bytes < 2; ++bytes) {
        const int64_t xs[] = {2, 5, 12, 4}, ms[] = {2, 3 * 4};
        struct sample x = sample_random(F32, SLICE, 4, xs), y = sample_output(F32, SLICE, 4, xs);
        struct sample mass = sample_random(F32, SLICE, 2, ms),
                      mask = sample_output(U8, PLAIN, 2, ms);
        for (int64_t i = 0; i < 24; ++i) {
            element_set(&mass.t, i, i % 3 == 0 ? 1.0 : i % 3 == 1 ? 1.0000001 : 0.3);
            element_set(&mask.t, i, (double)(i % 2 * 7));
        }
        struct call c = {.what = DEGRADE, .x = x.t, .y = y.t, .key_mass = mass.t, .mh = 3, .mw = 4};
        if (bytes)
            c.mask_in = mask.t;
        double expected[2 * 5 * 12 * 4];
        for (int64_t i = 0; i < 480; ++i) {
            int64_t ch = i % 4, px = i / 4 % 12, py = i / 48 % 5, b = i / 240;
            int64_t cell = b * 12 + py * 3 / 5 * 4 + px * 4 / 12;
            bool set = bytes ? cell % 2 == 1 : cell % 3 == 1;
            expected[i] = set ? blurred(&x.t, b, py, px, ch) : element(&x.t, i);
        }
        run_twice(*state, operation, &c);
        assert_close(&y.t, expected, bound_of(F32), "degrade");
        c.x.shape[1] = c.y.shape[1] = 4;
        expect_refusal(*state, operation, &c, ATTN_INVALID, "latents of 4 x 12");
        sample_release(&x);
        sample_release(&y);
        sample_release(&mass);
        sample_release(&mask);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(upsamples),
        cmocka_unit_test(embeddings),
        cmocka_unit_test(timesteps),
        cmocka_unit_test(degrades),
    };
    return RUN_GROUP(tests);
}
