/* test_conv_large.c: 3 x 3 convolutions of pictures that are large enough to be done in bands and
 * by an algorithm of their own, and what such do to their input: norms, enlargement. */
#include "check.h"

#include <math.h>
#include <stdlib.h>

enum what { ALONE, NORMED, MODULATED, ENLARGED };

struct large_case {
    int64_t batch, height, width, in, in2, out;
    enum dtype weight_type;
    enum layout layout; /* of x and y */
    enum activation act;
    bool residual;
    enum what what;
    int64_t small_height, small_width; /* of x before it is enlarged */
};

enum { GROUPS = 4 };
static const double eps = 1e-5;

struct large_call {
    enum what what;
    const struct conv *conv;
    attn_norm norm;
    attn_tensor x, x2, add, scale, shift, y;
    struct epilogue e;
};

static void operation(attn_work *w, void *arg)
{
    const struct large_call *c = arg;
    const struct norm_call norm = {&c->norm, ACT_SILU,  &c->x,    &c->x2,
                                   &c->add,  &c->scale, &c->shift};
    if (c->what == ALONE)
        work_compute(w)->api->conv(w, c->conv, &c->x, &c->x2, &c->e, &c->y);
    else if (c->what == ENLARGED)
        upsample_conv(w, &c->x, c->conv, &c->y);
    else
        norm_conv(w, &norm, c->conv, &c->e, &c->y);
}

static unsigned times_read;

static void weight_read(void *ctx, const attn_tensor *weight)
{
    assert_ptr_equal(ctx, &times_read);
    assert_non_null(weight->data);
    ++times_read;
}

static double optional(const attn_tensor *t, int64_t i, double otherwise)
{
    return t->rank ? element(t, i) : otherwise;
}

/* Groups of x, [batch, pixels, channels], normed and modulated in place, then SiLU. */
static void norm_reference(const struct large_call *c, int64_t batch, int64_t pixels,
                           int64_t channels, double *x)
{
    const int64_t width = channels / GROUPS;
    for (int64_t unit = 0; unit < batch * GROUPS; ++unit) {
        const int64_t b = unit / GROUPS, first = unit % GROUPS * width;
        double sum = 0.0, square = 0.0;
        for (int64_t i = 0; i < pixels * width; ++i) {
            const int64_t channel = first + i % width;
            double *v = &x[(b * pixels + i / width) * channels + channel];
            *v += optional(&c->add, b * channels + channel, 0.0);
            sum += *v;
            square += *v * *v;
        }
        const double n = (double)(pixels * width), mean = sum / n;
        const double inverse = 1.0 / sqrt(square / n - mean * mean + eps);
        for (int64_t i = 0; i < pixels * width; ++i) {
            const int64_t channel = first + i % width, at = b * channels + channel;
            double *v = &x[(b * pixels + i / width) * channels + channel];
            double y = (*v - mean) * inverse * element(&c->norm.weight, channel) +
                       element(&c->norm.bias, channel);
            y = y * (1.0 + optional(&c->scale, at, 0.0)) + optional(&c->shift, at, 0.0);
            *v = y / (1.0 + exp(-y));
        }
    }
}

/* What the convolution is of: [batch, height, width, in + in2]. */
static double *input_reference(const struct large_case *k, const struct large_call *c)
{
    const int64_t channels = k->in + k->in2, pixels = k->height * k->width;
    double *x = malloc((size_t)(k->batch * pixels * channels) * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < k->batch * pixels * channels; ++i) {
        const int64_t channel = i % channels, at = i / channels, b = at / pixels;
        int64_t row = at % pixels / k->width, column = at % k->width;
        if (k->what == ENLARGED) {
            row = row * c->x.shape[1] / k->height;
            column = column * c->x.shape[2] / k->width;
        }
        const int64_t pixel = (b * c->x.shape[1] + row) * c->x.shape[2] + column;
        x[i] = channel < k->in ? element(&c->x, pixel * k->in + channel)
                               : element(&c->x2, pixel * k->in2 + channel - k->in);
    }
    if (k->what == NORMED || k->what == MODULATED)
        norm_reference(c, k->batch, pixels, channels, x);
    return x;
}

/* Weights as [tap][in][out], so that the innermost loop runs along memory. */
static double *weight_reference(const attn_tensor *w)
{
    const int64_t out = w->shape[0], in = w->shape[1];
    double *turned = malloc((size_t)(9 * in * out) * sizeof *turned);
    assert_non_null(turned);
    for (int64_t i = 0; i < 9 * in * out; ++i)
        turned[(i % 9 * in + i / 9 % in) * out + i / 9 / in] = element(w, i);
    return turned;
}

static void pixel_reference(const struct large_case *k, const double *x, const double *weights,
                            int64_t at, double *y)
{
    const int64_t in = k->in + k->in2, pixels = k->height * k->width;
    const int64_t b = at / pixels, row = at % pixels / k->width, column = at % k->width;
    for (int64_t tap = 0; tap < 9; ++tap) {
        const int64_t from = row + tap / 3 - 1, left = column + tap % 3 - 1;
        if (from < 0 || from >= k->height || left < 0 || left >= k->width)
            continue;
        const double *pixel = x + (b * pixels + from * k->width + left) * in;
        for (int64_t ic = 0; ic < in; ++ic) {
            const double *w = weights + (tap * in + ic) * k->out;
            for (int64_t oc = 0; oc < k->out; ++oc)
                y[oc] += pixel[ic] * w[oc];
        }
    }
}

static double *reference(const struct large_case *k, const struct large_call *c,
                         const attn_tensor *weight, const attn_tensor *bias)
{
    const int64_t n = k->batch * k->height * k->width;
    double *x = input_reference(k, c), *weights = weight_reference(weight);
    double *y = malloc((size_t)(n * k->out) * sizeof *y);
    assert_non_null(y);
    for (int64_t at = 0; at < n; ++at) {
        double *to = y + at * k->out;
        for (int64_t oc = 0; oc < k->out; ++oc)
            to[oc] = element(bias, oc);
        pixel_reference(k, x, weights, at, to);
        for (int64_t oc = 0; oc < k->out; ++oc) {
            to[oc] = k->act == ACT_SILU ? to[oc] / (1.0 + exp(-to[oc])) : to[oc];
            to[oc] += k->residual ? element(c->e.residual, at * k->out + oc) : 0.0;
        }
    }
    free(weights);
    free(x);
    return y;
}

/* -- cases ------------------------------------------------------------------------------------- */

struct samples {
    struct sample weight, bias, x, x2, r, y,
        vectors[5]; /* norm's weight, bias; add, scale, shift */
};

static void samples_make(const struct large_case *k, struct samples *s, struct large_call *c)
{
    const bool enlarged = k->what == ENLARGED;
    const int64_t ws[] = {k->out, k->in + k->in2, 3, 3}, vs[] = {k->batch, k->in + k->in2};
    const int64_t xs[] = {k->batch, enlarged ? k->small_height : k->height,
                          enlarged ? k->small_width : k->width, k->in};
    const int64_t x2s[] = {k->batch, k->height, k->width, k->in2};
    const int64_t ys[] = {k->batch, k->height, k->width, k->out};
    s->weight = sample_random(k->weight_type, PLAIN, 4, ws);
    s->bias = sample_random(k->weight_type, PLAIN, 1, ws);
    s->x = sample_random(F32, k->layout, 4, xs);
    s->x2 = sample_random(F32, SLICE, 4, x2s);
    s->r = sample_random(F32, k->layout, 4, ys);
    s->y = sample_output(F32, k->layout, 4, ys);
    for (int i = 0; i < 5; ++i)
        s->vectors[i] = sample_random(F32, PLAIN, i < 2 ? 1 : 2, i < 2 ? vs + 1 : vs);
    *c = (struct large_call){
        .what = k->what, .x = s->x.t, .y = s->y.t, .e = {k->act, k->residual ? &s->r.t : NULL}};
    c->norm = (attn_norm){.kind = ATTN_NORM_GROUP, .groups = GROUPS, .eps = (float)eps};
    c->norm.weight = s->vectors[0].t;
    c->norm.bias = s->vectors[1].t;
    if (k->in2)
        c->x2 = s->x2.t;
    if (k->what == NORMED)
        c->add = s->vectors[2].t;
    if (k->what == MODULATED) {
        c->scale = s->vectors[3].t;
        c->shift = s->vectors[4].t;
    }
}

static void samples_release(struct samples *s)
{
    sample_release(&s->weight);
    sample_release(&s->bias);
    sample_release(&s->x);
    sample_release(&s->x2);
    sample_release(&s->r);
    sample_release(&s->y);
    for (int i = 0; i < 5; ++i)
        sample_release(&s->vectors[i]);
}

static struct conv *conv_make(struct fixture *f, const struct large_case *k,
                              const struct samples *s)
{
    const struct conv_desc desc = {.in_channels = k->in + k->in2,
                                   .out_channels = k->out,
                                   .kernel = 3,
                                   .stride = 1,
                                   .pad_low = 1,
                                   .pad_high = 1,
                                   .weight = &s->weight.t,
                                   .bias = &s->bias.t,
                                   .weight_read = weight_read,
                                   .ctx = &times_read};
    struct conv *conv;
    ATTN_ERROR_ON(err, 256);
    if (f->c->api->conv_create(f->c, &desc, &conv, &err) != ATTN_OK)
        fail_msg("%s", err.text);
    return conv;
}

static void run_case(struct fixture *f, const struct large_case *k)
{
    struct samples s;
    struct large_call c;
    samples_make(k, &s, &c);
    struct conv *conv = conv_make(f, k, &s);
    c.conv = conv;
    double *expected = reference(k, &c, &s.weight.t, &s.bias.t);
    run_twice(f, operation, &c);
    assert_close(&s.y.t, expected, bound_of(F32), "large convolution");
    free(expected);
    f->c->api->conv_destroy(f->c, conv);
    samples_release(&s);
}

static void every_kind(void **state)
{
    static const struct large_case cases[] = {
        {1, 16, 16, 16, 0, 16, F32, PLAIN, ACT_NONE, false, ALONE, 0, 0},
        {2, 16, 17, 60, 0, 33, F16, SLICE, ACT_SILU, true, ALONE, 0, 0},
        {3, 18, 20, 24, 20, 40, BF16, SLICE, ACT_NONE, true, ALONE, 0, 0},
        {3, 18, 20, 24, 20, 40, BF16, PLAIN, ACT_NONE, false, NORMED, 0, 0},
        {2, 32, 33, 32, 0, 16, F32, PLAIN, ACT_NONE, true, MODULATED, 0, 0},
        {2, 72, 60, 20, 0, 17, F32, PLAIN, ACT_NONE, true, NORMED, 0, 0},
        {1, 9, 1100, 12, 8, 16, F32, PLAIN, ACT_NONE, false, ALONE, 0, 0},
        {1, 65, 64, 16, 0, 20, F32, TURNED, ACT_NONE, false, ALONE, 0, 0},
        {2, 34, 32, 18, 0, 16, F32, PLAIN, ACT_NONE, false, ENLARGED, 17, 16},
        {1, 33, 19, 16, 0, 48, F32, SLICE, ACT_NONE, false, ENLARGED, 17, 10},
        {1, 96, 64, 16, 0, 16, F16, PLAIN, ACT_NONE, false, ENLARGED, 48, 32},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i)
        run_case(*state, &cases[i]);
}

/* With bands that repeat rows of others, nothing may be added twice. */
static void residual_may_be_y(void **state)
{
    static const struct large_case k = {1,     70,       60,    16,    0, 16, F32,
                                        PLAIN, ACT_NONE, false, ALONE, 0, 0};
    struct fixture *f = *state;
    struct samples s;
    struct large_call c;
    samples_make(&k, &s, &c);
    struct conv *conv = conv_make(f, &k, &s);
    c.conv = conv;
    double *expected = reference(&k, &c, &s.weight.t, &s.bias.t);
    for (int64_t i = 0; i < tensor_count(&c.y); ++i) {
        const double before = (double)(i % 7) - 3.0;
        element_set(&c.y, i, before);
        expected[i] += before;
    }
    c.e.residual = &c.y;
    ATTN_ERROR_ON(err, 256);
    operation(pass_dry(f->pass, &err), &c);
    attn_work *w = pass_real(f->pass, NULL, &err);
    operation(w, &c);
    assert_int_equal(w->status, ATTN_OK);
    assert_close(&c.y, expected, bound_of(F32), "residual = y");
    free(expected);
    f->c->api->conv_destroy(f->c, conv);
    samples_release(&s);
}

/* Passes that are run once, or often, or of other sizes want weights laid out in other ways. */
static void passes_in_turns(void **state)
{
    static const struct large_case k = {1,     16,       16,    64,    0, 64, F32,
                                        PLAIN, ACT_NONE, false, ALONE, 0, 0};
    struct fixture *f = *state;
    struct samples s;
    struct large_call c;
    struct pass *once;
    ATTN_ERROR_ON(err, 256);
    samples_make(&k, &s, &c);
    struct conv *conv = conv_make(f, &k, &s);
    c.conv = conv;
    double *expected = reference(&k, &c, &s.weight.t, &s.bias.t);
    assert_int_equal(pass_create(f->c, &once, &err), ATTN_OK);
    pass_expect(once, 1);
    times_read = 0;
    for (int i = 0; i < 4; ++i) {
        struct pass *pass = i & 1 ? once : f->pass;
        operation(pass_dry(pass, &err), &c);
        attn_work *w = pass_real(pass, NULL, &err);
        operation(w, &c);
        assert_int_equal(w->status, ATTN_OK);
        assert_close(&c.y, expected, bound_of(F32), i & 1 ? "run once" : "run often");
    }
    assert_true(times_read <= 2); /* each layout is made once; a build without oneDNN reads none */
    pass_destroy(once);
    free(expected);
    f->c->api->conv_destroy(f->c, conv);
    samples_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind),
        cmocka_unit_test(residual_may_be_y),
        cmocka_unit_test(passes_in_turns),
    };
    return RUN_GROUP(tests);
}
