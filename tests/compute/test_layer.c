/* Attention through real plugins: attend in a pass, layers through attn_layer.h. argv[1]: their
 * folder. */
#include "attn_layer.h"
#include "check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *plugins;

struct world {
    attn_registry *registry;
    attn_computer *computer;
    struct compute *compute;
    struct pass *pass;
};

static int world_open(void **state)
{
    ATTN_ERROR_ON(err, 512);
    struct world *w = calloc(1, sizeof *w);
    attn_registry_options options = {
        .size = sizeof options, .flags = ATTN_REGISTRY_ONLY_PATHS, .paths = &plugins, .n_paths = 1};
    const attn_device device = {.type = ATTN_DEVICE_CPU, .runtime = "cpu"};
    if (!w || attn_registry_open(&options, &w->registry, &err) != ATTN_OK ||
        attn_computer_open(w->registry, &device, 0, &w->computer, &err) != ATTN_OK ||
        compute_cpu_create(w->registry, 2, &w->compute, &err) != ATTN_OK ||
        pass_create(w->compute, &w->pass, &err) != ATTN_OK) {
        print_error("%s\n", err.text);
        return -1;
    }
    *state = w;
    return 0;
}

static int world_close(void **state)
{
    struct world *w = *state;
    pass_destroy(w->pass);
    w->compute->api->destroy(w->compute);
    attn_computer_close(w->computer);
    attn_registry_close(w->registry);
    free(w);
    return 0;
}

/* -- double-precision reference ---------------------------------------------------------------- */

/* q [N, heads, D], k, v [M, heads, D]; out [N, heads, D]; key_mass [M] may be NULL. */
static void attention(int64_t n, int64_t m, int64_t heads, int64_t d, const double *q,
                      const double *k, const double *v, bool causal, double *out, double *key_mass)
{
    double p[64];
    assert_true(m <= 64);
    for (int64_t j = 0; key_mass && j < m; ++j)
        key_mass[j] = 0.0;
    for (int64_t i = 0; i < n; ++i) {
        for (int64_t h = 0; h < heads; ++h) {
            int64_t seen = causal && i + 1 < m ? i + 1 : m;
            double sum = 0.0;
            for (int64_t j = 0; j < seen; ++j) {
                double s = 0.0;
                for (int64_t c = 0; c < d; ++c)
                    s += q[(i * heads + h) * d + c] * k[(j * heads + h) * d + c];
                p[j] = exp(s / sqrt((double)d));
                sum += p[j];
            }
            for (int64_t c = 0; c < d; ++c) {
                double o = 0.0;
                for (int64_t j = 0; j < seen; ++j)
                    o += p[j] / sum * v[(j * heads + h) * d + c];
                out[(i * heads + h) * d + c] = o;
            }
            for (int64_t j = 0; key_mass && j < seen; ++j)
                key_mass[j] += p[j] / sum / (double)heads;
        }
    }
}

static double *doubles(int64_t n)
{
    double *p = malloc((size_t)n * sizeof *p);
    assert_non_null(p);
    return p;
}

/* y [rows, out] = x [rows, in] W' + bias + terms */
static double *linear(const double *x, int64_t rows, const attn_linear *l, const float *scales)
{
    int64_t out = l->weight.shape[0], in = l->weight.shape[1];
    double *y = doubles(rows * out);
    for (int64_t i = 0; i < rows * out; ++i) {
        const double *row = x + i / out * in;
        y[i] = l->bias.rank ? element(&l->bias, i % out) : 0.0;
        for (int64_t k = 0; k < in; ++k)
            y[i] += row[k] * element(&l->weight, i % out * in + k);
        for (uint32_t t = 0; t < l->n_terms; ++t) {
            const attn_term *term = &l->terms[t];
            for (int64_t r = 0; r < term->down.shape[0]; ++r) {
                double down = 0.0;
                for (int64_t k = 0; k < in; ++k)
                    down += row[k] * element(&term->down, r * in + k);
                y[i] += term->factor * scales[term->slot] * down *
                        element(&term->up, i % out * term->down.shape[0] + r);
            }
        }
    }
    return y;
}

/* -- attend ------------------------------------------------------------------------------------ */

struct attend_arg {
    attn_op_call call;
    struct op_choice choice;
    const char *taken;
};

static void attend(attn_work *w, void *arg)
{
    struct attend_arg *a = arg;
    work_attend_by(w, &a->choice, &a->call, &a->taken);
}

/* [N, H, D] memory seen as [1, H, N, D]. */
static attn_tensor heads_view(const attn_tensor *t)
{
    attn_tensor v = *t;
    v.rank = 4;
    const int64_t shape[] = {1, t->shape[1], t->shape[0], t->shape[2]};
    const int64_t stride[] = {t->shape[0] * t->stride[0], t->stride[1], t->stride[0], t->stride[2]};
    memcpy(v.shape, shape, sizeof shape);
    memcpy(v.stride, stride, sizeof stride);
    return v;
}

static void attends_by_name_and_shape(void **state)
{
    struct world *world = *state;
    struct fixture f = {world->compute, world->pass};
    static const char *const ops[] = {"math", "memory_efficient", NULL, "sliced"};
    for (int i = 0; i < 8; ++i) {
        const int64_t n = i % 2 ? 33 : 17, h = 3, d = 20, qs[] = {n, h, d}, ms[] = {1, n};
        struct sample q = sample_random(F32, PLAIN, 3, qs), k = sample_random(F32, PLAIN, 3, qs);
        struct sample v = sample_random(F32, PLAIN, 3, qs), o = sample_output(F32, PLAIN, 3, qs);
        struct sample mass = sample_output(F32, PLAIN, 2, ms);
        double *all[4], key_mass[33];
        const struct sample *samples[] = {&q, &k, &v};
        for (int j = 0; j < 3; ++j) {
            all[j] = doubles(n * h * d);
            for (int64_t e = 0; e < n * h * d; ++e)
                all[j][e] = element(&samples[j]->t, e);
        }
        all[3] = doubles(n * h * d);
        bool causal = i < 4;
        attention(n, n, h, d, all[0], all[1], all[2], causal, all[3], key_mass);
        struct attend_arg a = {.call = {.size = sizeof(attn_op_call),
                                        .flags = causal ? ATTN_CALL_BAND : 0,
                                        .q = heads_view(&q.t),
                                        .k = heads_view(&k.t),
                                        .v = heads_view(&v.t),
                                        .out = heads_view(&o.t),
                                        .key_mass = mass.t,
                                        .band_lo = INT64_MIN,
                                        .band_hi = 0},
                               .choice = {.op = ops[i / 2]}};
        run_twice(&f, attend, &a);
        assert_close(&o.t, all[3], bound_of(F32), "attend");
        assert_close(&mass.t, key_mass, bound_of(F32), "key_mass");
        if (ops[i / 2])
            assert_non_null(strstr(a.taken, ops[i / 2]));
        a.call.q.shape[3] = 19;
        expect_refusal(&f, attend, &a, ATTN_INVALID, "");
        for (int j = 0; j < 4; ++j)
            free(all[j]);
        struct sample *gone[] = {&q, &k, &v, &o, &mass};
        for (size_t j = 0; j < sizeof gone / sizeof *gone; ++j)
            sample_release(gone[j]);
    }
}

static void unplanned_and_unknown(void **state)
{
    struct world *world = *state;
    struct fixture f = {world->compute, world->pass};
    const int64_t qs[] = {3, 1, 4};
    struct sample q = sample_random(F32, PLAIN, 3, qs), o = sample_output(F32, PLAIN, 3, qs);
    struct attend_arg a = {.call = {.size = sizeof(attn_op_call),
                                    .q = heads_view(&q.t),
                                    .k = heads_view(&q.t),
                                    .v = heads_view(&q.t),
                                    .out = heads_view(&o.t)},
                           .choice = {.op = "math"}};
    ATTN_ERROR_ON(err, 256);
    attn_work *w = pass_real(world->pass, NULL, &err);
    assert_non_null(w);
    attend(w, &a);
    assert_int_equal(w->status, ATTN_INTERNAL);
    assert_non_null(strstr(err.text, "q [1, 1, 3, 4] f32 was not planned"));
    a.choice.op = "no_such_op";
    expect_refusal(&f, attend, &a, ATTN_NOT_FOUND, "no_such_op");
    sample_release(&q);
    sample_release(&o);
}

/* -- layers ------------------------------------------------------------------------------------ */

#define HEADS 3
#define DIM   8
#define WIDTH 24
#define CROSS 10

struct weights {
    struct sample q, k, v, out, bias, down, up;
    attn_term term;
    attn_layer layer;
};

static void weights_make(struct weights *w, int64_t cross, bool term)
{
    const int64_t qs[] = {HEADS * DIM, WIDTH}, ks[] = {HEADS * DIM, cross};
    const int64_t os[] = {WIDTH, HEADS * DIM}, bs[] = {WIDTH};
    const int64_t ds[] = {4, WIDTH}, us[] = {HEADS * DIM, 4};
    *w = (struct weights){.q = sample_random(F32, PLAIN, 2, qs),
                          .k = sample_random(F32, PLAIN, 2, ks),
                          .v = sample_random(F32, PLAIN, 2, ks),
                          .out = sample_random(F32, PLAIN, 2, os),
                          .bias = sample_random(F32, PLAIN, 1, bs),
                          .down = sample_random(F32, PLAIN, 2, ds),
                          .up = sample_random(F32, PLAIN, 2, us)};
    sample_scale(&w->q, 0.1);
    sample_scale(&w->k, 0.1);
    w->term = (attn_term){.factor = 0.1f, .down = w->down.t, .up = w->up.t};
    w->layer = (attn_layer){.size = sizeof(attn_layer),
                            .flags = ATTN_LAYER_RESIDUAL,
                            .name = "mid_block.attn1",
                            .heads = HEADS,
                            .dim_head = DIM,
                            .query_dim = WIDTH,
                            .cross_dim = cross,
                            .scale = (float)(1.0 / sqrt(DIM)),
                            .rescale = 2.0f,
                            .to_q = {.weight = w->q.t},
                            .to_k = {.weight = w->k.t},
                            .to_v = {.weight = w->v.t},
                            .to_out = {.weight = w->out.t, .bias = w->bias.t}};
    if (term) {
        w->layer.to_q.terms = &w->term;
        w->layer.to_q.n_terms = 1;
    }
}

static void weights_free(struct weights *w)
{
    struct sample *all[] = {&w->q, &w->k, &w->v, &w->out, &w->bias, &w->down, &w->up};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        sample_release(all[i]);
}

static void layer_expected(const attn_layer *l, const attn_tensor *hidden,
                           const attn_tensor *encoder, const float *scales, double *out,
                           double *key_mass)
{
    int64_t n = hidden->shape[1], m = encoder->rank ? encoder->shape[1] : n;
    for (int64_t b = 0; b < hidden->shape[0]; ++b) {
        double *x = doubles(n * WIDTH), *e = x, *core = doubles(n * HEADS * DIM);
        for (int64_t i = 0; i < n * WIDTH; ++i)
            x[i] = element(hidden, b * n * WIDTH + i);
        if (encoder->rank) {
            e = doubles(m * CROSS);
            for (int64_t i = 0; i < m * CROSS; ++i)
                e[i] = element(encoder, b * m * CROSS + i);
        }
        double *q = linear(x, n, &l->to_q, scales), *k = linear(e, m, &l->to_k, scales);
        double *v = linear(e, m, &l->to_v, scales);
        attention(n, m, HEADS, DIM, q, k, v, false, core, key_mass ? key_mass + b * m : NULL);
        double *y = linear(core, n, &l->to_out, scales);
        for (int64_t i = 0; i < n * WIDTH; ++i)
            out[b * n * WIDTH + i] = (y[i] + x[i]) / 2.0;
        double *gone[] = {q, k, v, y, core, x, e == x ? NULL : e};
        for (size_t i = 0; i < sizeof gone / sizeof *gone; ++i)
            free(gone[i]);
    }
}

/* Two shapes on one bound layer, in turn; self and cross attention. */
static void layers_run(void **state)
{
    struct world *world = *state;
    ATTN_ERROR_ON(err, 512);
    for (int cross = 0; cross < 2; ++cross) {
        struct weights w;
        weights_make(&w, cross ? CROSS : WIDTH, false);
        attn_layer_spec spec = {.size = sizeof spec,
                                .processor = cross ? "AttnProcessor2_0" : "AttnProcessor"};
        attn_bound *bound;
        if (attn_layer_bind(world->computer, &w.layer, &spec, &bound, &err) != ATTN_OK)
            fail_msg("%s", err.text);
        assert_string_equal(attn_layer_processor(bound), "org.attnplug.standard");
        assert_string_equal(attn_layer_op(bound), "");
        for (int i = 0; i < 4; ++i) {
            const int64_t n = i % 2 ? 19 : 30, hs[] = {2, n, WIDTH}, es[] = {2, 7, CROSS};
            struct sample hidden = sample_random(F32, SLICE, 3, hs);
            struct sample out = sample_output(F32, PLAIN, 3, hs);
            struct sample encoder = sample_random(F32, PLAIN, 3, es);
            attn_layer_call call = {.size = sizeof call, .hidden = hidden.t, .out = out.t};
            if (cross)
                call.encoder = encoder.t;
            double *expected = doubles(2 * n * WIDTH);
            layer_expected(&w.layer, &call.hidden, &call.encoder, NULL, expected, NULL);
            if (attn_layer_run(bound, &call, &err) != ATTN_OK)
                fail_msg("%s", err.text);
            assert_close(&out.t, expected, 1e-5, "layer");
            if (!cross)
                assert_string_equal(attn_layer_op(bound), "org.attnplug.math");
            free(expected);
            sample_release(&hidden);
            sample_release(&out);
            sample_release(&encoder);
        }
        attn_layer_unbind(bound);
        weights_free(&w);
    }
}

struct layer_arg {
    struct layer *layer;
    attn_layer_call call;
    const float *scales;
};

static void run_layer(attn_work *w, void *arg)
{
    struct layer_arg *a = arg;
    w->scales = a->scales;
    w->n_scales = 1;
    layer_run(w, a->layer, &a->call);
}

static void layers_in_a_pass(void **state)
{
    struct world *world = *state;
    struct fixture f = {world->compute, NULL};
    ATTN_ERROR_ON(err, 512);
    const int64_t n = 21, hs[] = {1, n, WIDTH}, ms[] = {1, n};
    const float scales[] = {0.7f};
    struct weights w;
    struct layer_arg a = {.scales = scales};
    weights_make(&w, WIDTH, true);
    attn_layer_spec spec = {.size = sizeof spec, .processor = "standard", .op = "memory_efficient"};
    assert_int_equal(pass_create(f.c, &f.pass, &err), ATTN_OK);
    if (layer_bind(f.c, &w.layer, &spec, &a.layer, &err) != ATTN_OK)
        fail_msg("%s", err.text);
    struct sample hidden = sample_random(F32, PLAIN, 3, hs), out = sample_output(F32, PLAIN, 3, hs);
    struct sample mass = sample_output(F32, PLAIN, 2, ms);
    a.call = (attn_layer_call){
        .size = sizeof a.call, .hidden = hidden.t, .out = out.t, .key_mass = mass.t};
    double *expected = doubles(n * WIDTH), key_mass[21];
    layer_expected(&w.layer, &hidden.t, &(attn_tensor){0}, scales, expected, key_mass);
    run_twice(&f, run_layer, &a);
    assert_close(&out.t, expected, 1e-5, "layer in a pass");
    assert_close(&mass.t, key_mass, 1e-5, "its key_mass");
    assert_string_equal(layer_op(a.layer), "org.attnplug.memory_efficient");
    uint64_t peak = pass_peak(f.pass);
    run_twice(&f, run_layer, &a); /* planned already: counts the same */
    assert_int_equal(pass_peak(f.pass), peak);
    assert_true(layer_planned(f.pass, a.layer, &a.call));
    a.call.ext = &(attn_ext){.id = "org.example.hint/1", .size = sizeof *a.call.ext};
    assert_false(layer_planned(f.pass, a.layer, &a.call)); /* prepare shall see it */
    run_twice(&f, run_layer, &a);
    assert_true(layer_planned(f.pass, a.layer, &a.call));
    free(expected);
    pass_destroy(f.pass);
    layer_unbind(a.layer);
    struct sample *gone[] = {&hidden, &out, &mass};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; ++i)
        sample_release(gone[i]);
    weights_free(&w);
}

static void binds_that_fail(void **state)
{
    struct world *world = *state;
    ATTN_ERROR_ON(err, 512);
    struct weights w;
    attn_bound *bound;
    weights_make(&w, WIDTH, false);
    attn_param params[] = {{.name = "no_such_parameter", .kind = ATTN_PARAM_INT}};
    const struct {
        attn_layer_spec spec;
        attn_status status;
        const char *text;
    } cases[] = {
        {{.processor = "no_such_processor"}, ATTN_NOT_FOUND, "no_such_processor"},
        {{.processor = "math"}, ATTN_INVALID, "math is an op"},
        {{.processor = "standard", .params = params, .n_params = 1},
         ATTN_INVALID,
         "no_such_parameter"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        attn_layer_spec spec = cases[i].spec;
        spec.size = sizeof spec;
        attn_status status = attn_layer_bind(world->computer, &w.layer, &spec, &bound, &err);
        if (status != cases[i].status || !strstr(err.text, cases[i].text))
            fail_msg("case %zu: status %d, \"%s\"", i, status, err.text);
    }
    weights_free(&w);
}

/* What an engine forgets: sizes, a name. */
static void forgotten_fields(void **state)
{
    struct world *world = *state;
    ATTN_ERROR_ON(err, 512);
    struct weights w;
    attn_bound *bound = NULL;
    const attn_param nameless = {.kind = ATTN_PARAM_INT};
    weights_make(&w, WIDTH, false);
    attn_layer_spec spec = {.processor = "standard"};
    assert_int_equal(attn_layer_bind(world->computer, &w.layer, &spec, &bound, &err), ATTN_INVALID);
    assert_string_equal(err.text, "attn_layer_spec (size 0): no processor");
    spec = (attn_layer_spec){
        .size = sizeof spec, .processor = "standard", .params = &nameless, .n_params = 1};
    assert_int_equal(attn_layer_bind(world->computer, &w.layer, &spec, &bound, &err), ATTN_INVALID);
    assert_string_equal(err.text, "standard: a parameter has no name");
    spec.params = NULL;
    assert_int_equal(attn_layer_bind(world->computer, &w.layer, &spec, &bound, &err), ATTN_INVALID);
    assert_string_equal(err.text, "attn_layer_spec: 1 parameters, but params is NULL");
    spec.n_params = 0;
    const uint32_t size = w.layer.size;
    w.layer.size = 0;
    assert_int_equal(attn_layer_bind(world->computer, &w.layer, &spec, &bound, &err), ATTN_INVALID);
    assert_string_equal(err.text, "attn_layer: size is 0, expected at least 3184");
    w.layer.size = size;
    assert_int_equal(attn_layer_bind(world->computer, &w.layer, &spec, &bound, &err), ATTN_OK);
    const attn_layer_call call = {0};
    assert_int_equal(attn_layer_run(bound, &call, &err), ATTN_INVALID);
    assert_string_equal(err.text, "attn_layer_call: size is 0, expected at least 912");
    attn_layer_unbind(bound);
    weights_free(&w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attends_by_name_and_shape),
        cmocka_unit_test(unplanned_and_unknown),
        cmocka_unit_test(layers_run),
        cmocka_unit_test(layers_in_a_pass),
        cmocka_unit_test(binds_that_fail),
        cmocka_unit_test(forgotten_fields),
    };
    if (argc < 2 || variant_missing())
        return argc < 2 ? 2 : 77;
    plugins = argv[1];
    return cmocka_run_group_tests(tests, world_open, world_close);
}
