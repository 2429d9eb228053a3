/* place_cuda.c: a GPU: buffers by the driver, time by its events. */
#include "bench.h"

#include "../gpu/gpu.h"
#include "error.h"

#include <stdlib.h>
#include <string.h>

struct own {
    struct gpu gpu;
    void *stream, *start, *end;
};

struct tape {
    void *graph;
    int n;
};

static attn_status cuda_alloc(struct bench_place *p, uint64_t bytes, void **data, attn_error *err)
{
    (void)p;
    return gpu_alloc(bytes, data, err);
}

static void cuda_free(struct bench_place *p, void *data)
{
    (void)p;
    gpu_free(data);
}

static attn_status cuda_put(struct bench_place *p, void *to, const void *from, uint64_t bytes,
                            attn_error *err)
{
    struct own *o = p->own;
    attn_status status = gpu_copy_in(to, from, bytes, o->stream, err);
    return status == ATTN_OK ? gpu_wait(o->stream, err) : status;
}

static attn_status cuda_get(struct bench_place *p, void *to, const void *from, uint64_t bytes,
                            attn_error *err)
{
    struct own *o = p->own;
    attn_status status = gpu_copy_out(to, from, bytes, o->stream, err);
    return status == ATTN_OK ? gpu_wait(o->stream, err) : status;
}

static attn_status queue(struct own *o, bench_run run, void *ctx, int n, attn_error *err)
{
    attn_status status = ATTN_OK;
    for (int i = 0; i < n && status == ATTN_OK; i++) {
        status = run(ctx, i, o->stream, err);
    }
    return status;
}

static attn_status cuda_once(struct bench_place *p, bench_run run, void *ctx, int n,
                             attn_error *err)
{
    struct own *o = p->own;
    attn_status status = queue(o, run, ctx, n, err);
    return status == ATTN_OK ? gpu_wait(o->stream, err) : status;
}

static attn_status cuda_record(struct bench_place *p, bench_run run, void *ctx, int n, void **tape,
                               attn_error *err)
{
    struct own *o = p->own;
    void *graph = NULL;
    struct tape *made = malloc(sizeof *made);
    if (!made) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %zu bytes", sizeof *made);
    }
    attn_status status = gpu_graph_begin(o->stream, err);
    if (status == ATTN_OK) {
        status = queue(o, run, ctx, n, err);
        attn_status ended = gpu_graph_end(o->stream, &graph, status == ATTN_OK ? err : NULL);
        status = status == ATTN_OK ? ended : status;
    }
    *made = (struct tape){graph, n};
    if (status != ATTN_OK) {
        gpu_graph_close(graph);
        free(made);
        return status;
    }
    *tape = made;
    return ATTN_OK;
}

static attn_status stop(struct own *o, int n, double *ms, attn_error *err)
{
    attn_status status = gpu_event_record(o->end, o->stream, err);
    if (status == ATTN_OK) {
        status = gpu_event_ms(o->start, o->end, ms, err);
    }
    *ms /= n;
    return status;
}

static attn_status cuda_play(struct bench_place *p, void *tape, double *ms, attn_error *err)
{
    struct own *o = p->own;
    const struct tape *t = tape;
    attn_status status = gpu_event_record(o->start, o->stream, err);
    if (status == ATTN_OK) {
        status = gpu_graph_launch(t->graph, o->stream, err);
    }
    return status == ATTN_OK ? stop(o, t->n, ms, err) : status;
}

static void cuda_drop(struct bench_place *p, void *tape)
{
    struct tape *t = tape;
    (void)p;
    if (t) {
        gpu_graph_close(t->graph);
    }
    free(t);
}

static attn_status cuda_eager(struct bench_place *p, bench_run run, void *ctx, int n, double *ms,
                              attn_error *err)
{
    struct own *o = p->own;
    attn_status status = gpu_event_record(o->start, o->stream, err);
    if (status == ATTN_OK) {
        status = queue(o, run, ctx, n, err);
    }
    return status == ATTN_OK ? stop(o, n, ms, err) : status;
}

static double cuda_floor(const struct bench_place *p, const struct bench_shape *s, uint8_t bits)
{
    return bench_roofline_cuda(&((const struct own *)p->own)->gpu, s, bits);
}

static void cuda_close(struct bench_place *p)
{
    struct own *o = p->own;
    if (!o) {
        return;
    }
    gpu_event_close(o->end);
    gpu_event_close(o->start);
    gpu_stream_close(o->stream);
    gpu_close(&o->gpu);
    free(o);
    p->own = NULL;
}

attn_status bench_place_cuda(const attn_device *device, struct bench_place *p, attn_error *err)
{
    struct own *o = calloc(1, sizeof *o);
    if (!o) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %zu bytes", sizeof *o);
    }
    *p = (struct bench_place){.device = *device,
                              .peer = "org.attnplug.cudnn",
                              .reference = "org.attnplug.cuda_math",
                              .own = o,
                              .alloc = cuda_alloc,
                              .free = cuda_free,
                              .put = cuda_put,
                              .get = cuda_get,
                              .once = cuda_once,
                              .record = cuda_record,
                              .play = cuda_play,
                              .drop = cuda_drop,
                              .eager = cuda_eager,
                              .floor_ms = cuda_floor,
                              .close = cuda_close};
    attn_status status = gpu_open(device->id, &o->gpu, err);
    if (status == ATTN_OK) {
        status = gpu_stream_open(&o->stream, err);
    }
    if (status == ATTN_OK) {
        status = gpu_event_open(&o->start, err);
    }
    if (status == ATTN_OK) {
        status = gpu_event_open(&o->end, err);
    }
    if (status != ATTN_OK) {
        cuda_close(p);
        return status;
    }
    (void)snprintf(p->name, sizeof p->name, "%s", o->gpu.name);
    (void)snprintf(p->versions, sizeof p->versions, "CUDA driver %d.%d", o->gpu.driver / 1000,
                   o->gpu.driver % 1000 / 10);
    p->rotate = 3 * o->gpu.l2;
    p->tape_flop = 2e12;
    return ATTN_OK;
}
