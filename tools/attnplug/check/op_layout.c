#include "op_layout.h"

#include <string.h>

static int32_t device_type = ATTN_DEVICE_CPU, device_id;

void op_case_device(const attn_device *device)
{
    device_type = device->type;
    device_id = device->id;
}

static attn_tensor typed(uint64_t dtype, uint32_t rank)
{
    attn_tensor t = {0};
    t.device_type = device_type;
    t.device_id = device_id;
    t.code = dtype == ATTN_DTYPE_BF16 ? ATTN_CODE_BFLOAT : ATTN_CODE_FLOAT;
    t.bits = dtype == ATTN_DTYPE_F32 ? 32 : (dtype == ATTN_DTYPE_F64 ? 64 : 16);
    t.lanes = 1;
    t.rank = rank;
    return t;
}

/* Strides for a shape, axes laid out in `order` from the slowest; a run along the fastest is
 * followed by `gap` unused elements. */
static void stride(attn_tensor *t, const int order[4], int64_t gap)
{
    int64_t step = 1;
    for (uint32_t a = t->rank; a-- > 0;) {
        int axis = order[a];
        t->stride[axis] = step;
        step *= t->shape[axis] ? t->shape[axis] : 1;
        if (a == t->rank - 1)
            step += gap;
    }
}

static const int bhnd[4] = {0, 1, 2, 3}, bnhd[4] = {0, 2, 1, 3}, bhdn[4] = {0, 1, 3, 2};

attn_tensor layout_tensor(struct random *r, uint64_t dtype, int64_t b, int64_t h, int64_t n,
                          int64_t d, enum layout layout)
{
    attn_tensor t = typed(dtype, 4);
    const int64_t shape[4] = {b, h, n, d};
    memcpy(t.shape, shape, sizeof shape);
    if (layout == LAYOUT_PACKED || layout == LAYOUT_TOKENS_FIRST) {
        stride(&t, layout == LAYOUT_PACKED ? bhnd : bnhd, 0);
    } else if (layout == LAYOUT_ODD && random_percent(r, 50)) {
        stride(&t, bhdn, random_between(r, 0, 2));
    } else {
        int order = (int)random_between(r, 0, 5);
        int64_t gap = order >= 3 ? random_between(r, 1, 3) * (random_percent(r, 50) ? 8 : 1) : 0;
        stride(&t, order == 1 || order == 2 || order == 4 ? bnhd : bhnd, gap);
        for (int a = 0; layout == LAYOUT_ODD && a < 4; a++)
            t.stride[a] *= 2;
    }
    return t;
}

void layout_broadcast(struct random *r, attn_op_call *c)
{
    int axis = (int)random_between(r, 0, 1);
    c->k.stride[axis] = c->v.stride[axis] = 0;
}

attn_tensor op_case_map(const struct sizes *s, uint8_t code, uint8_t bits)
{
    attn_tensor t = typed(ATTN_DTYPE_F32, 4);
    const int64_t shape[4] = {s->B, s->H, s->Nq, s->Nk};
    memcpy(t.shape, shape, sizeof shape);
    stride(&t, bhnd, 0);
    t.code = code;
    t.bits = bits;
    return t;
}

attn_tensor layout_map(struct random *r, const struct sizes *s, uint64_t dtype)
{
    attn_tensor t = typed(dtype, 4);
    const int64_t shape[4] = {s->B, s->H, s->Nq, s->Nk};
    const int64_t broadcast_axes = random_between(r, 0, 7) | (random_percent(r, 10) ? 8 : 0);
    for (int a = 0; a < 4; a++)
        t.shape[a] = broadcast_axes & (1 << a) && shape[a] ? 1 : shape[a];
    stride(&t, bhnd, 0);
    for (int a = 0; a < 4; a++)
        if (broadcast_axes & (1 << a))
            t.stride[a] = 0;
    memcpy(t.shape, shape, sizeof shape);
    return t;
}

attn_tensor op_case_output(const struct sizes *s, int which)
{
    attn_tensor t = typed(ATTN_DTYPE_F32, which == BUF_KEY_MASS ? 2 : (which == BUF_LSE ? 3 : 4));
    const int64_t shape[4] = {s->B, which == BUF_KEY_MASS ? s->Nk : s->H, s->Nq, s->Nk};
    memcpy(t.shape, shape, sizeof shape);
    stride(&t, bhnd, 0);
    return t;
}

int layout_is_packed(const attn_tensor *t)
{
    attn_tensor packed = *t;
    stride(&packed, bhnd, 0);
    return !memcmp(packed.stride, t->stride, t->rank * sizeof *t->stride);
}

int layout_is_odd(const attn_tensor *t)
{
    attn_tensor a = *t, b = *t;
    stride(&a, bhnd, 0);
    stride(&b, bnhd, 0);
    return memcmp(a.stride, t->stride, sizeof a.stride) != 0 &&
           memcmp(b.stride, t->stride, sizeof b.stride) != 0;
}
