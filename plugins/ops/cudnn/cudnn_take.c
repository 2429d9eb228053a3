/* Which calls cuDNN's fused attention takes. Conservative where versions differ, so that what is
 * said here holds when the plan is compiled. */
#include "cudnn.h"

#include <limits.h>

enum { FIRST_VERSION = 90000, WIDE_HEADS_VERSION = 91000 };

static attn_status tensor_take(const char *name, const attn_tensor *t, attn_error *err)
{
    if (t->shape[3] > 1 && t->stride[3] != 1)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         NAME ": %s has stride %lld in the head dimension, expected 1", name,
                         (long long)t->stride[3]);
    for (int i = 0; i < 3; i++)
        if (t->shape[i] > 1 && !op_tensor_empty(t) && (t->stride[i] <= 0 || t->stride[i] % 8 != 0))
            return attn_fail(
                err, ATTN_UNSUPPORTED,
                NAME ": %s has stride %lld in dimension %d, expected a positive multiple of 8",
                name, (long long)t->stride[i], i);
    if (t->align < 16)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         NAME ": %s is aligned to %u bytes, expected the promise of 16", name,
                         t->align);
    return ATTN_OK;
}

static attn_status sizes_take(const struct op_shape *s, int chip, size_t version, attn_error *err)
{
    const int most = chip == 90 && version >= WIDE_HEADS_VERSION ? 256 : 128;
    if (s->d != s->dv)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         NAME ": value dimension %lld, expected the head dimension %lld",
                         (long long)s->dv, (long long)s->d);
    if (s->d % 8 != 0 || s->d < 8 || s->d > most)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         NAME ": head dimension %lld, expected a multiple of 8 from 8 to %d here",
                         (long long)s->d, most);
    if (s->nq == 1 || s->nk < 2)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         NAME ": %lld queries and %lld keys, expected at least 2 of each",
                         (long long)s->nq, (long long)s->nk);
    const int64_t sizes[] = {s->batch, s->heads, s->nq, s->nk};
    for (int i = 0; i < 4; i++)
        if (sizes[i] > INT32_MAX / 256)
            return attn_fail(err, ATTN_UNSUPPORTED,
                             NAME ": a dimension of %lld, expected at most %d", (long long)sizes[i],
                             INT32_MAX / 256);
    return ATTN_OK;
}

/* No bound, or causal from either corner. */
static attn_status band_take(const attn_op_call *call, struct cudnn_call *out, attn_error *err)
{
    const int64_t nq = out->shape.nq, nk = out->shape.nk;
    out->causal = 0;
    out->shift = 0;
    if (!(call->flags & ATTN_CALL_BAND))
        return ATTN_OK;
    const int64_t hi = call->band_hi;
    if (call->band_lo > -(nq - 1))
        return attn_fail(err, ATTN_UNSUPPORTED,
                         NAME ": the band begins at %lld, expected no lower bound",
                         (long long)call->band_lo);
    if (hi >= nk - 1)
        return ATTN_OK;
    if (hi != 0 && (hi < 0 || hi != nk - nq))
        return attn_fail(err, ATTN_UNSUPPORTED,
                         NAME ": the band ends at %lld, expected 0 or Nk - Nq = %lld, not below 0",
                         (long long)hi, (long long)(nk - nq));
    out->causal = 1;
    out->shift = hi;
    return ATTN_OK;
}

static attn_status lse_take(const attn_tensor *lse, attn_error *err)
{
    for (int i = 0; i < 3; i++)
        if (lse->shape[i] > 1 && lse->stride[i] <= 0)
            return attn_fail(err, ATTN_UNSUPPORTED,
                             NAME ": lse has stride %lld in dimension %d, expected a positive one",
                             (long long)lse->stride[i], i);
    return ATTN_OK;
}

attn_status cudnn_take(const attn_op_call *call, int device, int chip, size_t version,
                       struct cudnn_call *out, attn_error *err)
{
    attn_status status = op_call_check(NAME, call, &out->shape, err);
    if (status != ATTN_OK)
        return status;
    if (call->q.device_type != ATTN_DEVICE_CUDA || call->q.device_id != device)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         NAME ": tensors are on device %d:%d, expected %d:%d", call->q.device_type,
                         call->q.device_id, ATTN_DEVICE_CUDA, device);
    if (op_dtype(&call->q) == ATTN_DTYPE_F32)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         NAME ": q is float32, expected float16 or bfloat16");
    const struct {
        const char *name;
        const attn_tensor *tensor;
    } refused[] = {{"bias", &call->bias}, /* a row of minus infinities is NaN there, 0 here */
                   {"mask", &call->mask},
                   {"key_mass", &call->key_mass},
                   {"probs", &call->probs}};
    for (int i = 0; i < 4; i++)
        if (refused[i].tensor->rank)
            return attn_fail(err, ATTN_UNSUPPORTED,
                             NAME ": %s is not among what cuDNN's fused attention does",
                             refused[i].name);
    if (!(out->shape.scale > 0))
        return attn_fail(err, ATTN_UNSUPPORTED, NAME ": scale is %g, expected a positive one",
                         (double)out->shape.scale);
    status = sizes_take(&out->shape, chip, version, err);
    const attn_tensor *four[] = {&call->q, &call->k, &call->v, &call->out};
    static const char *const names[] = {"q", "k", "v", "out"};
    for (int i = 0; i < 4 && status == ATTN_OK; i++)
        status = tensor_take(names[i], four[i], err);
    if (status == ATTN_OK)
        status = band_take(call, out, err);
    out->stats = call->lse.rank != 0;
    if (status == ATTN_OK && out->stats)
        status = lse_take(&call->lse, err);
    if (status == ATTN_OK && version < FIRST_VERSION)
        status =
            attn_fail(err, ATTN_UNSUPPORTED, NAME ": cuDNN's version is %zu, expected %d or newer",
                      version, FIRST_VERSION);
    return status;
}
