/* cuda.c: compute on one NVIDIA GPU, in fp32, fp16 or bf16: opening and closing it. */
#include "cuda.h"
#include "compute_cuda.h"

#include <stdlib.h>

attn_status cuda_check(attn_error *err, const char *what, int code)
{
    if (code == 0)
        return ATTN_OK;
    (void)cudaGetLastError(); /* one that is not sticky must not be met again */
    if (err && err->size >= sizeof *err)
        err->vendor_code = code;
    return attn_fail(err, code == cudaErrorMemoryAllocation ? ATTN_NOMEM : ATTN_DEVICE,
                     "device cuda: %s: %s", what, cudaGetErrorString((cudaError_t)code));
}

attn_status work_check(attn_work *w, const char *what, int code)
{
    if (code == 0)
        return w->status;
    (void)cudaGetLastError();
    return work_fail(w, code == cudaErrorMemoryAllocation ? ATTN_NOMEM : ATTN_DEVICE,
                     "device cuda: %s: %s", what, cudaGetErrorString((cudaError_t)code));
}

attn_status cuda_current(struct cuda *c, attn_error *err)
{
    return cuda_check(err, "making the device current", cudaSetDevice(c->base.device.id));
}

/* -- closing ----------------------------------------------------------------------------------- */

static void blocks_free(struct cuda *c)
{
    for (struct block *b = c->blocks, *next; b; b = next) {
        next = b->next;
        (void)cudaFree(b->data);
        free(b);
    }
}

static void destroy(struct compute *base)
{
    struct cuda *c = (struct cuda *)base;
    if (!c)
        return;
    processors_close(base);
    if (base->router)
        (void)attn_router_close(base->router);
    if (base->stream && cuda_current(c, NULL) == ATTN_OK) {
        (void)cudaStreamSynchronize((cudaStream_t)base->stream);
        cuda_stages_close(c);
        cuda_slabs_close(c);
        blocks_free(c);
    }
    if (c->dnn)
        (void)c->lib.cudnnDestroy(c->dnn);
    if (c->blas)
        (void)c->lib.cublasLtDestroy(c->blas);
    if (base->stream)
        (void)cudaStreamDestroy((cudaStream_t)base->stream);
    pthread_mutex_destroy(&c->stage_lock);
    pthread_mutex_destroy(&c->slab_lock);
    pthread_mutex_destroy(&c->block_lock);
    pthread_mutex_destroy(&c->dnn_lock);
    free(c);
}

static uint64_t free_bytes(struct compute *base)
{
    size_t available = 0, total = 0;
    if (cuda_current((struct cuda *)base, NULL) != ATTN_OK ||
        cudaMemGetInfo(&available, &total) != cudaSuccess)
        return 0;
    return available;
}

static const struct compute_api cuda_api = {
    .name = "cuda",
    .destroy = destroy,
    .free_bytes = free_bytes,
    .upload = cuda_upload,
    .unload = cuda_unload,
    .write = cuda_write,
    .read = cuda_read,
    .synchronize = cuda_synchronize,
    .replay = cuda_replay,
    .mix = cuda_mix,
    .pick = cuda_pick,
    .advance = cuda_advance,
    .conv_create = cuda_conv_create,
    .conv_destroy = cuda_conv_destroy,
    .conv = cuda_conv,
    .linear = cuda_linear_epilogue,
    .geglu = cuda_geglu,
    .norm = cuda_norm,
    .activate = cuda_activate,
    .upsample = cuda_upsample,
    .embed = cuda_embed,
    .timestep = cuda_timestep,
    .sag_degrade = cuda_sag_degrade,
};

/* -- opening ----------------------------------------------------------------------------------- */

static const void *query(void *ctx, const char *id)
{
    const struct cuda *c = ctx;
    if (strcmp(id, "attnplug.sum/1") == 0)
        return &c->sum;
    return strcmp(id, "attn.compute/1") ? NULL : &c->base.plugin;
}

static attn_status sum(void *ctx, void *stream, float a, const attn_tensor *x, float b,
                       const attn_tensor *y, attn_error *err)
{
    attn_status status = cuda_current(ctx, err);
    return status == ATTN_OK ? cuda_check(err, "adding", kernels()->combine(a, x, b, y, y, stream))
                             : status;
}

static void log_line(void *ctx, int32_t level, const char *text)
{
    const struct cuda *c = ctx;
    if (c->base.log)
        c->base.log(c->base.log_ctx, level, text);
}

/* The work is at the device: one host thread queues it. */
static void in_caller(void *ctx, int64_t n, int64_t grain,
                      void (*body)(void *arg, int64_t begin, int64_t end, uint32_t thread),
                      void *arg)
{
    (void)ctx;
    (void)grain;
    if (n > 0)
        body(arg, 0, n, 0);
}

static void fill(struct cuda *c, int32_t id, const attn_tensor *dtype)
{
    struct compute *base = &c->base;
    base->api = &cuda_api;
    base->device = (attn_device){.type = ATTN_DEVICE_CUDA, .id = id, .runtime = "cuda"};
    base->dtype = (attn_tensor){.code = dtype->code, .bits = dtype->bits, .lanes = 1};
    c->sum = (attn_device_sum){.size = sizeof c->sum, .ctx = c, .sum = sum};
    base->host.size = sizeof base->host;
    base->host.ctx = c;
    base->host.max_threads = 1;
    base->host.parallel_for = in_caller;
    base->host.query = query;
    base->host.log = log_line;
    base->plugin = (attn_compute){.size = sizeof(attn_compute),
                                  .ctx = c,
                                  .alloc = cuda_alloc,
                                  .free = cuda_free,
                                  .linear = cuda_linear,
                                  .norm = cuda_plugin_norm,
                                  .attend = work_attend,
                                  .combine = cuda_combine,
                                  .copy = cuda_copy,
                                  .fill = cuda_fill};
}

static attn_status device_find(struct cuda *c, attn_error *err)
{
    int count = 0, id = c->base.device.id;
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code != cudaSuccess || count < 1) {
        (void)cudaGetLastError();
        return attn_fail(err, ATTN_UNSUPPORTED, "device cuda: no NVIDIA GPU that can be used: %s",
                         code == cudaSuccess ? "the driver sees none" : cudaGetErrorString(code));
    }
    if (id < 0 || id >= count)
        return attn_fail(err, ATTN_UNSUPPORTED, "device cuda:%d does not exist, expected 0 to %d",
                         id, count - 1);
    code = cudaGetDeviceProperties(&c->properties, id);
    if (code != cudaSuccess)
        return cuda_check(err, "reading the device's properties", code);
    if (c->properties.major < 8)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         "device cuda: %s has compute capability %d.%d, expected at least 8.0",
                         c->properties.name, c->properties.major, c->properties.minor);
    return ATTN_OK;
}

static attn_status handles_open(struct cuda *c, attn_error *err)
{
    cudaStream_t stream = NULL;
    attn_status status = cuda_check(err, "making a stream",
                                    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    if (status != ATTN_OK)
        return status;
    c->base.stream = stream;
    cublasStatus_t blas = c->lib.cublasLtCreate(&c->blas);
    if (blas != CUBLAS_STATUS_SUCCESS)
        return attn_fail(err, blas_status(blas), "device cuda: cublasLtCreate: %s",
                         c->lib.cublasLtGetStatusString(blas));
    cudnnStatus_t dnn = c->lib.cudnnCreate(&c->dnn);
    if (dnn != CUDNN_STATUS_SUCCESS)
        return attn_fail(err, dnn_status(dnn), "device cuda: cudnnCreate: %s",
                         c->lib.cudnnGetErrorString(dnn));
    return cuda_alloc(c, WORKSPACE_BYTES, &c->workspace, err);
}

attn_status compute_cuda_create(attn_registry *registry, int32_t id, const attn_tensor *dtype,
                                struct compute **out, attn_error *err)
{
    struct cuda *c = calloc(1, sizeof *c);
    if (!c)
        return attn_fail(err, ATTN_NOMEM, "no memory for the GPU's compute");
    (void)pthread_mutex_init(&c->dnn_lock, NULL); /* these cannot fail on Linux */
    (void)pthread_mutex_init(&c->block_lock, NULL);
    (void)pthread_mutex_init(&c->slab_lock, NULL);
    (void)pthread_mutex_init(&c->stage_lock, NULL);
    fill(c, id, dtype);
    attn_status status = device_find(c, err);
    if (status == ATTN_OK)
        status = cuda_libraries_open(&c->lib, err);
    if (status == ATTN_OK)
        status = cuda_current(c, err);
    if (status == ATTN_OK)
        status = handles_open(c, err);
    if (status == ATTN_OK && registry)
        status = attn_router_open(registry, &c->base.device, &c->base.host, &c->base.router, err);
    if (status != ATTN_OK) {
        destroy(&c->base);
        return status;
    }
    *out = &c->base;
    return ATTN_OK;
}
