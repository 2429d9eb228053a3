/* fma_peak.c: the ceiling that CPU timings are held against. */
#include "fma_peak.h"

#include <time.h>

enum { ROUNDS = 2000000, SUMS = 12, MAX_THREADS = 1024 };

/* Twelve independent sums fill the pipelines of every x86-64 with vectors; the compiler keeps them
 * in registers.  Each thread leaves one number, so that nothing can be left out. */
#define PEAK_BODY(lanes)                                                                           \
    typedef float vector __attribute__((vector_size((lanes)*4)));                                  \
    vector sum[SUMS], x = {0}, y = {0};                                                            \
    x = x + 0.999f;                                                                                \
    y = y + 1e-6f;                                                                                 \
    for (int i = 0; i < SUMS; i++)                                                                 \
        sum[i] = x * (float)i;                                                                     \
    for (int64_t k = begin; k < end; k++)                                                          \
        for (int i = 0; i < SUMS; i++)                                                             \
            sum[i] = sum[i] * x + y;                                                               \
    for (int i = 1; i < SUMS; i++)                                                                 \
        sum[0] += sum[i];                                                                          \
    ((volatile float *)arg)[thread] = sum[0][0]

static void peak_c(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    PEAK_BODY(4);
}

#ifdef __x86_64__
__attribute__((target("avx2,fma"))) static void peak_avx2(void *arg, int64_t begin, int64_t end,
                                                          uint32_t thread)
{
    PEAK_BODY(8);
}

__attribute__((target("avx512f"))) static void peak_avx512(void *arg, int64_t begin, int64_t end,
                                                           uint32_t thread)
{
    PEAK_BODY(16);
}
#endif

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double peak_of(const attn_host *host, int tries,
                      void (*body)(void *, int64_t, int64_t, uint32_t), int lanes)
{
    static float sink[MAX_THREADS];
    const int64_t threads = host->max_threads < MAX_THREADS ? host->max_threads : MAX_THREADS;
    double best = 1e30;
    for (int i = 0; i < tries; i++) {
        double start = now();
        host->parallel_for(host->ctx, ROUNDS * threads, ROUNDS, body, sink);
        double spent = now() - start;
        best = spent < best ? spent : best;
    }
    return 2e-9 * lanes * SUMS * ROUNDS * (double)threads / best;
}

double fma_peaks(const attn_host *host, int tries, struct fma_peak peaks[FMA_PEAKS])
{
    double best = 0;
    peaks[0] = (struct fma_peak){"c", peak_of(host, tries, peak_c, 4)};
    peaks[1] = (struct fma_peak){"avx2", 0};
    peaks[2] = (struct fma_peak){"avx512", 0};
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        peaks[1].gflops = peak_of(host, tries, peak_avx2, 8);
    }
    if (__builtin_cpu_supports("avx512f")) {
        peaks[2].gflops = peak_of(host, tries, peak_avx512, 16);
    }
#endif
    for (int i = 0; i < FMA_PEAKS; i++) {
        best = peaks[i].gflops > best ? peaks[i].gflops : best;
    }
    return best;
}
