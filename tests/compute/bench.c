/* bench.c: times each operation at the sizes of the built-in model and of Stable Diffusion 1.5,
 * beside the multiply-add peak of this machine measured in the same run.
 *
 *   meson test --benchmark -C build compute        or        build/tests/compute/bench_compute
 * [WORD]
 *
 * Median of as many runs as fit into 0.3 s, at least 5; WORD leaves out what does not contain it.
 * Verified first: every figure here is of operations that test_*.c compare with double precision.
 */
#include "check.h"
#include "cpu.h"
#include "peak.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct fixture *fixture;
static double peak; /* flops a second */
static const char *word;

static void spin(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    (void)thread;
    for (int64_t i = begin; i < end; ++i)
        *(volatile float *)arg = peak_run(2000000);
}

static void measure_peak(void)
{
    const struct cpu *c = (const struct cpu *)fixture->c;
    int64_t threads = c->base.host.max_threads;
    volatile float sink;
    for (int i = 0; i < 5; ++i) {
        double start = now();
        parallel(c, threads, 1, spin, (void *)&sink);
        double rate = peak_flops(2000000) * (double)threads / (now() - start);
        peak = rate > peak ? rate : peak;
    }
    printf("%s kernels, %lld threads, peak %.0f GFLOP/s\n\n", c->kernels->name, (long long)threads,
           peak * 1e-9);
    printf("%-44s %9s %9s %7s %8s\n", "operation", "median us", "GFLOP/s", "of peak", "GB/s");
}

static void time_it(const char *name, void (*operation)(attn_work *w, void *arg), void *arg,
                    double flops, double bytes)
{
    double times[2000];
    int n = 0;
    if (word && !strstr(name, word))
        return;
    ATTN_ERROR_ON(err, 512);
    attn_work *w = pass_dry(fixture->pass, &err);
    operation(w, arg);
    for (double start = now(); n < 5 || (now() - start < 0.3 && n < 2000); ++n) {
        w = pass_real(fixture->pass, NULL, &err);
        double t = now();
        operation(w, arg);
        times[n] = now() - t;
    }
    if (w->status != ATTN_OK) {
        printf("%-44s %s\n", name, err.text);
        return;
    }
    qsort(times, (size_t)n, sizeof *times, by_value);
    double median = times[n / 2];
    printf("%-44s %9.1f %9.1f %6.0f%% %8.1f\n", name, median * 1e6, flops / median * 1e-9,
           100.0 * flops / median / peak, bytes / median * 1e-9);
}

/* -- operations -------------------------------------------------------------------------------- */

struct conv_arg {
    struct conv *conv;
    attn_tensor x, x2, y;
    struct epilogue e;
};

static void conv_run(attn_work *w, void *arg)
{
    const struct conv_arg *a = arg;
    work_compute(w)->api->conv(w, a->conv, &a->x, &a->x2, &a->e, &a->y);
}

static void weight_read(void *ctx, const attn_tensor *weight)
{
    (void)ctx;
    (void)weight;
}

static void conv(int64_t b, int64_t size, int64_t in, int64_t in2, int64_t out, int64_t kernel,
                 int64_t stride)
{
    char name[64];
    (void)snprintf(name, sizeof name, "conv%lld B%lld %lldx%lld %lld%s -> %lld%s",
                   (long long)kernel, (long long)b, (long long)size, (long long)size,
                   (long long)(in + in2), in2 ? " (two)" : "", (long long)out,
                   stride > 1 ? " /2" : "");
    if (word && !strstr(name, word))
        return;
    const int64_t xs[] = {b, size, size, in}, x2s[] = {b, size, size, in2};
    const int64_t ys[] = {b, size / stride, size / stride, out},
                  ws[] = {out, in + in2, kernel, kernel};
    struct sample x = sample_random(F32, PLAIN, 4, xs), x2 = sample_random(F32, PLAIN, 4, x2s);
    struct sample y = sample_output(F32, PLAIN, 4, ys), weight = sample_random(F32, PLAIN, 4, ws);
    struct conv_desc d = {.in_channels = in + in2,
                          .out_channels = out,
                          .kernel = kernel,
                          .stride = stride,
                          .pad_low = kernel / 2,
                          .pad_high = kernel / 2,
                          .weight = &weight.t,
                          .weight_read = weight_read};
    struct conv_arg a = {.x = x.t, .y = y.t};
    if (in2)
        a.x2 = x2.t;
    if (fixture->c->api->conv_create(fixture->c, &d, &a.conv, NULL) == ATTN_OK) {
        double pixels = (double)(b * ys[1] * ys[2]);
        time_it(name, conv_run, &a, 2.0 * pixels * (double)(out * (in + in2) * kernel * kernel),
                0.0);
        fixture->c->api->conv_destroy(fixture->c, a.conv);
    }
    sample_release(&x);
    sample_release(&x2);
    sample_release(&y);
    sample_release(&weight);
}

struct linear_arg {
    attn_tensor x, y;
    attn_linear linear;
    bool gated;
};

static void linear_run(attn_work *w, void *arg)
{
    const struct linear_arg *a = arg;
    const struct compute_api *api = work_compute(w)->api;
    if (a->gated)
        api->geglu(w, &a->x, &a->linear, &a->y);
    else
        api->linear(w, &a->x, &a->linear, NULL, &a->y);
}

static void linear(int64_t m, int64_t k, int64_t n, bool gated)
{
    char name[64];
    (void)snprintf(name, sizeof name, "%s %lld x %lld x %lld", gated ? "geglu" : "linear",
                   (long long)m, (long long)k, (long long)n);
    if (word && !strstr(name, word))
        return;
    const int64_t xs[] = {m, k}, ws[] = {gated ? 2 * n : n, k}, ys[] = {m, n};
    struct sample x = sample_random(F32, PLAIN, 2, xs), weight = sample_random(F32, PLAIN, 2, ws);
    struct sample y = sample_output(F32, PLAIN, 2, ys);
    struct linear_arg a = {.x = x.t, .y = y.t, .linear = {.weight = weight.t}, .gated = gated};
    time_it(name, linear_run, &a, 2.0 * (double)(m * k * ws[0]), 4.0 * (double)(k * ws[0]));
    sample_release(&x);
    sample_release(&weight);
    sample_release(&y);
}

struct norm_arg {
    attn_norm norm;
    enum activation act;
    attn_tensor x, y;
    int what; /* 0 norm, 1 copy, 2 combine, 3 activate, 4 upsample */
};

static void norm_run(attn_work *w, void *arg)
{
    const struct norm_arg *a = arg;
    struct compute *c = work_compute(w);
    if (a->what == 0)
        c->api->norm(w, &a->norm, a->act, &a->x, NULL, NULL, NULL, NULL, &a->y);
    else if (a->what == 1)
        c->plugin.copy(w, &a->x, &a->y);
    else if (a->what == 2)
        c->plugin.combine(w, 0.5f, &a->x, 2.0f, &a->x, &a->y);
    else if (a->what == 3)
        c->api->activate(w, a->act, &a->x, &a->y);
    else
        c->api->upsample(w, &a->x, &a->y);
}

static void rows(const char *what, int64_t b, int64_t size, int64_t channels)
{
    char name[64];
    (void)snprintf(name, sizeof name, "%s B%lld %lldx%lld %lld", what, (long long)b,
                   (long long)size, (long long)size, (long long)channels);
    if (word && !strstr(name, word))
        return;
    bool up = !strcmp(what, "upsample");
    const int64_t xs[] = {b, size, size, channels};
    const int64_t ys[] = {b, up ? 2 * size : size, up ? 2 * size : size, channels};
    struct sample x = sample_random(F32, PLAIN, 4, xs), y = sample_output(F32, PLAIN, 4, ys);
    struct norm_arg a = {.x = x.t, .y = y.t, .act = ACT_SILU};
    a.norm.eps = 1e-5f;
    a.norm.kind = strcmp(what, "layer norm") ? ATTN_NORM_GROUP : ATTN_NORM_LAYER;
    a.norm.groups = channels % 32 ? 12 : 32;
    if (a.norm.kind == ATTN_NORM_LAYER)
        a.act = ACT_NONE;
    a.what = !strcmp(what, "copy")      ? 1
             : !strcmp(what, "combine") ? 2
             : !strcmp(what, "silu")    ? 3
                                        : 4;
    if (strstr(what, "norm"))
        a.what = 0;
    double bytes = 4.0 * (double)(tensor_count(&x.t) + tensor_count(&y.t));
    time_it(name, norm_run, &a, 0.0, bytes);
    sample_release(&x);
    sample_release(&y);
}

static void built_in_model(void)
{
    conv(2, 32, 4, 0, 60, 3, 1);
    conv(2, 32, 60, 0, 60, 3, 1);
    conv(1, 32, 60, 0, 60, 3, 1);
    conv(2, 16, 60, 0, 120, 3, 1);
    conv(2, 16, 120, 0, 120, 3, 1);
    conv(1, 16, 120, 0, 120, 3, 1);
    conv(2, 8, 240, 0, 240, 3, 1);
    conv(1, 8, 240, 0, 240, 3, 1);
    conv(2, 8, 240, 240, 240, 3, 1);
    conv(2, 16, 240, 120, 120, 3, 1);
    conv(2, 32, 120, 60, 60, 3, 1);
    conv(2, 32, 120, 60, 60, 1, 1);
    conv(2, 32, 60, 0, 60, 3, 2);
    conv(2, 32, 60, 0, 4, 3, 1);
    linear(2, 60, 240, false);
    linear(2, 240, 240, false);
    linear(512, 120, 120, false);
    linear(512, 120, 480, true);
    linear(512, 480, 120, false);
    linear(128, 240, 240, false);
    linear(128, 240, 960, true);
    linear(64, 240, 960, true);
    linear(128, 960, 240, false);
    linear(154, 192, 240, false);
    rows("group norm", 2, 32, 60);
    rows("group norm", 2, 16, 120);
    rows("group norm", 2, 8, 240);
    rows("layer norm", 2, 16, 120);
    rows("upsample", 2, 16, 120);
    rows("combine", 2, 16, 120);
    conv(1, 128, 32, 0, 32, 3, 1);
    conv(1, 64, 64, 0, 64, 3, 1);
    conv(1, 32, 128, 0, 128, 3, 1);
    conv(1, 128, 32, 0, 3, 3, 1);
}

static void stable_diffusion(void)
{
    conv(2, 64, 4, 0, 320, 3, 1);
    conv(2, 64, 320, 0, 320, 3, 1);
    conv(2, 64, 320, 0, 320, 3, 2);
    conv(2, 32, 640, 0, 640, 3, 1);
    conv(2, 16, 1280, 0, 1280, 3, 1);
    conv(2, 8, 1280, 0, 1280, 3, 1);
    conv(2, 16, 1280, 640, 1280, 3, 1);
    conv(2, 64, 320, 320, 320, 1, 1);
    conv(1, 512, 128, 0, 128, 3, 1);
    linear(2, 1280, 1280, false);
    linear(8192, 320, 320, false);
    linear(8192, 320, 2560, false);
    linear(8192, 320, 1280, true);
    linear(8192, 1280, 320, false);
    linear(2048, 640, 2560, true);
    linear(512, 1280, 5120, true);
    linear(512, 5120, 1280, false);
    linear(128, 1280, 5120, true);
    linear(154, 768, 320, false);
    rows("group norm", 2, 64, 320);
    rows("group norm", 2, 32, 640);
    rows("group norm", 1, 512, 128);
    rows("layer norm", 2, 64, 320);
    rows("upsample", 2, 32, 640);
    rows("copy", 2, 64, 320);
    rows("combine", 2, 64, 320);
    rows("silu", 2, 64, 320);
}

int main(int argc, char **argv)
{
    void *state;
    word = argc > 1 ? argv[1] : NULL;
    if (fixture_open(&state) != 0)
        return 77;
    fixture = state;
    measure_peak();
    built_in_model();
    printf("\n");
    stable_diffusion();
    return fixture_close(&state);
}
