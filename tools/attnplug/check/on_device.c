#include "on_device.h"

#include "../gpu/gpu.h"
#include "error.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A thread's own stream and device memory, kept from case to case until the process ends. */
struct mirror {
    int entered;
    void *stream;
    struct gpu_guarded slots[BUF_COUNT];
};

static _Thread_local struct mirror mirror;

attn_status device_open(const attn_device *device, struct gpu **gpu, attn_error *err)
{
    *gpu = NULL;
    if (device->type == ATTN_DEVICE_CPU)
        return ATTN_OK;
    if (device->type != ATTN_DEVICE_CUDA)
        return attn_fail(err, ATTN_UNSUPPORTED, "check: device \"%s\", expected cpu or cuda",
                         device->runtime);
    struct gpu *made = malloc(sizeof *made);
    if (!made)
        return attn_fail(err, ATTN_NOMEM, "no memory for %zu bytes", sizeof *made);
    attn_status status = gpu_open(device->id, made, err);
    if (status == ATTN_OK)
        *gpu = made;
    else
        free(made);
    return status;
}

/* A buffer's pages on the host, without the unreadable ones around them. */
struct pages {
    unsigned char *data;
    size_t bytes, offset; /* offset: of the lowest address that the case asked for */
};

static struct pages pages_of(const struct guard *g)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct pages p = {g->base + page, g->mapped - 2 * page, 0};
    p.offset = (size_t)(g->data - p.data);
    return p;
}

/* Where the pages go: to the slot's end, or to its beginning if the case wants the guard there. */
static unsigned char *place(const struct gpu_guarded *slot, const struct pages *p)
{
    return p->offset == 0 ? slot->data : slot->data + slot->bytes - p->bytes;
}

/* Scratch, or a tensor's element 0: not the lowest address where a stride is negative. */
static unsigned char *begin_of(const struct op_case *c, int b)
{
    return b == BUF_SCRATCH ? c->buffers[b].data : c->tensors[b]->data;
}

static attn_status mirror_in(const struct check *k, struct op_case *c, void *data[BUF_COUNT],
                             attn_error *err)
{
    attn_status status = ATTN_OK;
    if (!mirror.entered) {
        status = gpu_enter(k->gpu, err);
        mirror.entered = status == ATTN_OK;
    }
    if (status == ATTN_OK && !mirror.stream)
        status = gpu_stream_open(&mirror.stream, err);
    for (int b = 0; b < BUF_COUNT && status == ATTN_OK; b++) {
        struct gpu_guarded *slot = &mirror.slots[b];
        data[b] = NULL;
        if (!c->buffers[b].base)
            continue;
        const struct pages p = pages_of(&c->buffers[b]);
        if (slot->bytes < p.bytes) {
            gpu_guarded_close(slot);
            status = gpu_guarded_open(k->gpu, p.bytes, slot, err);
        }
        if (status == ATTN_OK) {
            status = gpu_copy_in(place(slot, &p), p.data, p.bytes, mirror.stream, err);
            data[b] = place(slot, &p) + (begin_of(c, b) - p.data);
        }
    }
    return status == ATTN_OK ? gpu_wait(mirror.stream, err) : status;
}

static attn_status mirror_out(struct op_case *c, attn_error *err)
{
    attn_status status = gpu_wait(mirror.stream, err);
    for (int b = 0; b < BUF_COUNT && status == ATTN_OK; b++) {
        if (!c->buffers[b].base)
            continue;
        const struct pages p = pages_of(&c->buffers[b]);
        status = gpu_copy_out(p.data, place(&mirror.slots[b], &p), p.bytes, mirror.stream, err);
    }
    return status == ATTN_OK ? gpu_wait(mirror.stream, err) : status;
}

/* The case's call with the mirrors' addresses. */
static attn_op_call call_on(const struct op_case *c, void *const data[BUF_COUNT])
{
    attn_op_call call = c->call;
    for (int b = 0; b < BUF_SCRATCH; b++) {
        const size_t at = (size_t)((const char *)c->tensors[b] - (const char *)&c->call);
        ((attn_tensor *)(void *)((char *)&call + at))->data = data[b];
    }
    call.scratch = data[BUF_SCRATCH];
    call.stream = mirror.stream;
    return call;
}

static attn_status run_captured(const struct check *k, attn_op_plan *plan, const attn_op_call *call,
                                attn_error *err)
{
    void *graph = NULL;
    attn_status status = gpu_graph_begin(mirror.stream, err);
    if (status != ATTN_OK)
        return status;
    status = k->op->run(plan, call, err);
    attn_status ended = gpu_graph_end(mirror.stream, &graph, status == ATTN_OK ? err : NULL);
    if (status == ATTN_OK)
        status = ended;
    if (status == ATTN_OK)
        status = gpu_graph_launch(graph, mirror.stream, err);
    if (status == ATTN_OK)
        status = gpu_wait(mirror.stream, err);
    gpu_graph_close(graph);
    return status;
}

attn_status case_execute(const struct check *k, attn_op_plan *plan, struct op_case *c,
                         attn_error *err)
{
    void *data[BUF_COUNT];
    if (!k->gpu)
        return k->op->run(plan, &c->call, err);
    attn_status status = mirror_in(k, c, data, err);
    if (status != ATTN_OK)
        return status;
    const attn_op_call call = call_on(c, data);
    const int captured = c->index % 2 == 1 && (k->op->head.flags & ATTN_HEAD_CAPTURABLE);
    status = captured ? run_captured(k, plan, &call, err) : k->op->run(plan, &call, err);
    return status == ATTN_OK ? mirror_out(c, err) : status;
}

attn_status case_execute_counted(const struct check *k, attn_op_plan *plan, struct op_case *c,
                                 size_t *taken, attn_error *err)
{
    void *data[BUF_COUNT];
    *taken = 0;
    if (!k->gpu)
        return k->op->run(plan, &c->call, err);
    attn_status status = mirror_in(k, c, data, err);
    if (status != ATTN_OK)
        return status;
    const attn_op_call call = call_on(c, data);
    const size_t before = device_free_bytes(k);
    status = k->op->run(plan, &call, err);
    const size_t after = device_free_bytes(k);
    *taken = before > after ? before - after : 0;
    return status == ATTN_OK ? mirror_out(c, err) : status;
}

size_t device_free_bytes(const struct check *k)
{
    size_t bytes = 0;
    return k->gpu && gpu_free_bytes(&bytes, NULL) == ATTN_OK ? bytes : 0;
}
