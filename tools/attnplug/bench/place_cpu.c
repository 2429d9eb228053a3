/* place_cpu.c: the CPU: its threads are the registry's pool. */
#include "bench.h"

#include "../machine.h"
#include "error.h"
#include "fma_peak.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct tape {
    bench_run run;
    void *ctx;
    int n;
};

static attn_status cpu_alloc(struct bench_place *p, uint64_t bytes, void **data, attn_error *err)
{
    (void)p;
    *data = aligned_alloc(256, (bytes + 256) & ~UINT64_C(255));
    return *data
               ? ATTN_OK
               : attn_fail(err, ATTN_NOMEM, "no memory for %llu bytes", (unsigned long long)bytes);
}

static void cpu_free(struct bench_place *p, void *data)
{
    (void)p;
    free(data);
}

static attn_status cpu_copy(struct bench_place *p, void *to, const void *from, uint64_t bytes,
                            attn_error *err)
{
    (void)p;
    (void)err;
    memcpy(to, from, bytes);
    return ATTN_OK;
}

static attn_status cpu_once(struct bench_place *p, bench_run run, void *ctx, int n, attn_error *err)
{
    attn_status status = ATTN_OK;
    (void)p;
    for (int i = 0; i < n && status == ATTN_OK; i++) {
        status = run(ctx, i, NULL, err);
    }
    return status;
}

static attn_status cpu_record(struct bench_place *p, bench_run run, void *ctx, int n, void **tape,
                              attn_error *err)
{
    struct tape *made = malloc(sizeof *made);
    (void)p;
    if (!made) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %zu bytes", sizeof *made);
    }
    *made = (struct tape){run, ctx, n};
    *tape = made;
    return ATTN_OK;
}

static attn_status cpu_play(struct bench_place *p, void *tape, double *ms, attn_error *err)
{
    const struct tape *t = tape;
    const double start = bench_now_ms();
    attn_status status = cpu_once(p, t->run, t->ctx, t->n, err);
    *ms = (bench_now_ms() - start) / t->n;
    return status;
}

static void cpu_drop(struct bench_place *p, void *tape)
{
    (void)p;
    free(tape);
}

/* Multiply-adds alone: on this ceiling exponentials, packing and memory count for nothing. */
static double cpu_floor(const struct bench_place *p, const struct bench_shape *s, uint8_t bits)
{
    (void)bits;
    return p->peak_gflops > 0 ? bench_flop(s) / p->peak_gflops * 1e-6 : 0;
}

static void cpu_ready(struct bench_place *p, const attn_host *host)
{
    struct fma_peak peaks[FMA_PEAKS];
    const size_t used = strlen(p->versions);
    p->peak_gflops = fma_peaks(host, 8, peaks);
    (void)snprintf(p->versions + used, sizeof p->versions - used,
                   ", %u threads, FMA peak %.0f GFLOP/s", host->max_threads, p->peak_gflops);
}

static void cpu_close(struct bench_place *p)
{
    (void)p;
}

attn_status bench_place_cpu(const attn_device *device, struct bench_place *p, attn_error *err)
{
    (void)err;
    *p = (struct bench_place){.device = *device,
                              .reference = "org.attnplug.math",
                              .peer = "org.attnplug.math",
                              .ready = cpu_ready,
                              .rotate = 0,
                              .verified = 32,
                              .alloc = cpu_alloc,
                              .free = cpu_free,
                              .put = cpu_copy,
                              .get = cpu_copy,
                              .once = cpu_once,
                              .record = cpu_record,
                              .play = cpu_play,
                              .drop = cpu_drop,
                              .floor_ms = cpu_floor,
                              .close = cpu_close};
    machine_cpu_name(p->name, sizeof p->name);
    (void)snprintf(p->versions, sizeof p->versions, "%ld processors online",
                   sysconf(_SC_NPROCESSORS_ONLN));
    return ATTN_OK;
}

attn_status bench_place_open(const attn_device *device, struct bench_place *p, attn_error *err)
{
    if (device->type == ATTN_DEVICE_CPU) {
        return bench_place_cpu(device, p, err);
    }
    if (device->type == ATTN_DEVICE_CUDA) {
        return bench_place_cuda(device, p, err);
    }
    return attn_fail(err, ATTN_UNSUPPORTED, "bench: device \"%s\", expected cpu or cuda",
                     device->runtime);
}
