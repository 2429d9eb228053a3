/* bench_model.c: where a model's time goes: every operation of the table is timed on its way.
 *
 *   build/tests/compute/bench_model UNET_FOLDER PLUGIN_FOLDER [SIZE [STEPS]]
 *
 * A step is what self-attention guidance asks for: a pass of batch 2 with key_mass and one of batch
 * 1, on SIZE x SIZE latents (32).  Time by operation is the median step's share, in milliseconds.
 */
#include "attn_layer.h"
#include "pass.h"
#include "unet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum kind { CONV3, NORM_CONV, CONV1, LINEAR, GEGLU, NORM, ATTEND, REST, KINDS };
static const char *const kind_name[] = {"conv 3x3", "norm + conv 3x3", "conv 1x1", "linear",
                                        "geglu",    "norm (+ act)",    "attend",   "rest"};

static struct compute_api real;
static attn_compute plugin;
static double spent[KINDS];
static long calls[KINDS];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Time goes to the operation that was called, less what it called of the table itself. */
static double nested;

static attn_status book(enum kind kind, double start, double outer, attn_status status)
{
    double t = now() - start;
    spent[kind] += t - nested;
    nested = outer + t;
    ++calls[kind];
    return status;
}

static double enter(void)
{
    double outer = nested;
    nested = 0.0;
    return outer;
}

/* Convolutions with a kernel above 1 x 1. */
static const struct conv *large[4096];
static size_t n_large;

static bool conv_is_large(const struct conv *c)
{
    for (size_t i = 0; i < n_large; ++i) {
        if (large[i] == c)
            return true;
    }
    return false;
}

static attn_status conv(attn_work *w, const struct conv *c, const attn_tensor *x,
                        const attn_tensor *x2, const struct epilogue *e, const attn_tensor *y)
{
    double outer = enter(), t = now();
    return book(conv_is_large(c) ? CONV3 : CONV1, t, outer, real.conv(w, c, x, x2, e, y));
}

static attn_status normed(attn_work *w, const struct norm_call *n, const struct conv *c,
                          const struct epilogue *e, const attn_tensor *y)
{
    double outer = enter(), t = now();
    return book(NORM_CONV, t, outer, real.norm_conv(w, n, c, e, y));
}

static attn_status enlarged(attn_work *w, const attn_tensor *x, const struct conv *c,
                            const attn_tensor *y)
{
    double outer = enter(), t = now();
    return book(CONV3, t, outer, real.upsample_conv(w, x, c, y));
}

static attn_status conv_create(struct compute *c, const struct conv_desc *d, struct conv **out,
                               attn_error *err)
{
    attn_status status = real.conv_create(c, d, out, err);
    if (status == ATTN_OK && d->kernel > 1 && n_large < sizeof large / sizeof *large)
        large[n_large++] = *out;
    return status;
}

static attn_status linear(attn_work *w, const attn_tensor *x, const attn_linear *l,
                          const struct epilogue *e, const attn_tensor *y)
{
    double outer = enter(), t = now();
    return book(LINEAR, t, outer, real.linear(w, x, l, e, y));
}

static attn_status plugin_linear(attn_work *w, float alpha, const attn_tensor *x,
                                 const attn_linear *l, float beta, const attn_tensor *c,
                                 const attn_tensor *y)
{
    double outer = enter(), t = now();
    return book(LINEAR, t, outer, plugin.linear(w, alpha, x, l, beta, c, y));
}

static attn_status geglu(attn_work *w, const attn_tensor *x, const attn_linear *l,
                         const attn_tensor *y)
{
    double outer = enter(), t = now();
    return book(GEGLU, t, outer, real.geglu(w, x, l, y));
}

static attn_status norm(attn_work *w, const attn_norm *n, enum activation act, const attn_tensor *x,
                        const attn_tensor *x2, const attn_tensor *add, const attn_tensor *scale,
                        const attn_tensor *shift, const attn_tensor *y)
{
    double outer = enter(), t = now();
    return book(NORM, t, outer, real.norm(w, n, act, x, x2, add, scale, shift, y));
}

static attn_status plugin_norm(attn_work *w, const attn_norm *n, const attn_tensor *x,
                               const attn_tensor *zq, const attn_tensor *y)
{
    double outer = enter(), t = now();
    return book(NORM, t, outer, plugin.norm(w, n, x, zq, y));
}

static attn_status attend(attn_work *w, const attn_op_call *call)
{
    double outer = enter(), t = now();
    return book(ATTEND, t, outer, plugin.attend(w, call));
}

static void watch(struct compute *c)
{
    static struct compute_api api;
    real = *c->api;
    plugin = c->plugin;
    api = real;
    api.conv = conv;
    api.conv_create = conv_create;
    api.upsample_conv = real.upsample_conv ? enlarged : NULL;
    api.norm_conv = real.norm_conv ? normed : NULL;
    api.linear = linear;
    api.geglu = geglu;
    api.norm = norm;
    c->api = &api;
    c->plugin.linear = plugin_linear;
    c->plugin.norm = plugin_norm;
    c->plugin.attend = attend;
}

static attn_status choose(void *ctx, const char *layer, attn_layer_spec *spec, attn_error *err)
{
    (void)ctx;
    (void)layer;
    (void)err;
    spec->processor = "AttnProcessor2_0";
    return ATTN_OK;
}

static attn_tensor noise(uint32_t rank, const int64_t *shape)
{
    attn_tensor f32 = {.code = ATTN_CODE_FLOAT, .bits = 32, .device_type = ATTN_DEVICE_CPU};
    attn_tensor t = tensor_of(NULL, &f32, rank, shape);
    t.data = calloc((size_t)tensor_count(&t), sizeof(float));
    for (int64_t i = 0; t.data && i < tensor_count(&t); ++i)
        ((float *)t.data)[i] = (float)((i * 7919) % 1000) * 0.002f - 1.0f;
    return t;
}

static struct unet_call call_of(const struct unet *u, int64_t batch, int64_t size, bool key_mass)
{
    int64_t mh, mw;
    unet_mid_size(u, size, size, &mh, &mw);
    const int64_t xs[] = {batch, size, size, unet_in_channels(u)};
    const int64_t es[] = {batch, 77, unet_cross_dim(u)}, ms[] = {batch, mh * mw};
    struct unet_call call = {.sample = noise(4, xs),
                             .timestep = noise(1, xs),
                             .encoder = noise(3, es),
                             .out = noise(4, xs)};
    if (key_mass)
        call.key_mass = noise(2, ms);
    return call;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static attn_status run(struct compute *c, struct unet *u, int64_t size, int steps, attn_error *err)
{
    struct pass *pass;
    attn_status status = pass_create(c, &pass, err);
    if (status != ATTN_OK)
        return status;
    struct unet_call two = call_of(u, 2, size, true), one = call_of(u, 1, size, false);
    double times[1000];
    status = unet_forward(pass_dry(pass, err), u, &two);
    if (status == ATTN_OK)
        status = unet_forward(pass_dry(pass, err), u, &one);
    for (int i = 0; i <= steps && status == ATTN_OK; ++i) {
        if (i == 1)
            memset(spent, 0, sizeof spent), memset(calls, 0, sizeof calls);
        double start = now();
        status = unet_forward(pass_real(pass, NULL, err), u, &two);
        if (status == ATTN_OK)
            status = unet_forward(pass_real(pass, NULL, err), u, &one);
        times[i ? i - 1 : 0] = now() - start;
        two.same_encoder = one.same_encoder = 1;
    }
    if (status == ATTN_OK) {
        double total = 0.0, known = 0.0;
        for (int i = 0; i < steps; ++i)
            total += times[i];
        qsort(times, (size_t)steps, sizeof *times, by_value);
        double median = times[steps / 2];
        printf("step: median %.2f ms, fastest %.2f ms; arena %.1f MB\n", median * 1e3,
               times[0] * 1e3, (double)pass_peak(pass) * 1e-6);
        for (int k = 0; k < KINDS; ++k) {
            known += k == REST ? 0.0 : spent[k];
            double share = (k == REST ? total - known : spent[k]) / total;
            printf("  %-15s %8.2f ms %5.1f %%  %6ld calls\n", kind_name[k], share * median * 1e3,
                   share * 100.0, calls[k] / steps);
        }
    }
    pass_destroy(pass);
    struct unet_call *both[] = {&two, &one};
    for (int i = 0; i < 2; ++i) {
        free(both[i]->sample.data);
        free(both[i]->timestep.data);
        free(both[i]->encoder.data);
        free(both[i]->out.data);
        free(both[i]->key_mass.data);
    }
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return fprintf(stderr, "bench_model UNET_FOLDER PLUGIN_FOLDER [SIZE [STEPS]]\n"), 2;
    ATTN_ERROR_ON(err, 512);
    const char *paths[] = {argv[2]};
    attn_registry_options options = {
        .size = sizeof options, .flags = ATTN_REGISTRY_ONLY_PATHS, .paths = paths, .n_paths = 1};
    const struct unet_processors processors = {.choose = choose};
    attn_registry *registry = NULL;
    struct compute *c = NULL;
    struct unet *u = NULL;
    int64_t size = argc > 3 ? atoi(argv[3]) : 32;
    int steps = argc > 4 ? atoi(argv[4]) : 50;
    attn_status status = attn_registry_open(&options, &registry, &err);
    if (status == ATTN_OK)
        status = compute_cpu_create(registry, 0, &c, &err);
    if (status == ATTN_OK) {
        watch(c);
        status = unet_open(c, argv[1], &processors, &u, &err);
    }
    if (status == ATTN_OK && steps >= 1 && steps < 1000)
        status = run(c, u, size, steps, &err);
    if (status != ATTN_OK)
        fprintf(stderr, "%s\n", err.text);
    unet_close(u);
    if (c)
        c->api->destroy(c);
    attn_registry_close(registry);
    return status != ATTN_OK;
}
