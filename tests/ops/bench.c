/* Verified timings of memory_efficient: some rows against math, then the median of many runs.
 *
 *   --bench [VARIANT]...   every shape with the variants named, all that run here without a name
 *   --bench --peak         only this machine's multiply-adds: one line of "name threads GFLOP/s"
 * each
 *
 * Two threads.  GFLOP/s count 4 B H Nq Nk D; the peak is of fp32 fused multiply-adds in registers.
 */
#include "bench.h"
#include "fma_peak.h"
#include "harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define THREADS 2
#define PROBED  8 /* rows of each head that are verified */

static const struct config shapes[] = {
    {.batch = 2, .heads = 8, .kv_heads = 8, .nq = 4096, .nk = 4096, .d = 40, .dv = 40},
    {.batch = 2, .heads = 8, .kv_heads = 8, .nq = 1024, .nk = 1024, .d = 80, .dv = 80},
    {.batch = 2, .heads = 8, .kv_heads = 8, .nq = 256, .nk = 256, .d = 160, .dv = 160},
    {.batch = 2, .heads = 8, .kv_heads = 8, .nq = 4096, .nk = 77, .d = 40, .dv = 40},
    {.batch = 2, .heads = 10, .kv_heads = 10, .nq = 4096, .nk = 4096, .d = 64, .dv = 64},
    {.batch = 1, .heads = 1, .kv_heads = 1, .nq = 4096, .nk = 4096, .d = 512, .dv = 512},
};

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* ---- the peak ---- */

static double print_peaks(void)
{
    struct fma_peak peaks[FMA_PEAKS];
    double best = fma_peaks(harness_host(THREADS), 12, peaks);
    for (int i = 0; i < FMA_PEAKS; i++) {
        if (peaks[i].gflops > 0)
            (void)printf("peak %s %d %.1f\n", peaks[i].name, THREADS, peaks[i].gflops);
    }
    return best;
}

/* ---- one line ---- */

/* Rows of each head against math on the same keys; the worst relative L2 of out and lse. */
static double verify(const struct data *data, const struct plugin *math)
{
    struct config c = data->config;
    double worst = 0.0;
    for (int64_t first = 0; first < c.nq; first += c.nq - PROBED) {
        struct data part = {.config = c};
        char text[256] = "";
        c.nq = PROBED;
        c.mass = 0;
        data_make(&part, &c, 1);
        attn_tensor q = data->call.q, out = data->call.out, lse = data->call.lse;
        attn_tensor *views[] = {&q, &out, &lse};
        for (int i = 0; i < 3; i++) {
            views[i]->data =
                (char *)views[i]->data + first * views[i]->stride[2] * (views[i]->bits / 8);
            views[i]->shape[2] = PROBED;
        }
        part.call.q = q;
        part.call.k = data->call.k;
        part.call.v = data->call.v;
        if (data_run(&part, math, text, sizeof text) != ATTN_OK) {
            (void)fprintf(stderr, "%s\n", text);
            exit(1);
        }
        struct distance a = tensor_distance(&out, &part.call.out);
        struct distance b = tensor_distance(&lse, &part.call.lse);
        worst = fmax(worst, fmax(a.relative, b.relative));
        if (a.wrong || b.wrong)
            worst = INFINITY;
        data_free(&part);
        c.nq = data->config.nq;
    }
    return worst;
}

struct timing {
    double median, least, most; /* ms */
    uint64_t scratch;
};

static struct timing time_call(const struct plugin *plugin, const attn_op_call *call)
{
    enum { MOST = 101 };
    double spent[MOST];
    int n = 0;
    attn_op_plan *plan = NULL;
    struct timing timing = {0};
    attn_op_call run = *call;
    if (plugin->api->prepare(plugin->op, call, &plan, &timing.scratch, NULL) != ATTN_OK)
        exit(1);
    run.scratch = aligned_alloc(256, (timing.scratch + 255) / 256 * 256 + 256);
    run.scratch_bytes = timing.scratch;
    double begin = now();
    while (n < MOST && (n < 7 || now() - begin < 1.0)) {
        double start = now();
        if (plugin->api->run(plan, &run, NULL) != ATTN_OK)
            exit(1);
        spent[n++] = (now() - start) * 1e3;
    }
    plugin->api->release(plan);
    free(run.scratch);
    qsort(spent, (size_t)n, sizeof *spent, ascending);
    timing.median = spent[n / 2];
    timing.least = spent[n / 10];
    timing.most = spent[n - 1 - n / 10];
    return timing;
}

static int bench_line(const struct config *shape, const char *cpu, enum dtype dtype, double peak)
{
    static const double bounds[] = {2e-6, 1e-3, 8e-3};
    struct config c = *shape;
    struct data data;
    char text[256] = "";
    c.dtype = dtype;
    c.lse = c.mass = 1;
    struct plugin plugin = plugin_open("memory_efficient", cpu, THREADS);
    struct plugin math = plugin_open("math", NULL, THREADS);
    data_make(&data, &c, 42);
    if (data_run(&data, &plugin, text, sizeof text) != ATTN_OK) {
        (void)fprintf(stderr, "%s\n", text);
        exit(1);
    }
    double error = verify(&data, &math);
    attn_op_call call = data.call;
    struct timing mass = time_call(&plugin, &call);
    call.key_mass.rank = call.lse.rank = 0;
    struct timing plain = time_call(&plugin, &call);
    double flops = 4.0 * (double)(c.batch * c.heads * c.nq) * (double)(c.nk * c.d);
    double rate = flops / plain.median * 1e-6;
    (void)printf(
        "%-7s %-4s %lld,%lld,%lldx%lld,%-4lld %9.3f ms [%.3f, %.3f] %6.0f GFLOP/s %4.0f %% "
        "of peak  mass %.2fx  scratch %llu KiB  off %.1e%s\n",
        cpu, dtype_names[dtype], (long long)c.batch, (long long)c.heads, (long long)c.nq,
        (long long)c.nk, (long long)c.d, plain.median, plain.least, plain.most, rate,
        100.0 * rate / peak, mass.median / plain.median, (unsigned long long)plain.scratch / 1024,
        error, error <= bounds[dtype] ? "" : "  WRONG");
    data_free(&data);
    plugin_close(&plugin);
    plugin_close(&math);
    return !(error <= bounds[dtype]);
}

int bench_main(int argc, char **argv)
{
    static const char *const all[] = {"avx2", "avx512", "amx"};
    int wrong = 0;
    double peak = print_peaks();
    if (argc > 0 && strcmp(argv[0], "--peak") == 0)
        return 0;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int v = 0; v < (argc > 0 ? argc : 3); v++)
            for (int dtype = F32; dtype <= BF16; dtype++) {
                const char *cpu = argc > 0 ? argv[v] : all[v];
                if (harness_variant(cpu))
                    wrong |= bench_line(&shapes[s], cpu, (enum dtype)dtype, peak);
                (void)fflush(stdout);
            }
    return wrong;
}
