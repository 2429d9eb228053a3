/* call_check.c: an op call checked once, so that no plugin has to be the first to find a fault. */
#include "router.h"

#include <math.h>
#include <string.h>

static const struct {
    uint8_t code, bits;
    uint64_t bit;
    const char *name;
} dtypes[] = {
    {ATTN_CODE_FLOAT, 32, ATTN_DTYPE_F32, "f32"},
    {ATTN_CODE_FLOAT, 16, ATTN_DTYPE_F16, "f16"},
    {ATTN_CODE_BFLOAT, 16, ATTN_DTYPE_BF16, "bf16"},
    {ATTN_CODE_FLOAT, 64, ATTN_DTYPE_F64, "f64"},
};
enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };

static int dtype_of(const attn_tensor *t)
{
    for (int i = 0; i < N_DTYPES; i++) {
        if (t->code == dtypes[i].code && t->bits == dtypes[i].bits && t->lanes == 1) {
            return i;
        }
    }
    return -1;
}

const char *call_dtype_name(const attn_op_call *call)
{
    int i = dtype_of(&call->q);
    return i < 0 ? "unknown" : dtypes[i].name;
}

uint64_t call_dtype_bit(const attn_op_call *call)
{
    int i = dtype_of(&call->q);
    return i < 0 ? 0 : dtypes[i].bit;
}

/* A tensor of the call and what it must look like; optional where rank 0 is fine. */
typedef struct {
    const char *name;
    const attn_tensor *tensor;
    uint32_t rank;
    int64_t shape[4];
    bool optional;
    bool is_float, is_mask, is_f32;
} expectation;

static attn_status check_type(const expectation *e, const attn_op_call *call, attn_error *err)
{
    const attn_tensor *t = e->tensor;
    bool same = t->code == call->q.code && t->bits == call->q.bits && t->lanes == call->q.lanes;
    bool right = e->is_mask    ? t->code == ATTN_CODE_UINT && t->bits == 8 && t->lanes == 1
                 : e->is_f32   ? dtype_of(t) == 0
                 : e->is_float ? dtype_of(t) >= 0
                               : same;
    return right ? ATTN_OK
                 : attn_fail(err, ATTN_INVALID, "%s: element type (%u, %u bits), expected %s",
                             e->name, t->code, t->bits,
                             e->is_mask    ? "8-bit unsigned"
                             : e->is_f32   ? "fp32"
                             : e->is_float ? "a float"
                                           : "that of q");
}

static attn_status check_tensor(const expectation *e, const attn_op_call *call,
                                const attn_device *device, attn_error *err)
{
    const attn_tensor *t = e->tensor;
    if (t->rank == 0 && e->optional) {
        return ATTN_OK;
    }
    if (t->rank != e->rank) {
        return attn_fail(err, ATTN_INVALID, "%s: rank %u, expected %u", e->name, t->rank, e->rank);
    }
    for (uint32_t i = 0; i < e->rank; i++) {
        if (t->shape[i] != e->shape[i]) {
            return attn_fail(err, ATTN_INVALID, "%s: shape[%u] is %lld, expected %lld", e->name, i,
                             (long long)t->shape[i], (long long)e->shape[i]);
        }
    }
    if (t->device_type != device->type || t->device_id != device->id) {
        return attn_fail(err, ATTN_INVALID, "%s: on device %d:%d, expected %d:%d", e->name,
                         t->device_type, t->device_id, device->type, device->id);
    }
    if (t->align & (t->align - 1)) {
        return attn_fail(err, ATTN_INVALID, "%s: align is %u, expected a power of two", e->name,
                         t->align);
    }
    return check_type(e, call, err);
}

static attn_status check_sizes(const attn_op_call *call, attn_error *err)
{
    if (call->q.rank != 4 || call->k.rank != 4 || call->v.rank != 4) {
        return attn_fail(err, ATTN_INVALID, "q, k, v: ranks %u, %u, %u, expected 4 each",
                         call->q.rank, call->k.rank, call->v.rank);
    }
    for (int i = 0; i < 4; i++) {
        if (call->q.shape[i] < 0 || call->k.shape[i] < 0 || call->v.shape[i] < 0) {
            return attn_fail(err, ATTN_INVALID, "q, k, v: shape[%d] is negative in one of them", i);
        }
    }
    int64_t heads = call->q.shape[1], kv_heads = call->k.shape[1];
    if (heads && (kv_heads < 1 || heads % kv_heads)) {
        return attn_fail(err, ATTN_INVALID,
                         "k: shape[1] is %lld heads, expected a divisor of q's %lld",
                         (long long)kv_heads, (long long)heads);
    }
    if (call->q.shape[3] < 1) {
        return attn_fail(err, ATTN_INVALID, "q: shape[3] is 0, expected a head dimension");
    }
    if (!isfinite(call->scale)) {
        return attn_fail(err, ATTN_INVALID, "scale is not a finite number");
    }
    if (dtype_of(&call->q) < 0) {
        return attn_fail(err, ATTN_INVALID,
                         "q: element type (%u, %u bits), expected a float of attn_abi.h",
                         call->q.code, call->q.bits);
    }
    return ATTN_OK;
}

attn_status call_check(const attn_op_call *call, const attn_device *device, attn_error *err)
{
    if (!call || call->size < sizeof *call) {
        return attn_fail(err, ATTN_INVALID, "attn_op_call: size is %u, expected at least %zu",
                         call ? call->size : 0, sizeof *call);
    }
    attn_status status = check_sizes(call, err);
    if (status != ATTN_OK) {
        return status;
    }
    int64_t b = call->q.shape[0], h = call->q.shape[1], nq = call->q.shape[2];
    int64_t d = call->q.shape[3], hk = call->k.shape[1], nk = call->k.shape[2];
    int64_t dv = call->v.shape[3];
    const expectation all[] = {
        {"q", &call->q, 4, {b, h, nq, d}, false, false, false, false},
        {"k", &call->k, 4, {b, hk, nk, d}, false, false, false, false},
        {"v", &call->v, 4, {b, hk, nk, dv}, false, false, false, false},
        {"out", &call->out, 4, {b, h, nq, dv}, false, false, false, false},
        {"bias", &call->bias, 4, {b, h, nq, nk}, true, true, false, false},
        {"mask", &call->mask, 4, {b, h, nq, nk}, true, false, true, false},
        {"lse", &call->lse, 3, {b, h, nq, 0}, true, false, false, true},
        {"key_mass", &call->key_mass, 2, {b, nk, 0, 0}, true, false, false, true},
        {"probs", &call->probs, 4, {b, h, nq, nk}, true, false, false, true},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all && status == ATTN_OK; i++) {
        status = check_tensor(&all[i], call, device, err);
    }
    return status;
}
