/* op_broken.c: calls that break the contract must be refused, with a text, and leave the op usable.
 */
#include "op_run.h"
#include "op_takes.h"
#include "op_tests.h"

#include <string.h>

/* Each breaks a right call in one way. */
static void small_size(attn_op_call *c)
{
    c->size = 64;
}
static void no_query(attn_op_call *c)
{
    c->q.rank = 0;
}
static void no_out(attn_op_call *c)
{
    c->out.rank = 0;
}
static void rank_three(attn_op_call *c)
{
    c->k.rank = 3;
}
static void rank_nine(attn_op_call *c)
{
    c->v.rank = 9;
}
static void key_dim(attn_op_call *c)
{
    c->k.shape[3] += 8;
}
static void value_length(attn_op_call *c)
{
    c->v.shape[2] += 1;
}
static void batch(attn_op_call *c)
{
    c->k.shape[0] += 1;
}
static void heads(attn_op_call *c)
{
    c->q.shape[1] = 5, c->out.shape[1] = 5, c->k.shape[1] = c->v.shape[1] = 2;
}
static void no_key_heads(attn_op_call *c)
{
    c->k.shape[1] = c->v.shape[1] = 0;
}
static void out_rows(attn_op_call *c)
{
    c->out.shape[2] += 1;
}
static void out_dim(attn_op_call *c)
{
    c->out.shape[3] += 8;
}
static void negative(attn_op_call *c)
{
    c->q.shape[2] = c->out.shape[2] = -4;
}
static void out_broadcast(attn_op_call *c)
{
    c->out.stride[2] = 0;
}
static void another_type(attn_tensor *t)
{
    t->bits = t->bits == 32 ? 16 : 32, t->code = ATTN_CODE_FLOAT;
}
static void mixed_q(attn_op_call *c)
{
    another_type(&c->q);
}
static void mixed_k(attn_op_call *c)
{
    another_type(&c->k);
}
static void mixed_v(attn_op_call *c)
{
    another_type(&c->v);
}
static void mixed_out(attn_op_call *c)
{
    another_type(&c->out);
}
static void lanes(attn_op_call *c)
{
    c->q.lanes = 4;
}
static void integers(attn_op_call *c)
{
    c->q.code = c->k.code = c->v.code = c->out.code = ATTN_CODE_INT;
}
static void elsewhere(attn_op_call *c)
{
    c->q.device_type = ATTN_DEVICE_CPU + 20;
}
static void flag(attn_op_call *c)
{
    c->flags |= 1u << 30;
}

static attn_tensor map(const attn_op_call *c, uint8_t code, uint8_t bits)
{
    attn_tensor t = c->q;
    t.shape[3] = c->k.shape[2];
    t.stride[0] = t.stride[1] = t.stride[2] = 0;
    t.stride[3] = 1;
    t.code = code;
    t.bits = bits;
    return t;
}
static void bias_short(attn_op_call *c)
{
    c->bias = map(c, ATTN_CODE_FLOAT, 32), c->bias.shape[3] -= 1;
}
static void bias_rank(attn_op_call *c)
{
    c->bias = map(c, ATTN_CODE_FLOAT, 32), c->bias.rank = 2;
}
static void mask_float(attn_op_call *c)
{
    c->mask = map(c, ATTN_CODE_FLOAT, 32);
}
static void mask_lanes(attn_op_call *c)
{
    c->mask = map(c, ATTN_CODE_UINT, 8), c->mask.lanes = 4;
}
static void lse_half(attn_op_call *c)
{
    c->lse = map(c, ATTN_CODE_FLOAT, 16);
    c->lse.rank = 3;
    c->lse.stride[0] = c->q.shape[1] * c->q.shape[2];
    c->lse.stride[1] = c->q.shape[2];
    c->lse.stride[2] = 1;
}
static void mass_short(attn_op_call *c)
{
    c->key_mass = map(c, ATTN_CODE_FLOAT, 32);
    c->key_mass.rank = 2;
    c->key_mass.shape[1] = c->k.shape[2] - 1;
    c->key_mass.stride[0] = c->k.shape[2];
    c->key_mass.stride[1] = 1;
}
static const attn_ext unknown = {NULL, "example.unknown/1", sizeof unknown, ATTN_EXT_REQUIRED};
static void extension(attn_op_call *c)
{
    c->ext = &unknown;
}

static const struct {
    const char *what;
    void (*apply)(attn_op_call *c);
} breaks[] = {
    {"size 64", small_size},
    {"no q", no_query},
    {"no out", no_out},
    {"k of rank 3", rank_three},
    {"v of rank 9", rank_nine},
    {"k of another head dimension", key_dim},
    {"v of another length than k", value_length},
    {"k of another batch", batch},
    {"5 heads over 2", heads},
    {"no key heads", no_key_heads},
    {"out with more rows than q", out_rows},
    {"out of another head dimension than v", out_dim},
    {"a negative length", negative},
    {"an output with stride 0", out_broadcast},
    {"q of another type than k, v and out", mixed_q},
    {"k of another type than q", mixed_k},
    {"v of another type than q", mixed_v},
    {"out of another type than q", mixed_out},
    {"4 lanes", lanes},
    {"integers", integers},
    {"q on device type 21", elsewhere},
    {"an unknown flag", flag},
    {"bias too short", bias_short},
    {"bias of rank 2", bias_rank},
    {"a float mask", mask_float},
    {"a mask of 4 lanes", mask_lanes},
    {"lse in half precision", lse_half},
    {"key_mass too short", mass_short},
    {"a required extension that nobody knows", extension},
};

/* Beside a q that the op takes, another type of k, v or out can only be wrong, for any op.  Other
 * breaks may be refused for something that the op does not do. */
static int is_invalid(int64_t index)
{
    void (*apply)(attn_op_call *) = breaks[index].apply;
    return apply == mixed_k || apply == mixed_v || apply == mixed_out;
}

/* A call that is taken as it is, and of which every break breaks something.  0, or -1 where none is
 * found: then an op refuses all of them for reasons of its own. */
static int whole_call(const struct check *k, attn_op *op, struct op_case *c)
{
    enum { TRIES = 2000 };
    struct random r = random_for(k->options->seed + 8, 0);
    const struct plain_shape *known = op_takes_pick(&r, k->op->head.dtypes);
    if (known) {
        op_case_plain(c, known, 2, 2);
        return 0;
    }
    for (uint64_t i = 0; i < TRIES; i++) {
        op_case_draw(c, KIND_PLAIN, k->op->head.dtypes, k->options->seed + 8, i);
        if (c->call.q.shape[2] > 1 && c->call.k.shape[2] > 1 &&
            k->op->supports(op, &c->call, NULL) == ATTN_OK)
            return 0;
    }
    return -1;
}

static void try_one(const struct check *k, attn_op *op, struct caught *e, int64_t index,
                    struct result *r)
{
    struct op_case c;
    attn_op_plan *plan = NULL;
    uint64_t scratch = 0;
    const int whole = whole_call(k, op, &c) == 0;
    begin_case(r, index, breaks[index].what);
    breaks[index].apply(&c.call);
    caught_clear(e);
    attn_status can = k->op->supports(op, &c.call, &e->err);
    caught_look(e, r, "supports", can);
    caught_clear(e);
    attn_status s = k->op->prepare(op, &c.call, &plan, &scratch, &e->err);
    caught_look(e, r, "prepare", s);
    if (can == ATTN_OK || s == ATTN_OK)
        finding(r, "%s: %s takes it", breaks[index].what, can == ATTN_OK ? "supports" : "prepare");
    else if (whole && is_invalid(index) && (can == ATTN_UNSUPPORTED || s == ATTN_UNSUPPORTED))
        finding(r, "%s: %s says UNSUPPORTED, expected INVALID: q, k, v and out are of one type",
                breaks[index].what, can == ATTN_UNSUPPORTED ? "supports" : "prepare");
    if (s == ATTN_OK)
        k->op->release(plan);
    attn_error mute = {sizeof mute, 0, NULL, 0}; /* an error that has no room for a text */
    (void)k->op->supports(op, &c.call, &mute);
    r->taken += whole;
}

/* What a host of later days may hand over: structs that have grown, extensions that need not be
 * known. */
static void try_later(const struct check *k, attn_op *op, struct result *r)
{
    static const attn_ext optional = {NULL, "example.unknown/1", sizeof optional, 0};
    struct op_case c;
    if (whole_call(k, op, &c))
        return;
    c.call.ext = &optional;
    if (k->op->supports(op, &c.call, NULL) != ATTN_OK)
        finding(r, "refuses a call for an extension that is not required");
    c.call.ext = NULL;
    c.call.size += 64;
    if (k->op->supports(op, &c.call, NULL) != ATTN_OK)
        finding(r, "refuses a call whose size is more than it knows: expected at least %zu",
                sizeof c.call);
}

void op_broken(const struct check *k, struct result *r)
{
    struct caught e;
    int64_t n = sizeof breaks / sizeof *breaks, only = k->options->case_index;
    attn_op *op = instance_open(k, k->host, r);
    if (!op || caught_open(&e, r))
        return;
    for (int64_t i = 0; i < n; i++)
        if (only < 0 || only == i)
            try_one(k, op, &e, i, r);
    r->current = -1;
    if (only < 0)
        try_later(k, op, r);
    caught_close(&e);
    k->op->destroy(op);
}
