/* memory.c: memory, uploads and the copies in and out.  Host memory is device memory here. */
#include "cpu.h"

#include <stdlib.h>

#define ALIGN 256u

static attn_status block_take(struct cpu *c, uint64_t bytes, void **data, attn_error *err)
{
    uint64_t rounded = (bytes + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
    struct block *b = malloc(sizeof *b);
    void *memory = rounded >= bytes ? aligned_alloc(ALIGN, rounded ? rounded : ALIGN) : NULL;
    if (!b || !memory) {
        free(b);
        free(memory);
        return attn_fail(err, ATTN_NOMEM, "no memory: %llu bytes", (unsigned long long)bytes);
    }
    *b = (struct block){.data = memory, .bytes = bytes};
    pthread_mutex_lock(&c->lock);
    b->next = c->blocks;
    c->blocks = b;
    pthread_mutex_unlock(&c->lock);
    compute_took(&c->base, bytes);
    *data = memory;
    return ATTN_OK;
}

/* False if the memory is somebody else's. */
static bool block_give(struct cpu *c, void *data)
{
    pthread_mutex_lock(&c->lock);
    struct block **at = &c->blocks;
    while (*at && (*at)->data != data)
        at = &(*at)->next;
    struct block *b = *at;
    if (b)
        *at = b->next;
    pthread_mutex_unlock(&c->lock);
    if (!b)
        return false;
    cpu_weights_forget(c, b->data, b->bytes);
    compute_gave(&c->base, b->bytes);
    free(b->data);
    free(b);
    return true;
}

attn_status cpu_alloc(void *ctx, uint64_t bytes, void **data, attn_error *err)
{
    return block_take(ctx, bytes, data, err);
}

void cpu_free(void *ctx, void *data)
{
    if (data)
        (void)block_give(ctx, data);
}

attn_status cpu_upload(struct compute *c, const attn_tensor *host, const attn_tensor *dtype,
                       attn_tensor *out, attn_error *err)
{
    struct cpu *cpu = (struct cpu *)c;
    const attn_tensor *type = dtype ? dtype : &c->dtype;
    attn_tensor t = tensor_of(host->data, type, host->rank, host->shape);
    t.device_type = c->device.type;
    t.device_id = c->device.id;
    bool same = tensor_is(host, type->code, type->bits);
    if (!same && !(tensor_is_float(host) && tensor_is_float(type)))
        return attn_fail(err, ATTN_UNSUPPORTED, "upload: %s does not convert to %s",
                         tensor_describe(host).text, tensor_describe(&t).text);
    if (same && tensor_contiguous(host) && (uintptr_t)host->data % (t.bits / 8u) == 0) {
        *out = t;
        return ATTN_OK;
    }
    if (!tensor_is_float(host) && !tensor_contiguous(host))
        return attn_fail(err, ATTN_UNSUPPORTED, "upload: %s is not contiguous",
                         tensor_describe(host).text);
    attn_status status = block_take(cpu, tensor_bytes(&t), &t.data, err);
    if (status != ATTN_OK)
        return status;
    t.align = ALIGN;
    if (same && tensor_contiguous(host))
        memcpy(t.data, host->data, tensor_bytes(&t));
    else
        copy_convert(cpu, host, &t);
    *out = t;
    return ATTN_OK;
}

void cpu_unload(struct compute *c, attn_tensor *t)
{
    if (tensor_here(t) && t->data && !block_give((struct cpu *)c, t->data))
        cpu_weights_forget((struct cpu *)c, t->data, tensor_bytes(t));
    *t = (attn_tensor){0};
}

/* Same shapes; integers keep their type. */
static attn_status transfer(attn_work *w, const char *what, const attn_tensor *src,
                            const attn_tensor *dst)
{
    if (w->status != ATTN_OK)
        return w->status;
    bool same = src->code == dst->code && src->bits == dst->bits;
    if (!tensor_same_shape(src, dst) || !tensor_contiguous(src) || !tensor_contiguous(dst) ||
        (!same && !(tensor_is_float(src) && tensor_is_float(dst))))
        return work_fail(w, ATTN_INVALID, "%s: %s to %s: expected contiguous tensors of one shape",
                         what, tensor_describe(src).text, tensor_describe(dst).text);
    if (work_dry(w))
        return ATTN_OK;
    if (same)
        memcpy(dst->data, src->data, tensor_bytes(src));
    else
        copy_convert(cpu_of(w), src, dst);
    return ATTN_OK;
}

attn_status cpu_write(attn_work *w, const attn_tensor *host, const attn_tensor *dst)
{
    return transfer(w, "write", host, dst);
}

attn_status cpu_read(attn_work *w, const attn_tensor *src, const attn_tensor *host)
{
    return transfer(w, "read", src, host);
}

attn_status cpu_synchronize(attn_work *w)
{
    return w->status;
}
