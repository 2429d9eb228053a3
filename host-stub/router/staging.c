/* staging.c: an op of another device or element type, run on copies of host tensors. */
#include "staging.h"

#include "device_memory.h"

#include <stdlib.h>
#include <string.h>

enum { TENSORS = 9, FIRST_OUTPUT = 5, ALIGNMENT = 256 };
#define COPIES_MOST (UINT64_C(1) << 56)

struct staging {
    device_memory memory; /* no table: the op reads host memory, `device` is `host` */
    attn_op_call call;    /* data at the device */
    uint64_t offset[TENSORS];
    uint64_t in_bytes, out_bytes, scratch_bytes; /* one after the other */
    char *host;                                  /* inputs and outputs */
    void *device;                                /* inputs, outputs, scratch */
};

/* Inputs, then outputs. */
static attn_tensor *tensor_of(attn_op_call *c, int i)
{
    attn_tensor *const all[TENSORS] = {&c->q,   &c->k,   &c->v,        &c->bias, &c->mask,
                                       &c->out, &c->lse, &c->key_mass, &c->probs};
    return all[i];
}

static const attn_head *head_of(attn_registry *registry, const char *id)
{
    attn_file_info info = {.size = sizeof info};
    for (uint32_t i = 0; attn_registry_file(registry, i, &info) == ATTN_OK; i++) {
        if (info.verdict == ATTN_VERDICT_OK && info.op && strcmp(info.op->id, id) == 0) {
            return info.op;
        }
    }
    return NULL;
}

attn_device staging_device(attn_router *router, const char *id)
{
    const attn_head *head = head_of(router->registry, id);
    /* The op knows its runtime's name; the host has no handles of it to speak of. */
    const attn_device own = {.type = ATTN_DEVICE_EXT};
    bool serves = !head || head->devices >> ATTN_DEVICE_CPU & 1;
    bool is_known = head && head->devices >> ATTN_DEVICE_EXT & 1;
    return router->device.type == ATTN_DEVICE_CPU && !serves && is_known ? own : router->device;
}

/* The type that fp32 is converted to; bits 0: none. */
static attn_tensor type_as(const op_entry *entry, uint32_t flags, const attn_op_call *call)
{
    uint64_t takes = attn_host_op_head(entry->op)->dtypes;
    attn_tensor none = {0};
    if (call_dtype_bit(call) != ATTN_DTYPE_F32 || takes & ATTN_DTYPE_F32) {
        return none;
    }
    if (flags & ATTN_ROUTE_AS_F16 && takes & ATTN_DTYPE_F16) {
        return (attn_tensor){.code = ATTN_CODE_FLOAT, .bits = 16};
    }
    if (flags & ATTN_ROUTE_AS_BF16 && takes & ATTN_DTYPE_BF16) {
        return (attn_tensor){.code = ATTN_CODE_BFLOAT, .bits = 16};
    }
    return none;
}

bool staging_needed(const attn_router *router, const op_entry *entry, uint32_t flags,
                    const attn_op_call *call)
{
    return entry->device.type != router->device.type || type_as(entry, flags, call).bits;
}

/* Dense; what is broadcast stays so. */
static void tensor_stage(attn_tensor *t, const attn_device *device, const attn_tensor *type)
{
    int64_t step = 1;
    t->data = NULL;
    t->align = ALIGNMENT;
    t->device_type = device->type;
    t->device_id = device->id;
    if (type && type->bits && t->code == ATTN_CODE_FLOAT && t->bits == 32) {
        t->code = type->code;
        t->bits = type->bits;
    }
    for (uint32_t i = t->rank; i-- > 0;) {
        bool shared = t->stride[i] == 0 && t->shape[i] > 1;
        t->stride[i] = shared ? 0 : step;
        step *= shared ? 1 : t->shape[i];
    }
}

void staging_call(const op_entry *entry, uint32_t flags, const attn_op_call *call,
                  attn_op_call *staged)
{
    const attn_tensor type = type_as(entry, flags, call);
    *staged = *call;
    staged->size = sizeof *staged;
    staged->scratch = NULL;
    staged->scratch_bytes = 0;
    staged->stream = NULL;
    for (int i = 0; i < TENSORS; i++) {
        if (tensor_of(staged, i)->rank) {
            /* lse, key_mass and probs are fp32 whatever the others are */
            tensor_stage(tensor_of(staged, i), &entry->device, i <= FIRST_OUTPUT ? &type : NULL);
        }
    }
}

/* Of a tensor as tensor_stage left it; no memory has COPIES_MOST, which takes the place of all that
 * is larger. */
static uint64_t staged_bytes(const attn_tensor *t)
{
    uint64_t bytes = t->rank ? t->bits / 8 : 0;
    for (uint32_t i = 0; i < t->rank; i++) {
        uint64_t n = t->stride[i] == 0 && t->shape[i] > 1 ? 1 : (uint64_t)t->shape[i];
        if (__builtin_mul_overflow(bytes, n, &bytes) || bytes > COPIES_MOST) {
            bytes = COPIES_MOST;
        }
    }
    return bytes;
}

static uint64_t round_up(uint64_t bytes)
{
    return (bytes + ALIGNMENT - 1) & ~(uint64_t)(ALIGNMENT - 1);
}

static void regions_take(staging *s)
{
    uint64_t total = 0;
    for (int i = 0; i < TENSORS; i++) {
        if (i == FIRST_OUTPUT) {
            s->in_bytes = total;
        }
        s->offset[i] = total;
        total += round_up(staged_bytes(tensor_of(&s->call, i)));
    }
    s->out_bytes = total - s->in_bytes;
}

static attn_status memory_find(staging *s, const op_entry *entry, attn_error *err)
{
    if (entry->device.type == ATTN_DEVICE_CPU) {
        return ATTN_OK;
    }
    s->memory = device_memory_of(entry->op);
    return s->memory.table
               ? ATTN_OK
               : attn_fail(err, ATTN_UNSUPPORTED,
                           "gives no attn.memory/1: its device cannot be reached from host memory");
}

static attn_status memory_take(staging *s, attn_error *err)
{
    uint64_t copied = s->in_bytes + s->out_bytes, all = copied + s->scratch_bytes;
    uint64_t at_host = s->memory.table ? copied : all;
    s->host = aligned_alloc(ALIGNMENT, round_up(at_host + 1));
    if (!s->host) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %llu bytes of copies",
                         (unsigned long long)at_host);
    }
    if (!s->memory.table) {
        s->device = s->host;
        return ATTN_OK;
    }
    return device_memory_alloc(&s->memory, all ? all : 1, &s->device, err);
}

attn_status staging_create(op_entry *entry, const attn_op_call *staged, uint64_t scratch,
                           staging **out, attn_error *err)
{
    staging *s = calloc(1, sizeof *s);
    if (!s) {
        return attn_fail(err, ATTN_NOMEM, "no memory for copies of a call");
    }
    s->call = *staged;
    s->scratch_bytes = scratch;
    regions_take(s);
    attn_status status = memory_find(s, entry, err);
    if (status == ATTN_OK) {
        status = memory_take(s, err);
    }
    if (status != ATTN_OK) {
        staging_free(s);
        return status;
    }
    for (int i = 0; i < TENSORS; i++) {
        tensor_of(&s->call, i)->data = (char *)s->device + s->offset[i];
    }
    s->call.scratch = scratch ? (char *)s->device + s->in_bytes + s->out_bytes : NULL;
    s->call.scratch_bytes = scratch;
    *out = s;
    return ATTN_OK;
}

void staging_free(staging *s)
{
    if (!s) {
        return;
    }
    device_memory_free(&s->memory, s->device);
    free(s->host);
    free(s);
}

/* A shared axis is copied once. */
static void narrow(attn_tensor *from, attn_tensor *to)
{
    for (uint32_t i = 0; i < to->rank; i++) {
        if (to->stride[i] == 0 && to->shape[i] > 1) {
            from->shape[i] = to->shape[i] = 1;
        }
    }
}

static void copy_between(staging *s, attn_op_call *call, int first, int last)
{
    for (int i = first; i < last; i++) {
        attn_tensor ours = *tensor_of(&s->call, i), theirs = *tensor_of(call, i);
        if (!ours.rank || !staged_bytes(&ours)) {
            continue;
        }
        ours.data = s->host + s->offset[i];
        if (i < FIRST_OUTPUT) {
            narrow(&theirs, &ours);
            staging_copy(&theirs, &ours);
        } else {
            staging_copy(&ours, &theirs);
        }
    }
}

/* Whatever failed, nothing is in flight when this returns. */
static attn_status run_at_device(staging *s, attn_host_op_plan *plan, attn_error *err)
{
    const device_memory *m = &s->memory;
    attn_status status = ATTN_OK;
    if (s->in_bytes) {
        status = device_memory_copy_in(m, s->device, s->host, s->in_bytes, NULL, err);
    }
    if (status == ATTN_OK) {
        status = attn_host_op_run(plan, &s->call, err);
    }
    if (status == ATTN_OK && s->out_bytes) {
        status = device_memory_copy_out(m, s->host + s->in_bytes, (char *)s->device + s->in_bytes,
                                        s->out_bytes, NULL, err);
    }
    attn_status waited = device_memory_synchronize(m, NULL, status == ATTN_OK ? err : NULL);
    return status == ATTN_OK ? waited : status;
}

attn_status staging_run(staging *s, attn_host_op_plan *plan, const attn_op_call *call,
                        attn_error *err)
{
    attn_op_call theirs = *call;
    copy_between(s, &theirs, 0, FIRST_OUTPUT);
    attn_status status =
        s->memory.table ? run_at_device(s, plan, err) : attn_host_op_run(plan, &s->call, err);
    if (status == ATTN_OK) {
        copy_between(s, &theirs, FIRST_OUTPUT, TENSORS);
    }
    return status;
}
