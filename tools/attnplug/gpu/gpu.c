#include "gpu.h"

#include "driver.h"
#include "error.h"

#include <dlfcn.h>
#include <string.h>

static struct gpu_driver cu;

static attn_status fail(attn_error *err, const char *what, int code)
{
    const char *name = "unknown error", *text = "";
    if (cu.cuGetErrorName(code, &name) != GPU_SUCCESS || cu.cuGetErrorString(code, &text))
        name = "unknown error";
    return attn_fail(err, code == GPU_OUT_OF_MEMORY ? ATTN_NOMEM : ATTN_DEVICE, "cuda: %s: %s (%s)",
                     what, text, name);
}

static attn_status status_of(int code, const char *what, attn_error *err)
{
    return code == GPU_SUCCESS ? ATTN_OK : fail(err, what, code);
}

static attn_status load(attn_error *err)
{
    static const char *const names[] = {
#define GPU_NAME(name, symbol, arguments) symbol,
        GPU_FUNCTIONS(GPU_NAME)
#undef GPU_NAME
    };
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *why = dlerror();
        return attn_fail(err, ATTN_UNSUPPORTED, "cuda: no driver: %s", why ? why : "libcuda.so.1");
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        void *found = dlsym(library, names[i]);
        if (!found)
            return attn_fail(err, ATTN_UNSUPPORTED, "cuda: the driver has no %s, expected 12.0",
                             names[i]);
        memcpy((char *)&cu + i * sizeof found, &found, sizeof found);
    }
    return ATTN_OK;
}

static int attribute(int device, int which)
{
    int value = 0;
    return cu.cuDeviceGetAttribute(&value, which, device) == GPU_SUCCESS ? value : 0;
}

static void describe(struct gpu *gpu)
{
    const int device = gpu->device;
    gpu->chip =
        attribute(device, GPU_ATTRIBUTE_MAJOR) * 10 + attribute(device, GPU_ATTRIBUTE_MINOR);
    gpu->processors = attribute(device, GPU_ATTRIBUTE_PROCESSORS);
    gpu->clock = attribute(device, GPU_ATTRIBUTE_CLOCK_KHZ) * 1e3;
    /* two transfers a clock */
    gpu->bandwidth = attribute(device, GPU_ATTRIBUTE_MEMORY_KHZ) * 1e3 * 2 *
                     attribute(device, GPU_ATTRIBUTE_MEMORY_BITS) / 8;
    gpu->l2 = (size_t)attribute(device, GPU_ATTRIBUTE_L2_BYTES);
    if (cu.cuDeviceGetName(gpu->name, sizeof gpu->name, device) != GPU_SUCCESS)
        (void)snprintf(gpu->name, sizeof gpu->name, "CUDA device %d", gpu->ordinal);
    (void)cu.cuDriverGetVersion(&gpu->driver);
}

attn_status gpu_open(int ordinal, struct gpu *gpu, attn_error *err)
{
    memset(gpu, 0, sizeof *gpu);
    gpu->ordinal = ordinal;
    attn_status status = load(err);
    if (status != ATTN_OK)
        return status;
    int code = cu.cuInit(0);
    if (code != GPU_SUCCESS) {
        (void)fail(err, "starting the driver", code);
        return ATTN_UNSUPPORTED;
    }
    code = cu.cuDeviceGet(&gpu->device, ordinal);
    if (code != GPU_SUCCESS) {
        (void)fail(err, "no such device", code);
        return ATTN_UNSUPPORTED;
    }
    describe(gpu);
    status = status_of(cu.cuPrimaryRetain(&gpu->context, gpu->device), "opening the device", err);
    return status == ATTN_OK ? gpu_enter(gpu, err) : status;
}

void gpu_close(struct gpu *gpu)
{
    if (gpu->context)
        (void)cu.cuPrimaryRelease(gpu->device);
    gpu->context = NULL;
}

attn_status gpu_enter(const struct gpu *gpu, attn_error *err)
{
    return status_of(cu.cuCtxSetCurrent(gpu->context), "making the device current", err);
}

/* -- memory ----------------------------------------------------------------------------------- */

static gpu_address address_of(const void *data)
{
    return (gpu_address)(uintptr_t)data;
}

attn_status gpu_alloc(uint64_t bytes, void **data, attn_error *err)
{
    gpu_address address = 0;
    attn_status status =
        status_of(cu.cuMemAlloc(&address, bytes ? bytes : 1), "taking memory", err);
    *data = (void *)(uintptr_t)address;
    return status;
}

void gpu_free(void *data)
{
    if (data)
        (void)cu.cuMemFree(address_of(data));
}

attn_status gpu_free_bytes(size_t *bytes, attn_error *err)
{
    size_t all;
    return status_of(cu.cuMemGetInfo(bytes, &all), "asking for free memory", err);
}

attn_status gpu_copy_in(void *to, const void *from, size_t bytes, void *stream, attn_error *err)
{
    if (!bytes)
        return ATTN_OK;
    return status_of(cu.cuCopyIn(address_of(to), from, bytes, stream), "copying to the device",
                     err);
}

attn_status gpu_copy_out(void *to, const void *from, size_t bytes, void *stream, attn_error *err)
{
    if (!bytes)
        return ATTN_OK;
    return status_of(cu.cuCopyOut(to, address_of(from), bytes, stream), "copying from the device",
                     err);
}

/* -- streams, graphs, events ------------------------------------------------------------------- */

attn_status gpu_stream_open(void **stream, attn_error *err)
{
    return status_of(cu.cuStreamCreate(stream, GPU_STREAM_NON_BLOCKING), "making a stream", err);
}

void gpu_stream_close(void *stream)
{
    if (stream)
        (void)cu.cuStreamDestroy(stream);
}

attn_status gpu_wait(void *stream, attn_error *err)
{
    return status_of(cu.cuStreamSynchronize(stream), "waiting for the stream", err);
}

attn_status gpu_graph_begin(void *stream, attn_error *err)
{
    return status_of(cu.cuStreamBeginCapture(stream, GPU_CAPTURE_THREAD_LOCAL),
                     "beginning a capture", err);
}

attn_status gpu_graph_end(void *stream, void **graph, attn_error *err)
{
    void *captured = NULL;
    *graph = NULL;
    attn_status status =
        status_of(cu.cuStreamEndCapture(stream, &captured), "ending a capture", err);
    if (status == ATTN_OK)
        status = status_of(cu.cuGraphInstantiate(graph, captured, 0), "compiling a graph", err);
    if (captured)
        (void)cu.cuGraphDestroy(captured);
    return status;
}

attn_status gpu_graph_launch(void *graph, void *stream, attn_error *err)
{
    return status_of(cu.cuGraphLaunch(graph, stream), "launching a graph", err);
}

void gpu_graph_close(void *graph)
{
    if (graph)
        (void)cu.cuGraphExecDestroy(graph);
}

attn_status gpu_event_open(void **event, attn_error *err)
{
    return status_of(cu.cuEventCreate(event, 0), "making an event", err);
}

void gpu_event_close(void *event)
{
    if (event)
        (void)cu.cuEventDestroy(event);
}

attn_status gpu_event_record(void *event, void *stream, attn_error *err)
{
    return status_of(cu.cuEventRecord(event, stream), "recording an event", err);
}

attn_status gpu_event_ms(void *start, void *end, double *ms, attn_error *err)
{
    float value = 0;
    attn_status status = status_of(cu.cuEventSynchronize(end), "waiting for an event", err);
    if (status == ATTN_OK)
        status = status_of(cu.cuEventElapsedTime(&value, start, end), "reading events", err);
    *ms = (double)value;
    return status;
}

/* -- guarded memory ---------------------------------------------------------------------------- */

attn_status gpu_guarded_open(const struct gpu *gpu, size_t bytes, struct gpu_guarded *g,
                             attn_error *err)
{
    const struct gpu_location here = {GPU_LOCATION_DEVICE, gpu->ordinal};
    const struct gpu_allocation what = {.type = GPU_ALLOCATION_PINNED, .location = here};
    const struct gpu_access access = {here, GPU_ACCESS_READ_WRITE};
    gpu_address base = 0;
    memset(g, 0, sizeof *g);
    int code = cu.cuGranularity(&g->page, &what, 0);
    if (code != GPU_SUCCESS)
        return fail(err, "asking for the size of pages", code);
    g->bytes = (bytes + g->page - 1) / g->page * g->page;
    if (!g->bytes)
        g->bytes = g->page;
    g->reserved = g->bytes + 2 * g->page;
    code = cu.cuReserve(&base, g->reserved, 0, 0, 0);
    if (code != GPU_SUCCESS)
        return fail(err, "reserving addresses", code);
    code = cu.cuCreate(&g->handle, g->bytes, &what, 0);
    if (code == GPU_SUCCESS) {
        code = cu.cuMap(base + g->page, g->bytes, 0, g->handle, 0);
        if (code == GPU_SUCCESS) {
            code = cu.cuSetAccess(base + g->page, g->bytes, &access, 1);
            if (code != GPU_SUCCESS)
                (void)cu.cuUnmap(base + g->page, g->bytes);
        }
        if (code != GPU_SUCCESS)
            (void)cu.cuRelease(g->handle);
    }
    if (code != GPU_SUCCESS) {
        (void)cu.cuUnreserve(base, g->reserved);
        return fail(err, "mapping guarded memory", code);
    }
    g->data = (unsigned char *)(uintptr_t)(base + g->page);
    return ATTN_OK;
}

void gpu_guarded_close(struct gpu_guarded *g)
{
    if (!g->data)
        return;
    const gpu_address mapped = address_of(g->data);
    (void)cu.cuUnmap(mapped, g->bytes);
    (void)cu.cuRelease(g->handle);
    (void)cu.cuUnreserve(mapped - g->page, g->reserved);
    memset(g, 0, sizeof *g);
}
