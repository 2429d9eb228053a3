/* memory.c: device memory, uploads and the copies in and out.
 *
 * What comes from host memory goes through two pinned buffers in turn: while the device reads one,
 * the host fills the other, at the speed of memory rather than of page faults of the driver.  What
 * has to be converted or turned on its way lands in a buffer at the device first. */
#include "cuda.h"

#include <stdlib.h>

#define ALIGN 256u

static double mebi(uint64_t bytes)
{
    return (double)bytes / (double)(1u << 20);
}

/* -- blocks ------------------------------------------------------------------------------------ */

attn_status cuda_alloc(void *ctx, uint64_t bytes, void **data, attn_error *err)
{
    struct cuda *c = ctx;
    struct block *b = malloc(sizeof *b);
    void *memory = NULL;
    attn_status status = cuda_current(c, err);
    if (!b || status != ATTN_OK) {
        free(b);
        return status != ATTN_OK ? status : attn_fail(err, ATTN_NOMEM, "no memory for a block");
    }
    cudaError_t code = cudaMalloc(&memory, bytes ? bytes : ALIGN);
    if (code != cudaSuccess) {
        free(b);
        (void)cudaGetLastError();
        size_t available = 0, total = 0;
        if (code != cudaErrorMemoryAllocation || cudaMemGetInfo(&available, &total) != cudaSuccess)
            return cuda_check(err, "allocating memory", code);
        return attn_fail(err, ATTN_NOMEM,
                         "device cuda: out of memory: asked for %.1f MiB, of %.1f MiB %.1f are "
                         "free and this process holds %.1f",
                         mebi(bytes), mebi(total), mebi(available), mebi(c->base.bytes));
    }
    *b = (struct block){.data = memory, .bytes = bytes};
    pthread_mutex_lock(&c->block_lock);
    b->next = c->blocks;
    c->blocks = b;
    pthread_mutex_unlock(&c->block_lock);
    compute_took(&c->base, bytes);
    *data = memory;
    return ATTN_OK;
}

void cuda_free(void *ctx, void *data)
{
    struct cuda *c = ctx;
    if (!data)
        return;
    pthread_mutex_lock(&c->block_lock);
    struct block **at = &c->blocks;
    while (*at && (*at)->data != data)
        at = &(*at)->next;
    struct block *b = *at;
    if (b)
        *at = b->next;
    pthread_mutex_unlock(&c->block_lock);
    if (b)
        compute_gave(&c->base, b->bytes);
    if (b && cuda_current(c, NULL) == ATTN_OK)
        (void)cudaFree(b->data); /* waits for the work that reads it */
    free(b);
}

/* -- slabs ------------------------------------------------------------------------------------- */

static uint64_t rounded(uint64_t bytes)
{
    return (bytes + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
}

/* Memory for an upload: of the slab that is being filled, or its own where it is large. */
static attn_status upload_take(struct cuda *c, uint64_t bytes, void **data, attn_error *err)
{
    if (rounded(bytes) > SLAB_MOST)
        return cuda_alloc(c, bytes, data, err);
    pthread_mutex_lock(&c->slab_lock);
    attn_status status = ATTN_OK;
    struct slab *s = c->slabs;
    if (!s || SLAB_BYTES - s->used < rounded(bytes)) {
        void *memory = NULL;
        s = calloc(1, sizeof *s);
        status = s ? cuda_alloc(c, SLAB_BYTES, &memory, err)
                   : attn_fail(err, ATTN_NOMEM, "no memory for a slab");
        if (status == ATTN_OK) {
            s->data = memory;
            s->next = c->slabs;
            c->slabs = s;
        } else {
            free(s);
        }
    }
    if (status == ATTN_OK) {
        *data = s->data + s->used;
        s->used += rounded(bytes);
        ++s->live;
    }
    pthread_mutex_unlock(&c->slab_lock);
    return status;
}

/* The last upload gives its room back; a slab that holds none goes. */
static void upload_give(struct cuda *c, void *data, uint64_t bytes)
{
    char *at = data;
    pthread_mutex_lock(&c->slab_lock);
    struct slab **link = &c->slabs;
    while (*link && !(at >= (*link)->data && at < (*link)->data + SLAB_BYTES))
        link = &(*link)->next;
    struct slab *s = *link;
    if (s && at + rounded(bytes) == s->data + s->used)
        s->used -= rounded(bytes);
    if (s && --s->live == 0) {
        *link = s->next;
        cuda_free(c, s->data);
        free(s);
    }
    pthread_mutex_unlock(&c->slab_lock);
    if (!s)
        cuda_free(c, data);
}

void cuda_slabs_close(struct cuda *c)
{
    for (struct slab *s = c->slabs, *next; s; s = next) {
        next = s->next;
        free(s); /* its memory is a block */
    }
}

/* -- staging ----------------------------------------------------------------------------------- */

void cuda_stages_close(struct cuda *c)
{
    for (int i = 0; i < 2; ++i) {
        if (c->stages[i].free)
            (void)cudaEventDestroy(c->stages[i].free);
        if (c->stages[i].host)
            (void)cudaFreeHost(c->stages[i].host);
        c->stages[i] = (struct stage){0};
    }
}

static attn_status stages_open(struct cuda *c, attn_error *err)
{
    attn_status status = ATTN_OK;
    for (int i = 0; i < 2 && status == ATTN_OK; ++i) {
        struct stage *s = &c->stages[i];
        if (!s->host)
            status = cuda_check(err, "pinning host memory", cudaMallocHost(&s->host, STAGE_BYTES));
        if (status == ATTN_OK && !s->free)
            status = cuda_check(err, "making an event",
                                cudaEventCreateWithFlags(&s->free, cudaEventDisableTiming));
    }
    return status;
}

static attn_status landing_open(struct cuda *c, attn_error *err)
{
    return c->landing ? ATTN_OK : cuda_alloc(c, STAGE_BYTES, &c->landing, err);
}

/* Bytes that fit one stage, by way of a pinned buffer. */
static attn_status stage_send(struct cuda *c, const void *host, void *to, uint64_t bytes,
                              attn_error *err)
{
    struct stage *s = &c->stages[c->next_stage++ % 2];
    cudaStream_t stream = (cudaStream_t)c->base.stream;
    cudaError_t code = cudaEventSynchronize(s->free);
    if (code == cudaSuccess) {
        memcpy(s->host, host, bytes);
        code = cudaMemcpyAsync(to, s->host, bytes, cudaMemcpyHostToDevice, stream);
    }
    if (code == cudaSuccess)
        code = cudaEventRecord(s->free, stream);
    return cuda_check(err, "copying to the device", code);
}

static attn_tensor part_of(const attn_tensor *t, int64_t first, int64_t n)
{
    attn_tensor part = *t;
    part.shape[0] = n;
    part.data = (char *)t->data + first * t->stride[0] * (t->bits / 8);
    return part;
}

/* Without its first dimension, which is of size 1. */
static attn_tensor inner_of(const attn_tensor *t)
{
    attn_tensor inner = *t;
    inner.rank = t->rank - 1;
    memmove(inner.shape, t->shape + 1, inner.rank * sizeof *t->shape);
    memmove(inner.stride, t->stride + 1, inner.rank * sizeof *t->stride);
    return inner;
}

/* A part that fits one stage. */
static attn_status part_send(struct cuda *c, const attn_tensor *host, const attn_tensor *dst,
                             attn_error *err)
{
    if (tensor_is(host, dst->code, dst->bits) && tensor_contiguous(dst))
        return stage_send(c, host->data, dst->data, tensor_bytes(host), err);
    attn_status status = landing_open(c, err);
    if (status == ATTN_OK)
        status = stage_send(c, host->data, c->landing, tensor_bytes(host), err);
    if (status != ATTN_OK)
        return status;
    attn_tensor landed = *host;
    landed.data = c->landing;
    landed.device_type = dst->device_type;
    landed.device_id = dst->device_id;
    landed.align = ALIGN;
    return cuda_check(err, "converting a copy", kernels()->copy(&landed, dst, c->base.stream));
}

static attn_status parts_send(struct cuda *c, const attn_tensor *host, const attn_tensor *dst,
                              attn_error *err)
{
    attn_status status = ATTN_OK;
    if (!tensor_count(host))
        return status;
    uint64_t each = tensor_bytes(host) / (uint64_t)host->shape[0];
    if (each > STAGE_BYTES) { /* rank > 1: one element fits */
        for (int64_t i = 0; i < host->shape[0] && status == ATTN_OK; ++i) {
            attn_tensor from = part_of(host, i, 1), to = part_of(dst, i, 1);
            from = inner_of(&from);
            to = inner_of(&to);
            status = parts_send(c, &from, &to, err);
        }
        return status;
    }
    int64_t most = (int64_t)(STAGE_BYTES / each);
    for (int64_t i = 0; i < host->shape[0] && status == ATTN_OK; i += most) {
        int64_t n = host->shape[0] - i < most ? host->shape[0] - i : most;
        attn_tensor from = part_of(host, i, n), to = part_of(dst, i, n);
        status = part_send(c, &from, &to, err);
    }
    return status;
}

attn_status cuda_send(struct cuda *c, const attn_tensor *host, const attn_tensor *dst,
                      attn_error *err)
{
    attn_status status = cuda_current(c, err);
    if (status != ATTN_OK)
        return status;
    if (!tensor_contiguous(host) || (!tensor_is(host, dst->code, dst->bits) &&
                                     !(tensor_is_float(host) && tensor_is_float(dst))))
        return attn_fail(err, ATTN_UNSUPPORTED, "upload: %s does not convert to %s",
                         tensor_describe(host).text, tensor_describe(dst).text);
    pthread_mutex_lock(&c->stage_lock);
    status = stages_open(c, err);
    if (status == ATTN_OK)
        status = parts_send(c, host, dst, err);
    pthread_mutex_unlock(&c->stage_lock);
    return status;
}

/* -- compute's memory -------------------------------------------------------------------------- */

attn_status cuda_upload(struct compute *base, const attn_tensor *host, const attn_tensor *dtype,
                        attn_tensor *out, attn_error *err)
{
    struct cuda *c = (struct cuda *)base;
    attn_tensor t = tensor_of(NULL, dtype ? dtype : &base->dtype, host->rank, host->shape);
    t.device_type = base->device.type;
    t.device_id = base->device.id;
    t.align = ALIGN;
    attn_status status = upload_take(c, tensor_bytes(&t), &t.data, err);
    if (status != ATTN_OK)
        return status;
    status = cuda_send(c, host, &t, err);
    if (status != ATTN_OK) {
        upload_give(c, t.data, tensor_bytes(&t));
        return status;
    }
    *out = t;
    return ATTN_OK;
}

void cuda_unload(struct compute *base, attn_tensor *t)
{
    if (tensor_here(t) && t->data)
        upload_give((struct cuda *)base, t->data, tensor_bytes(t));
    *t = (attn_tensor){0};
}

static attn_status check_transfer(attn_work *w, const char *what, const attn_tensor *src,
                                  const attn_tensor *dst)
{
    bool same = src->code == dst->code && src->bits == dst->bits;
    if (w->status == ATTN_OK &&
        (!tensor_same_shape(src, dst) || !tensor_contiguous(src) || !tensor_contiguous(dst) ||
         (!same && !(tensor_is_float(src) && tensor_is_float(dst)))))
        work_fail(w, ATTN_INVALID, "%s: %s to %s: expected contiguous tensors of one shape", what,
                  tensor_describe(src).text, tensor_describe(dst).text);
    return w->status;
}

attn_status cuda_write(attn_work *w, const attn_tensor *host, const attn_tensor *dst)
{
    if (check_transfer(w, "write", host, dst) != ATTN_OK || work_dry(w))
        return w->status;
    ATTN_ERROR_ON(why, 256);
    attn_status status = cuda_send(cuda_of(w), host, dst, &why);
    return status == ATTN_OK ? w->status : work_fail(w, status, "%s", why.text);
}

attn_status cuda_read(attn_work *w, const attn_tensor *src, const attn_tensor *host)
{
    if (check_transfer(w, "read", src, host) != ATTN_OK)
        return w->status;
    uint64_t mark = work_mark(w);
    attn_tensor from = *src;
    if (!tensor_is(src, host->code, host->bits)) {
        from = work_take(w, host, src->rank, src->shape);
        if (!work_dry(w) && w->status == ATTN_OK)
            work_check(w, "converting a copy", kernels()->copy(src, &from, w->stream));
    }
    if (!work_dry(w) && w->status == ATTN_OK && tensor_count(src))
        work_check(w, "copying to the host",
                   cudaMemcpyAsync(host->data, from.data, tensor_bytes(host),
                                   cudaMemcpyDeviceToHost, stream_of(w)));
    work_reset(w, mark);
    return w->status;
}

attn_status cuda_synchronize(attn_work *w)
{
    if (w->status != ATTN_OK || work_dry(w))
        return w->status;
    return work_check(w, "waiting for the stream", cudaStreamSynchronize(stream_of(w)));
}
