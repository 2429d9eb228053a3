#include "op_case.h"
#include "op_takes.h"

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

/* How a case's tensors lie in memory. */
enum layout {
    LAYOUT_PACKED,       /* [B,H,N,D] */
    LAYOUT_TOKENS_FIRST, /* [B,N,H,D] */
    LAYOUT_ROWS,         /* each tensor one of the two, with or without gaps between rows */
    LAYOUT_ODD           /* also elements of a row apart, rows that run along memory's other axis */
};

static const int bhnd[4] = {0, 1, 2, 3}, bnhd[4] = {0, 2, 1, 3}, bhdn[4] = {0, 1, 3, 2};

static attn_tensor draw_tensor(struct random *r, uint64_t dtype, int64_t b, int64_t h, int64_t n,
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

/* One key and value for all heads or for all samples, as a view. */
static void broadcast(struct random *r, attn_op_call *c)
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

/* A tensor [B, H, Nq, Nk] whose leading axes may be broadcast. */
static attn_tensor draw_map(struct random *r, const struct sizes *s, uint64_t dtype)
{
    attn_tensor t = typed(dtype, 4);
    const int64_t shape[4] = {s->B, s->H, s->Nq, s->Nk};
    int broadcast_axes = (int)random_between(r, 0, 7);
    memcpy(t.shape, shape, sizeof shape);
    for (int a = 0; a < 3; a++)
        t.shape[a] = broadcast_axes & (1 << a) && shape[a] ? 1 : shape[a];
    stride(&t, bhnd, 0);
    for (int a = 0; a < 3; a++)
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
        c->lse = op_case_output(s, BUF_LSE);
    if (random_percent(r, 30))
        c->key_mass = op_case_output(s, BUF_KEY_MASS);
    if (random_percent(r, 10))
        c->probs = op_case_output(s, BUF_PROBS);
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

const char *const feature_words[FEATURE_COUNT] = {
    [FEATURE_BIAS] = "a bias",
    [FEATURE_MASK] = "a mask",
    [FEATURE_BAND] = "a band",
    [FEATURE_SCALE] = "a scale of the call's own",
    [FEATURE_NO_SCALE] = "scale 0, which means 1/sqrt(D)",
    [FEATURE_GROUPS] = "more heads than key heads",
    [FEATURE_KEY_HEADS] = "several key heads",
    [FEATURE_VALUE_DIM] = "values of another head dimension",
    [FEATURE_NO_KEYS] = "no keys",
    [FEATURE_DARK_ROWS] = "rows that see no key",
    [FEATURE_STRIDES] = "strides that are not those of a packed tensor",
    [FEATURE_TOKENS_FIRST] = "tokens before heads in memory",
    [FEATURE_LSE] = "lse",
    [FEATURE_KEY_MASS] = "key_mass",
    [FEATURE_PROBS] = "probs",
    [FEATURE_LENGTHS] = "other lengths of queries and keys",
    [FEATURE_HALVES] = "halves",
};

/* Neither of the two usual orders, or gaps. */
static int is_odd(const attn_tensor *t)
{
    attn_tensor a = *t, b = *t;
    stride(&a, bhnd, 0);
    stride(&b, bnhd, 0);
    return memcmp(a.stride, t->stride, sizeof a.stride) != 0 &&
           memcmp(b.stride, t->stride, sizeof b.stride) != 0;
}

static void note_features(struct op_case *c)
{
    const attn_op_call *o = &c->call;
    const int64_t *q = o->q.shape, *k = o->k.shape;
    const int has[FEATURE_COUNT] = {
        [FEATURE_BIAS] = o->bias.rank != 0,
        [FEATURE_MASK] = o->mask.rank != 0,
        [FEATURE_BAND] = (o->flags & ATTN_CALL_BAND) != 0,
        [FEATURE_SCALE] = o->scale != 0,
        [FEATURE_NO_SCALE] = o->scale == 0,
        [FEATURE_GROUPS] = q[1] > k[1],
        [FEATURE_KEY_HEADS] = k[1] > 1,
        [FEATURE_VALUE_DIM] = o->v.shape[3] != q[3],
        [FEATURE_NO_KEYS] = k[2] == 0,
        [FEATURE_STRIDES] = is_odd(&o->q) || is_odd(&o->k) || is_odd(&o->v) || is_odd(&o->out),
        [FEATURE_TOKENS_FIRST] = q[1] > 1 && o->q.stride[1] < o->q.stride[2],
        [FEATURE_LSE] = o->lse.rank != 0,
        [FEATURE_KEY_MASS] = o->key_mass.rank != 0,
        [FEATURE_PROBS] = o->probs.rank != 0,
        [FEATURE_LENGTHS] = q[2] != k[2],
        [FEATURE_HALVES] = o->q.bits == 16,
    };
    for (int f = 0; f < FEATURE_COUNT; f++)
        c->features |= has[f] ? 1u << f : 0;
}

static void describe(struct op_case *c)
{
    const attn_op_call *o = &c->call;
    int n =
        snprintf(c->text, sizeof c->text,
                 "%s%d B%lld H%lld/%lld Nq%lld Nk%lld D%lld/%lld strides q(%lld,%lld,%lld,%lld)",
                 o->q.code == ATTN_CODE_BFLOAT ? "bf" : "f", o->q.bits, (long long)o->q.shape[0],
                 (long long)o->q.shape[1], (long long)o->k.shape[1], (long long)o->q.shape[2],
                 (long long)o->k.shape[2], (long long)o->q.shape[3], (long long)o->v.shape[3],
                 (long long)o->q.stride[0], (long long)o->q.stride[1], (long long)o->q.stride[2],
                 (long long)o->q.stride[3]);
    for (int b = BUF_BIAS; b < BUF_SCRATCH; b++)
        if (c->tensors[b]->rank && n < (int)sizeof c->text)
            n += snprintf(c->text + n, sizeof c->text - (size_t)n, " %s", names[b]);
    if (o->flags & ATTN_CALL_BAND && n < (int)sizeof c->text)
        snprintf(c->text + n, sizeof c->text - (size_t)n, " band[%lld,%lld]", (long long)o->band_lo,
                 (long long)o->band_hi);
}

static void tensors_list(struct op_case *c)
{
    attn_op_call *o = &c->call;
    attn_tensor *const tensors[BUF_SCRATCH] = {&o->q,    &o->k,   &o->v,        &o->out,  &o->bias,
                                               &o->mask, &o->lse, &o->key_mass, &o->probs};
    memcpy(c->tensors, tensors, sizeof tensors);
    describe(c);
    note_features(c);
}

static void begin(struct op_case *c, struct random *r, const struct sizes *s, uint64_t dtype,
                  enum layout layout)
{
    attn_op_call *o = &c->call;
    o->size = sizeof *o;
    o->q = draw_tensor(r, dtype, s->B, s->H, s->Nq, s->D, layout);
    o->k = draw_tensor(r, dtype, s->B, s->Hk, s->Nk, s->D, layout);
    o->v = draw_tensor(r, dtype, s->B, s->Hk, s->Nk, s->Dv, layout);
    o->out = draw_tensor(r, dtype, s->B, s->H, s->Nq, s->Dv, layout);
}

/* What kernels of devices are written for. */
static void align_all(attn_op_call *o)
{
    o->q.align = o->k.align = o->v.align = o->out.align = 16;
}

void op_case_plain(struct op_case *c, const struct plain_shape *shape, int64_t B, int64_t H)
{
    const struct sizes s = {B, H, H, shape->Nq, shape->Nk, shape->D, shape->D};
    memset(c, 0, sizeof *c);
    begin(c, NULL, &s, shape->dtype, shape->tokens_first ? LAYOUT_TOKENS_FIRST : LAYOUT_PACKED);
    if (device_type != ATTN_DEVICE_CPU)
        align_all(&c->call);
    tensors_list(c);
}

static void draw_edge(struct op_case *c, const struct sizes *s, int outputs)
{
    op_edge_options(c, s);
    if (outputs)
        c->call.lse = op_case_output(s, BUF_LSE);
    if (outputs == 1)
        c->call.key_mass = op_case_output(s, BUF_KEY_MASS);
}

/* A case of a shape that the op takes: as it is, or with what the kind adds. */
static void draw_known(struct op_case *c, enum op_kind kind, const struct plain_shape *shape,
                       struct random *r)
{
    const int exact = kind == KIND_PLAIN || random_percent(r, 40);
    struct sizes s = {exact ? 2 : random_between(r, 1, 2),
                      exact ? 2 : random_between(r, 1, 3),
                      0,
                      shape->Nq,
                      shape->Nk,
                      shape->D,
                      shape->D};
    s.Hk = s.H;
    if (kind == KIND_LONG) {
        s.B = 1;
        s.H = s.Hk = 1;
        s.Nk = 64 * random_between(r, 32, 48);
    }
    if (c->edge)
        op_edge_sizes(c->edge, &s);
    begin(c, NULL, &s, shape->dtype, shape->tokens_first ? LAYOUT_TOKENS_FIRST : LAYOUT_PACKED);
    if (c->edge)
        draw_edge(c, &s, random_percent(r, 50) ? 2 : 0);
    else if (kind == KIND_ANY && !exact)
        draw_options(r, &c->call, &s, shape->dtype);
    if (device_type != ATTN_DEVICE_CPU)
        align_all(&c->call);
}

enum { EVERY = 4 }; /* every fourth case is of a known shape */

static void draw_free(struct op_case *c, enum op_kind kind, uint64_t dtypes, struct random *r)
{
    struct sizes s = draw_sizes(r, c->edge ? KIND_ANY : kind);
    const uint64_t dtype = draw_dtype(r, dtypes);
    const int plain = kind == KIND_PLAIN || kind == KIND_LONG;
    const int odd = !plain && random_percent(r, 15);
    if (c->edge)
        op_edge_sizes(c->edge, &s);
    begin(c, r, &s, dtype, plain ? LAYOUT_PACKED : odd ? LAYOUT_ODD : LAYOUT_ROWS);
    if (!plain && random_percent(r, 5))
        broadcast(r, &c->call);
    if (c->edge)
        draw_edge(c, &s, (int)(c->index % EVERY));
    else if (!plain)
        draw_options(r, &c->call, &s, dtype);
    if (device_type != ATTN_DEVICE_CPU)
        draw_alignment(r, &c->call);
}

void op_case_draw(struct op_case *c, enum op_kind kind, uint64_t dtypes, uint64_t seed,
                  uint64_t index)
{
    struct random r = random_for(seed + 1000003u * (uint64_t)kind, index);
    const int wanted = kind == KIND_LONG ? index % 2 == 1 : index % EVERY == EVERY - 1;
    const struct plain_shape *known = wanted ? op_takes_pick(&r, dtypes) : NULL;
    memset(c, 0, sizeof *c);
    c->seed = seed;
    c->index = index;
    if (kind == KIND_EDGE && (index < EVERY * EDGE_COUNT || known))
        c->edge = 1 + (int)(index / EVERY % EDGE_COUNT);
    if (known)
        draw_known(c, kind, known, &r);
    else
        draw_free(c, kind, dtypes, &r);
    tensors_list(c);
}
