#include "op_case.h"

#include <stdio.h>
#include <string.h>

static const char *const names[BUF_COUNT] = {"q",    "k",   "v",        "out",   "bias",
                                             "mask", "lse", "key_mass", "probs", "scratch"};

const char *op_buffer_name(enum op_buffer b)
{
    return names[b];
}

static int32_t device_type = ATTN_DEVICE_CPU, device_id;

void op_case_device(const attn_device *device)
{
    device_type = device->type;
    device_id = device->id;
}

static int64_t pick(struct random *r, const int64_t *from, int n)
{
    return from[random_between(r, 0, n - 1)];
}
#define PICK(r, ...)                                                                               \
    pick(r, (const int64_t[]){__VA_ARGS__},                                                        \
         sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

/* -- shapes
 * ------------------------------------------------------------------------------------------ */

struct sizes {
    int64_t B, H, Hk, Nq, Nk, D, Dv;
};

static int64_t length(struct random *r)
{
    return random_percent(r, 50) ? random_between(r, 1, 40)
                                 : PICK(r, 16, 33, 63, 64, 65, 77, 96, 128, 131, 200);
}

static struct sizes draw_sizes(struct random *r, enum op_kind kind)
{
    struct sizes s;
    s.B = random_between(r, 1, 3);
    s.Hk = random_between(r, 1, 3);
    s.H = s.Hk * (random_percent(r, 75) ? 1 : random_between(r, 2, 3));
    s.Nq = length(r);
    s.Nk = random_percent(r, 40) ? s.Nq : length(r);
    s.D = random_percent(r, 60) ? PICK(r, 8, 16, 32, 40, 64, 80, 128, 160)
                                : 8 * random_between(r, 1, 20);
    if (random_percent(r, 20))
        s.D = random_between(r, 1, 96);
    s.Dv = random_percent(r, 90) ? s.D : 8 * random_between(r, 1, 12);
    if (kind == KIND_EDGE) {
        s.B = random_percent(r, 10) ? 0 : s.B;
        s.Nq = PICK(r, 0, 1, 1, 2, 17);
        s.Nk = PICK(r, 0, 1, 1, 2, 33);
    }
    if (kind == KIND_LONG) {
        s.B = 1;
        s.H = s.Hk = random_between(r, 1, 2);
        s.Nq = random_between(r, 60, 300);
        s.Nk = random_between(r, 2000, 6000);
        s.D = s.Dv = PICK(r, 40, 64, 80, 128);
    }
    return s;
}

/* -- tensors
 * ----------------------------------------------------------------------------------------- */

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

/* Strides for a shape, axes laid out in `order` from the slowest, each followed by `gap` unused
 * elements. */
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

static attn_tensor draw_tensor(struct random *r, uint64_t dtype, int64_t b, int64_t h, int64_t n,
                               int64_t d, int plain)
{
    static const int bhnd[4] = {0, 1, 2, 3}, bnhd[4] = {0, 2, 1, 3};
    attn_tensor t = typed(dtype, 4);
    const int64_t shape[4] = {b, h, n, d};
    memcpy(t.shape, shape, sizeof shape);
    int layout = plain ? 0 : (int)random_between(r, 0, 5);
    int64_t gap = layout >= 3 ? random_between(r, 1, 3) * (random_percent(r, 50) ? 8 : 1) : 0;
    stride(&t, layout == 1 || layout == 2 || layout == 4 ? bnhd : bhnd, gap);
    return t;
}

/* A tensor [B, H, Nq, Nk] whose leading axes may be broadcast. */
static attn_tensor draw_map(struct random *r, const struct sizes *s, uint64_t dtype)
{
    static const int order[4] = {0, 1, 2, 3};
    attn_tensor t = typed(dtype, 4);
    const int64_t shape[4] = {s->B, s->H, s->Nq, s->Nk};
    int broadcast = (int)random_between(r, 0, 7);
    memcpy(t.shape, shape, sizeof shape);
    for (int a = 0; a < 3; a++)
        t.shape[a] = broadcast & (1 << a) && shape[a] ? 1 : shape[a];
    stride(&t, order, 0);
    for (int a = 0; a < 3; a++)
        if (broadcast & (1 << a))
            t.stride[a] = 0;
    memcpy(t.shape, shape, sizeof shape);
    return t;
}

static attn_tensor draw_output(const struct sizes *s, enum op_buffer which)
{
    static const int order[4] = {0, 1, 2, 3};
    attn_tensor t = typed(ATTN_DTYPE_F32, which == BUF_KEY_MASS ? 2 : (which == BUF_LSE ? 3 : 4));
    const int64_t shape[4] = {s->B, which == BUF_KEY_MASS ? s->Nk : s->H, s->Nq, s->Nk};
    memcpy(t.shape, shape, sizeof shape);
    stride(&t, order, 0);
    return t;
}

/* -- the call
 * ---------------------------------------------------------------------------------------- */

static void draw_band(struct random *r, attn_op_call *c, const struct sizes *s)
{
    int64_t shift = random_percent(r, 50) ? s->Nk - s->Nq : 0;
    c->flags |= ATTN_CALL_BAND;
    c->band_lo = random_percent(r, 50) ? INT64_MIN : shift - random_between(r, 0, 40);
    c->band_hi = random_percent(r, 30)
                     ? INT64_MAX
                     : shift + (random_percent(r, 60) ? 0 : random_between(r, 0, 40));
}

static void draw_options(struct random *r, attn_op_call *c, const struct sizes *s, uint64_t dtype)
{
    if (random_percent(r, 30))
        c->bias = draw_map(r, s, random_percent(r, 50) ? ATTN_DTYPE_F32 : dtype);
    if (random_percent(r, 30)) {
        c->mask = draw_map(r, s, dtype);
        c->mask.code = ATTN_CODE_UINT;
        c->mask.bits = 8;
    }
    if (random_percent(r, 30))
        draw_band(r, c, s);
    if (random_percent(r, 50))
        c->lse = draw_output(s, BUF_LSE);
    if (random_percent(r, 30))
        c->key_mass = draw_output(s, BUF_KEY_MASS);
    if (random_percent(r, 10))
        c->probs = draw_output(s, BUF_PROBS);
    if (random_percent(r, 50))
        c->scale = (float)(0.02 + random_unit(r));
    if (random_percent(r, 10))
        c->flags |= ATTN_CALL_F32_SCORES | ATTN_CALL_F32_SOFTMAX;
}

/* Kernels of devices want whole pieces: half of the cases promise them, the others nothing. */
static void draw_alignment(struct random *r, attn_op_call *c)
{
    const uint32_t promised = random_percent(r, 50) ? 0 : random_percent(r, 80) ? 16 : 256;
    attn_tensor *const four[] = {&c->q, &c->k, &c->v, &c->out};
    for (int i = 0; i < 4; i++)
        four[i]->align = promised;
}

static uint64_t draw_dtype(struct random *r, uint64_t dtypes)
{
    uint64_t known = dtypes & (ATTN_DTYPE_F32 | ATTN_DTYPE_F16 | ATTN_DTYPE_BF16 | ATTN_DTYPE_F64),
             bit;
    if (!known)
        known = ATTN_DTYPE_F32;
    do
        bit = UINT64_C(1) << random_between(r, 0, 3);
    while (!(known & bit));
    return bit;
}

static void describe(struct op_case *c)
{
    const attn_op_call *o = &c->call;
    int n =
        snprintf(c->text, sizeof c->text,
                 "%s%d B%lld H%lld/%lld Nq%lld Nk%lld D%lld/%lld strides q(%lld,%lld,%lld)",
                 o->q.code == ATTN_CODE_BFLOAT ? "bf" : "f", o->q.bits, (long long)o->q.shape[0],
                 (long long)o->q.shape[1], (long long)o->k.shape[1], (long long)o->q.shape[2],
                 (long long)o->k.shape[2], (long long)o->q.shape[3], (long long)o->v.shape[3],
                 (long long)o->q.stride[0], (long long)o->q.stride[1], (long long)o->q.stride[2]);
    for (int b = BUF_BIAS; b < BUF_SCRATCH; b++)
        if (c->tensors[b]->rank && n < (int)sizeof c->text)
            n += snprintf(c->text + n, sizeof c->text - (size_t)n, " %s", names[b]);
    if (o->flags & ATTN_CALL_BAND && n < (int)sizeof c->text)
        snprintf(c->text + n, sizeof c->text - (size_t)n, " band[%lld,%lld]", (long long)o->band_lo,
                 (long long)o->band_hi);
}

void op_case_draw(struct op_case *c, enum op_kind kind, uint64_t dtypes, uint64_t seed,
                  uint64_t index)
{
    struct random r = random_for(seed + 1000003u * (uint64_t)kind, index);
    struct sizes s = draw_sizes(&r, kind);
    uint64_t dtype = draw_dtype(&r, dtypes);
    int plain = kind == KIND_PLAIN || kind == KIND_LONG;
    memset(c, 0, sizeof *c);
    c->seed = seed;
    c->index = index;
    attn_op_call *o = &c->call;
    o->size = sizeof *o;
    o->q = draw_tensor(&r, dtype, s.B, s.H, s.Nq, s.D, plain);
    o->k = draw_tensor(&r, dtype, s.B, s.Hk, s.Nk, s.D, plain);
    o->v = draw_tensor(&r, dtype, s.B, s.Hk, s.Nk, s.Dv, plain);
    o->out = draw_tensor(&r, dtype, s.B, s.H, s.Nq, s.Dv, plain);
    if (!plain)
        draw_options(&r, o, &s, dtype);
    if (device_type != ATTN_DEVICE_CPU)
        draw_alignment(&r, o);
    attn_tensor *const tensors[BUF_SCRATCH] = {&o->q,    &o->k,   &o->v,        &o->out,  &o->bias,
                                               &o->mask, &o->lse, &o->key_mass, &o->probs};
    memcpy(c->tensors, tensors, sizeof tensors);
    describe(c);
}

/* -- memory and values
 * ------------------------------------------------------------------------------- */

static int64_t span(const attn_tensor *t)
{
    int64_t last = 0;
    for (uint32_t a = 0; a < t->rank; a++) {
        if (!t->shape[a])
            return 0;
        last += (t->shape[a] - 1) * t->stride[a];
    }
    return last + 1;
}

static double draw_value(struct random *r, enum op_buffer b)
{
    if (b == BUF_MASK)
        return random_percent(r, 70) ? (double)random_between(r, 1, 255) : 0;
    if (b == BUF_BIAS && random_percent(r, 5))
        return -INFINITY;
    return random_normal(r);
}

static void fill(struct op_case *c, enum op_buffer b, struct random *r)
{
    attn_tensor *t = c->tensors[b];
    int64_t n[4] = {1, 1, 1, 1}, i[4];
    for (uint32_t a = 0; a < t->rank; a++)
        n[a] = t->stride[a] || !t->shape[a] ? t->shape[a] : 1;
    for (i[0] = 0; i[0] < n[0]; i[0]++)
        for (i[1] = 0; i[1] < n[1]; i[1]++)
            for (i[2] = 0; i[2] < n[2]; i[2]++) {
                int dark = b == BUF_MASK && random_percent(r, 10); /* a row that sees nothing */
                for (i[3] = 0; i[3] < n[3]; i[3]++)
                    tensor_set(t, i, dark ? 0 : draw_value(r, b));
            }
}

int op_case_fill(struct op_case *c, uint64_t data_seed)
{
    struct random r = random_for(data_seed ^ c->seed, c->index);
    for (int b = 0; b < BUF_SCRATCH; b++) {
        attn_tensor *t = c->tensors[b];
        if (!t->rank)
            continue;
        size_t element = tensor_element(t);
        /* Behind the data for most, before it for one in four; never better aligned than an
         * element or than was promised. */
        if (!c->buffers[b].base &&
            guard_open(&c->buffers[b], (size_t)span(t) * element,
                       t->align > element ? t->align : element, random_percent(&r, 25)))
            return -1;
        t->data = c->buffers[b].data;
        guard_poison(&c->buffers[b], 0xFF); /* gaps between elements are NaN */
        if (b <= BUF_V || b == BUF_BIAS || b == BUF_MASK)
            fill(c, (enum op_buffer)b, &r);
    }
    return 0;
}

void op_case_poison(struct op_case *c, unsigned char poison)
{
    static const enum op_buffer written[] = {BUF_OUT, BUF_LSE, BUF_KEY_MASS, BUF_PROBS,
                                             BUF_SCRATCH};
    c->poison = poison;
    for (size_t i = 0; i < sizeof written / sizeof *written; i++)
        if (c->buffers[written[i]].base)
            guard_poison(&c->buffers[written[i]], poison);
}

int op_case_scratch(struct op_case *c, uint64_t bytes, unsigned char poison)
{
    guard_close(&c->buffers[BUF_SCRATCH]);
    if (guard_open(&c->buffers[BUF_SCRATCH], (size_t)bytes, 256, 0))
        return -1;
    c->call.scratch = c->buffers[BUF_SCRATCH].data;
    c->call.scratch_bytes = bytes;
    op_case_poison(c, poison);
    return 0;
}

/* Gaps between an output's elements keep the poison: looked at through the guard's pattern outside
 * of the span, and here within it. */
static int gaps_intact(const struct op_case *c)
{
    const attn_tensor *t = &c->call.out;
    size_t element = tensor_element(t);
    int64_t row = t->shape[3] * (int64_t)element;
    int64_t pitch = t->stride[2] * (int64_t)element;
    if (t->stride[3] != 1 || t->shape[1] > 1 || t->shape[2] < 2 || pitch <= row)
        return 1;
    for (int64_t b = 0; b < t->shape[0]; b++)
        for (int64_t i = 0; i + 1 < t->shape[2]; i++) {
            const unsigned char *p =
                (const unsigned char *)t->data + b * t->stride[0] * (int64_t)element + i * pitch;
            for (int64_t x = row; x < pitch; x++)
                if (p[x] != c->poison)
                    return 0;
        }
    return 1;
}

const char *op_case_overrun(const struct op_case *c)
{
    for (int b = 0; b < BUF_COUNT; b++)
        if (c->buffers[b].base && !guard_intact(&c->buffers[b]))
            return names[b];
    if (c->buffers[BUF_SCRATCH].base && !gaps_intact(c))
        return "out (between its rows)";
    return NULL;
}

void op_case_close(struct op_case *c)
{
    for (int b = 0; b < BUF_COUNT; b++)
        guard_close(&c->buffers[b]);
}
