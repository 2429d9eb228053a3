/* flash_problem.h: an op call as the kernels see it. */
#ifndef FLASH_PROBLEM_H
#define FLASH_PROBLEM_H

#include "flash_kernel.h"
#include "op_call.h"

#include <limits.h>

static inline flash_view flash_view_of(const attn_tensor *t)
{
    flash_view v = {.data = t->data};
    int64_t stride[4];
    for (uint32_t i = 0; i < 4; i++) /* a dimension of one element has no stride of its own */
        stride[i] = i < t->rank && t->shape[i] > 1 ? t->stride[i] : 0;
    v.batch = stride[0];
    v.head = stride[1];
    v.row = stride[2];
    v.col = stride[3];
    return v;
}

static inline int flash_dtype(const attn_tensor *t)
{
    return t->code == ATTN_CODE_BFLOAT ? FLASH_BF16 : t->bits == 16 ? FLASH_F16 : FLASH_F32;
}

/* An absent tensor has no data; a present one that has none yet (planning) is marked as present. */
static inline flash_view flash_optional(const attn_tensor *t)
{
    flash_view v = flash_view_of(t);
    if (t->rank == 0)
        v.data = NULL;
    else if (!v.data)
        v.data = (void *)(uintptr_t)256;
    return v;
}

/* A call that op_call_check took. */
static inline attn_status flash_problem_of(const char *who, const attn_op_call *call,
                                           const struct op_shape *s, flash_problem *p,
                                           attn_error *err)
{
    const struct {
        const char *name;
        int64_t value;
    } sizes[] = {{"batch size", s->batch},
                 {"heads", s->heads},
                 {"queries", s->nq},
                 {"keys", s->nk},
                 {"batch size x heads", s->batch * s->heads},
                 {"head dimension", s->d},
                 {"value dimension", s->dv}};
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        if (sizes[i].value > (i < 5 ? 1 << 24 : 512))
            return attn_fail(err, ATTN_UNSUPPORTED, "%s: %lld %s, expected at most %d", who,
                             (long long)sizes[i].value, sizes[i].name, i < 5 ? 1 << 24 : 512);
    if (s->batch * s->heads * ((s->nq > s->nk ? s->nq : s->nk) / 32 + 1) > INT_MAX)
        return attn_fail(
            err, ATTN_UNSUPPORTED,
            "%s: batch size %lld x heads %lld x rows %lld is more than one grid of blocks", who,
            (long long)s->batch, (long long)s->heads, (long long)(s->nq > s->nk ? s->nq : s->nk));
    *p = (flash_problem){
        .q = flash_view_of(&call->q),
        .k = flash_view_of(&call->k),
        .v = flash_view_of(&call->v),
        .out = flash_view_of(&call->out),
        .bias = flash_optional(&call->bias),
        .mask = flash_optional(&call->mask),
        .lse = flash_optional(&call->lse),
        .key_mass = flash_optional(&call->key_mass),
        .probs = flash_optional(&call->probs),
        .b = (int32_t)s->batch,
        .h = (int32_t)s->heads,
        .hkv = (int32_t)s->kv_heads,
        .nq = (int32_t)s->nq,
        .nk = (int32_t)s->nk,
        .d = (int32_t)s->d,
        .dv = (int32_t)s->dv,
        .dtype = flash_dtype(&call->q),
        .bias_dtype = flash_dtype(&call->bias),
        .band = (call->flags & ATTN_CALL_BAND) != 0,
        .band_lo = call->band_lo,
        .band_hi = call->band_hi,
        .scale = s->scale,
    };
    p->key_mass.col = p->key_mass.head; /* [B, Nk] */
    /* columns are contiguous where there is only one, rows are a row apart where there is only one
     */
    flash_view *four[] = {&p->q, &p->k, &p->v, &p->out};
    for (int i = 0; i < 4; i++) {
        const int64_t width = i < 2 ? s->d : s->dv;
        if (width == 1)
            four[i]->col = 1;
        if ((i == 1 || i == 2 ? s->nk : s->nq) <= 1)
            four[i]->row = (width + 7) / 8 * 8;
    }
    return ATTN_OK;
}

#endif
