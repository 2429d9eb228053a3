/* op_call.h: whether an op call keeps the contract of attn_abi.h section 3, and its shape. */
#ifndef ATTN_COMMON_OP_CALL_H
#define ATTN_COMMON_OP_CALL_H

#include "attn_abi.h"
#include "error.h"

#include <math.h>

struct op_shape {
    int64_t batch, heads, kv_heads, nq, nk, d, dv;
    float scale;
};

static inline uint64_t op_dtype(const attn_tensor *t)
{
    if (t->lanes != 1)
        return 0;
    if (t->code == ATTN_CODE_FLOAT)
        return t->bits == 32   ? ATTN_DTYPE_F32
               : t->bits == 16 ? ATTN_DTYPE_F16
               : t->bits == 64 ? ATTN_DTYPE_F64
                               : 0;
    return t->code == ATTN_CODE_BFLOAT && t->bits == 16 ? ATTN_DTYPE_BF16 : 0;
}

/* One tensor against the shape that the call's others give it, and where it lies: `q` says where.
 */
static inline attn_status op_tensor_check(const char *who, const char *name, const attn_tensor *t,
                                          const attn_tensor *q, uint32_t rank, const int64_t *shape,
                                          attn_error *err)
{
    if (t->rank != rank)
        return attn_fail(err, ATTN_INVALID, "%s: %s has rank %u, expected %u", who, name, t->rank,
                         rank);
    for (uint32_t i = 0; i < rank; i++)
        if (t->shape[i] != shape[i] || t->shape[i] < 0)
            return attn_fail(err, ATTN_INVALID, "%s: %s has %lld in dimension %u, expected %lld",
                             who, name, (long long)t->shape[i], i,
                             (long long)(shape[i] < 0 ? 0 : shape[i]));
    if (t->device_type != q->device_type || t->device_id != q->device_id)
        return attn_fail(err, ATTN_INVALID, "%s: %s is on device %d:%d, expected q's %d:%d", who,
                         name, t->device_type, t->device_id, q->device_type, q->device_id);
    return ATTN_OK;
}

static inline int op_tensor_empty(const attn_tensor *t)
{
    for (uint32_t i = 0; i < t->rank; i++)
        if (t->shape[i] == 0)
            return 1;
    return t->rank == 0;
}

/* No two elements of an output share an address. */
static inline attn_status op_output_check(const char *who, const char *name, const attn_tensor *t,
                                          attn_error *err)
{
    for (uint32_t i = 0; i < t->rank && !op_tensor_empty(t); i++)
        if (t->shape[i] > 1 && t->stride[i] == 0)
            return attn_fail(err, ATTN_INVALID,
                             "%s: %s has stride 0 in dimension %u, expected another in an output",
                             who, name, i);
    return ATTN_OK;
}

static inline attn_status op_type_fail(const char *who, const char *name, const attn_tensor *t,
                                       attn_status status, const char *expected, attn_error *err)
{
    return attn_fail(err, status, "%s: %s has type code %u bits %u lanes %u, expected %s", who,
                     name, t->code, t->bits, t->lanes, expected);
}

/* A float: one that the contract has and we do not is another op's to take. */
static inline attn_status op_float_check(const char *who, const char *name, const attn_tensor *t,
                                         attn_error *err)
{
    const uint64_t dtype = op_dtype(t);
    if (dtype & (ATTN_DTYPE_F32 | ATTN_DTYPE_F16 | ATTN_DTYPE_BF16))
        return ATTN_OK;
    return op_type_fail(who, name, t, dtype ? ATTN_UNSUPPORTED : ATTN_INVALID,
                        "float32, float16 or bfloat16", err);
}

static inline attn_status op_qkv_check(const char *who, const attn_op_call *c, attn_error *err)
{
    const struct {
        const char *name;
        const attn_tensor *tensor;
    } four[] = {{"q", &c->q}, {"k", &c->k}, {"v", &c->v}, {"out", &c->out}};
    attn_status status = ATTN_OK;
    for (int i = 0; i < 4 && status == ATTN_OK; i++)
        if (four[i].tensor->rank != 4)
            status = attn_fail(err, ATTN_INVALID, "%s: %s has rank %u, expected 4", who,
                               four[i].name, four[i].tensor->rank);
    if (status != ATTN_OK)
        return status;
    const int64_t *q = c->q.shape, *k = c->k.shape, *v = c->v.shape;
    const int64_t shapes[4][4] = {{q[0], q[1], q[2], q[3]},
                                  {q[0], k[1], k[2], q[3]},
                                  {q[0], k[1], k[2], v[3]},
                                  {q[0], q[1], q[2], v[3]}};
    for (int i = 0; i < 4 && status == ATTN_OK; i++) {
        const char *name = four[i].name;
        const attn_tensor *t = four[i].tensor;
        status = op_tensor_check(who, name, t, &c->q, 4, shapes[i], err);
        if (status == ATTN_OK && op_dtype(t) != op_dtype(&c->q))
            status =
                attn_fail(err, ATTN_INVALID,
                          "%s: %s has type code %u bits %u lanes %u, expected q's %u, %u and %u",
                          who, name, t->code, t->bits, t->lanes, c->q.code, c->q.bits, c->q.lanes);
    }
    if (status == ATTN_OK)
        status = op_float_check(who, "q", &c->q, err);
    if (status == ATTN_OK)
        status = op_output_check(who, "out", &c->out, err);
    if (status == ATTN_OK && q[1] > 0 && (k[1] == 0 || q[1] % k[1] != 0))
        status = attn_fail(err, ATTN_INVALID,
                           "%s: %lld query heads are not a multiple of %lld key heads", who,
                           (long long)q[1], (long long)k[1]);
    return status;
}

/* Sizes of which no machine has the memory (shapes come before it), refused so that nobody's sums
 * of them overflow. */
static inline attn_status op_size_check(const char *who, const attn_op_call *c, attn_error *err)
{
    const int64_t most = INT64_C(1) << 40, most_rows = INT64_C(1) << 48;
    const int64_t b = c->q.shape[0], h = c->q.shape[1], nq = c->q.shape[2], nk = c->k.shape[2];
    const struct {
        const char *name;
        int64_t size;
    } sizes[] = {{"batch", b}, {"heads", h},         {"queries", nq},
                 {"keys", nk}, {"D", c->q.shape[3]}, {"Dv", c->v.shape[3]}};
    for (int i = 0; i < 6; i++)
        if (sizes[i].size > most)
            return attn_fail(err, ATTN_UNSUPPORTED, "%s: %s is %lld, expected at most %lld", who,
                             sizes[i].name, (long long)sizes[i].size, (long long)most);
    int64_t heads, rows, keys;
    if (__builtin_mul_overflow(b, h, &heads) || __builtin_mul_overflow(heads, nq, &rows) ||
        __builtin_mul_overflow(b, nk, &keys) || rows > most_rows || keys > most_rows)
        return attn_fail(
            err, ATTN_UNSUPPORTED,
            "%s: %lld queries of %lld heads and %lld keys in a batch of %lld, expected "
            "at most %lld rows of either in all",
            who, (long long)nq, (long long)h, (long long)nk, (long long)b, (long long)most_rows);
    return ATTN_OK;
}

static inline attn_status op_extras_check(const char *who, const attn_op_call *c, attn_error *err)
{
    const int64_t *q = c->q.shape, nk = c->k.shape[2];
    const int64_t pairs[4] = {q[0], q[1], q[2], nk}, keys[2] = {q[0], nk};
    const struct {
        const char *name;
        const attn_tensor *tensor;
        uint32_t rank;
        const int64_t *shape;
    } extras[] = {
        {"bias", &c->bias, 4, pairs},   {"mask", &c->mask, 4, pairs},
        {"lse", &c->lse, 3, pairs},     {"key_mass", &c->key_mass, 2, keys},
        {"probs", &c->probs, 4, pairs},
    };
    attn_status status = ATTN_OK;
    for (int i = 0; i < 5 && status == ATTN_OK; i++) {
        const char *name = extras[i].name;
        const attn_tensor *t = extras[i].tensor;
        if (t->rank == 0)
            continue;
        status = op_tensor_check(who, name, t, &c->q, extras[i].rank, extras[i].shape, err);
        if (status != ATTN_OK)
            break;
        if (i == 0)
            status = op_float_check(who, name, t, err);
        else if (i == 1 && (t->code != ATTN_CODE_UINT || t->bits != 8 || t->lanes != 1))
            status = op_type_fail(who, name, t, ATTN_INVALID, "8-bit unsigned", err);
        else if (i >= 2 && op_dtype(t) != ATTN_DTYPE_F32)
            status = op_type_fail(who, name, t, ATTN_INVALID, "float32", err);
        if (status == ATTN_OK && i >= 2)
            status = op_output_check(who, name, t, err);
    }
    return status;
}

static inline attn_status op_header_check(const char *who, const attn_op_call *c, attn_error *err)
{
    const uint32_t known = ATTN_CALL_BAND | ATTN_CALL_F32_SCORES | ATTN_CALL_F32_SOFTMAX;
    if (c->size < sizeof *c)
        return attn_fail(err, ATTN_INVALID, "%s: the call's size is %u, expected at least %zu", who,
                         c->size, sizeof *c);
    if (c->flags & ~known)
        return attn_fail(err, ATTN_UNSUPPORTED, "%s: unknown call flags 0x%x, known are 0x%x", who,
                         c->flags & ~known, known);
    if (!isfinite(c->scale))
        return attn_fail(err, ATTN_INVALID, "%s: scale is %g, expected a finite number", who,
                         (double)c->scale);
    for (const attn_ext *ext = c->ext; ext; ext = ext->next)
        if (ext->flags & ATTN_EXT_REQUIRED)
            return attn_fail(err, ATTN_UNSUPPORTED, "%s: unknown required extension %s", who,
                             ext->id ? ext->id : "(no id)");
    return ATTN_OK;
}

/* Reads no data. `who` opens the texts; *shape is written with ATTN_OK. */
static inline attn_status op_call_check(const char *who, const attn_op_call *c,
                                        struct op_shape *shape, attn_error *err)
{
    attn_status status = op_header_check(who, c, err);
    if (status == ATTN_OK)
        status = op_qkv_check(who, c, err);
    if (status == ATTN_OK)
        status = op_size_check(who, c, err);
    if (status == ATTN_OK)
        status = op_extras_check(who, c, err);
    if (status != ATTN_OK)
        return status;
    int64_t d = c->q.shape[3];
    *shape = (struct op_shape){
        .batch = c->q.shape[0],
        .heads = c->q.shape[1],
        .kv_heads = c->k.shape[1],
        .nq = c->q.shape[2],
        .nk = c->k.shape[2],
        .d = d,
        .dv = c->v.shape[3],
        .scale = c->scale != 0.0f ? c->scale
                 : d > 0          ? (float)(1.0 / sqrt((double)d))
                                  : 1.0f,
    };
    return ATTN_OK;
}

/* For ops that read host memory. */
static inline attn_status op_cpu_call_check(const char *who, const attn_op_call *c,
                                            struct op_shape *shape, attn_error *err)
{
    attn_status status = op_call_check(who, c, shape, err);
    if (status == ATTN_OK && c->q.device_type != ATTN_DEVICE_CPU)
        status = attn_fail(err, ATTN_UNSUPPORTED, "%s: tensors are on device type %d, expected %d",
                           who, c->q.device_type, ATTN_DEVICE_CPU);
    return status;
}

/* What run can see of a call that prepare took: every tensor that has elements has data, and there
 * is the scratch that prepare asked for. */
static inline attn_status op_run_check(const char *who, const attn_op_call *c, uint64_t scratch,
                                       attn_error *err)
{
    const struct {
        const char *name;
        const attn_tensor *tensor;
    } all[] = {
        {"q", &c->q},        {"k", &c->k},       {"v", &c->v},     {"out", &c->out},
        {"bias", &c->bias},  {"mask", &c->mask}, {"lse", &c->lse}, {"key_mass", &c->key_mass},
        {"probs", &c->probs}};
    if (c->size < sizeof *c)
        return attn_fail(err, ATTN_INVALID, "%s: the call's size is %u, expected at least %zu", who,
                         c->size, sizeof *c);
    for (int i = 0; i < 9; i++)
        if (!all[i].tensor->data && !op_tensor_empty(all[i].tensor))
            return attn_fail(err, ATTN_INVALID, "%s: %s has no data", who, all[i].name);
    if (scratch && (!c->scratch || c->scratch_bytes < scratch))
        return attn_fail(err, ATTN_INVALID, "%s: scratch has %llu bytes, expected at least %llu",
                         who, (unsigned long long)(c->scratch ? c->scratch_bytes : 0),
                         (unsigned long long)scratch);
    return ATTN_OK;
}

/* A CPU op's create: the device, and no parameters. */
static inline attn_status op_create_check(const char *who, const attn_host *host,
                                          const attn_device *device, const attn_param *params,
                                          uint32_t n_params, attn_error *err)
{
    if (!host || host->size < sizeof *host)
        return attn_fail(err, ATTN_INVALID,
                         "%s: the host table's size is %u, expected at least %zu", who,
                         host ? host->size : 0, sizeof *host);
    if (device->type != ATTN_DEVICE_CPU)
        return attn_fail(err, ATTN_UNSUPPORTED, "%s: device type is %d, expected %d (CPU)", who,
                         device->type, ATTN_DEVICE_CPU);
    if (n_params)
        return attn_fail(err, ATTN_INVALID, "%s: unknown parameter %s, expected none", who,
                         params[0].name ? params[0].name : "(no name)");
    return ATTN_OK;
}

#endif
