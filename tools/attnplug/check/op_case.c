#include "op_layout.h"
#include "op_takes.h"

#include <string.h>

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
        c->bias = layout_map(r, s, random_percent(r, 50) ? ATTN_DTYPE_F32 : dtype);
    if (random_percent(r, 30)) {
        c->mask = layout_map(r, s, dtype);
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

/* Strides are signed: in one case of eight some of the tensors run backwards. */
static void draw_reversed(struct random *r, attn_op_call *c)
{
    attn_tensor *const all[] = {&c->q,    &c->k,   &c->v,        &c->out,  &c->bias,
                                &c->mask, &c->lse, &c->key_mass, &c->probs};
    if (!random_percent(r, 12))
        return;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]->rank && random_percent(r, 50))
            strided_reverse(r, all[i]);
}

/* -- what is promised of addresses
 * ------------------------------------------------------------------------------------------- */

static void promise(attn_op_call *c, uint32_t bytes)
{
    attn_tensor *const four[] = {&c->q, &c->k, &c->v, &c->out};
    for (int i = 0; i < 4; i++)
        four[i]->align = bytes;
}

/* What kernels of devices are written for. */
static void align_all(attn_op_call *c)
{
    if (c->q.device_type != ATTN_DEVICE_CPU)
        promise(c, 16);
}

/* Kernels of devices want whole pieces: half of the cases promise them, the others nothing.  On a
 * CPU most promise nothing, and end where the unreadable page begins. */
static void draw_alignment(struct random *r, attn_op_call *c)
{
    const int nothing = c->q.device_type == ATTN_DEVICE_CPU ? 90 : 50;
    promise(c, random_percent(r, nothing) ? 0 : random_percent(r, 80) ? 16 : 256);
}

/* -- the whole
 * ------------------------------------------------------------------------------------------- */

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

static void tensors_list(struct op_case *c)
{
    attn_op_call *o = &c->call;
    attn_tensor *const tensors[BUF_SCRATCH] = {&o->q,    &o->k,   &o->v,        &o->out,  &o->bias,
                                               &o->mask, &o->lse, &o->key_mass, &o->probs};
    memcpy(c->tensors, tensors, sizeof tensors);
    op_case_words(c);
}

static void begin(struct op_case *c, struct random *r, const struct sizes *s, uint64_t dtype,
                  enum layout layout)
{
    attn_op_call *o = &c->call;
    o->size = sizeof *o;
    o->q = layout_tensor(r, dtype, s->B, s->H, s->Nq, s->D, layout);
    o->k = layout_tensor(r, dtype, s->B, s->Hk, s->Nk, s->D, layout);
    o->v = layout_tensor(r, dtype, s->B, s->Hk, s->Nk, s->Dv, layout);
    o->out = layout_tensor(r, dtype, s->B, s->H, s->Nq, s->Dv, layout);
}

void op_case_plain(struct op_case *c, const struct plain_shape *shape, int64_t B, int64_t H)
{
    const struct sizes s = {B, H, H, shape->Nq, shape->Nk, shape->D, shape->D};
    memset(c, 0, sizeof *c);
    begin(c, NULL, &s, shape->dtype, shape->tokens_first ? LAYOUT_TOKENS_FIRST : LAYOUT_PACKED);
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
    align_all(&c->call);
    if (kind == KIND_ANY && !exact)
        draw_reversed(r, &c->call);
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
        layout_broadcast(r, &c->call);
    if (c->edge)
        draw_edge(c, &s, (int)(c->index % EVERY));
    else if (!plain)
        draw_options(r, &c->call, &s, dtype);
    draw_alignment(r, &c->call);
    if (!plain)
        draw_reversed(r, &c->call);
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
