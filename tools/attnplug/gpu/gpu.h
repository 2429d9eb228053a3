/* gpu.h: one NVIDIA GPU for the command's tests and timings: memory, a stream, graphs, events. */
#ifndef ATTNPLUG_GPU_GPU_H
#define ATTNPLUG_GPU_GPU_H

#include "attn_abi.h"

#include <stddef.h>
#include <stdint.h>

struct gpu {
    int ordinal, device; /* the driver's own number */
    char name[128];
    int driver;       /* 13000 is CUDA 13.0 */
    int chip;         /* major * 10 + minor of the compute capability */
    int processors;   /* streaming multiprocessors */
    double clock;     /* Hz, the highest */
    double bandwidth; /* bytes a second, as the memory's clock and width promise */
    size_t l2;        /* bytes */
    void *context;
};

/* ATTN_UNSUPPORTED with the reason where there is no driver or device.  The context is current for
 * this thread. */
attn_status gpu_open(int ordinal, struct gpu *gpu, attn_error *err);
void gpu_close(struct gpu *gpu);
/* Another thread's first call. */
attn_status gpu_enter(const struct gpu *gpu, attn_error *err);

attn_status gpu_alloc(uint64_t bytes, void **data, attn_error *err);
void gpu_free(void *data);
/* Bytes of device memory in nobody's use. */
attn_status gpu_free_bytes(size_t *bytes, attn_error *err);
attn_status gpu_copy_in(void *to, const void *from, size_t bytes, void *stream, attn_error *err);
attn_status gpu_copy_out(void *to, const void *from, size_t bytes, void *stream, attn_error *err);

attn_status gpu_stream_open(void **stream, attn_error *err);
void gpu_stream_close(void *stream);
attn_status gpu_wait(void *stream, attn_error *err);

/* What is queued between the two becomes a graph; calls that cannot be captured fail, and so does
 * the end.  gpu_graph_end ends the capture in any case. */
attn_status gpu_graph_begin(void *stream, attn_error *err);
attn_status gpu_graph_end(void *stream, void **graph, attn_error *err);
attn_status gpu_graph_launch(void *graph, void *stream, attn_error *err);
void gpu_graph_close(void *graph);

attn_status gpu_event_open(void **event, attn_error *err);
void gpu_event_close(void *event);
attn_status gpu_event_record(void *event, void *stream, attn_error *err);
/* Waits for both. */
attn_status gpu_event_ms(void *start, void *end, double *ms, attn_error *err);

/* Device memory with unmapped addresses on both sides: a kernel that leaves it faults. */
struct gpu_guarded {
    unsigned char *data;
    size_t bytes; /* at least what was asked for, whole pages of the device */
    size_t reserved, page;
    uint64_t handle;
};
attn_status gpu_guarded_open(const struct gpu *gpu, size_t bytes, struct gpu_guarded *g,
                             attn_error *err);
void gpu_guarded_close(struct gpu_guarded *g);

#endif
