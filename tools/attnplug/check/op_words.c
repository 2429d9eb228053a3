/* op_words.c: a case in words, for reports: what it is, and what it has that others lack. */
#include "op_layout.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[BUF_COUNT] = {"q",    "k",   "v",        "out",   "bias",
                                             "mask", "lse", "key_mass", "probs", "scratch"};

const char *op_buffer_name(enum op_buffer b)
{
    return names[b];
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
    [FEATURE_REVERSED] = "a negative stride",
    [FEATURE_TOKENS_FIRST] = "tokens before heads in memory",
    [FEATURE_LSE] = "lse",
    [FEATURE_KEY_MASS] = "key_mass",
    [FEATURE_PROBS] = "probs",
    [FEATURE_LENGTHS] = "other lengths of queries and keys",
    [FEATURE_HALVES] = "halves",
};

static int any_reversed(const struct op_case *c)
{
    for (int b = 0; b < BUF_SCRATCH; b++)
        if (c->tensors[b]->rank && strided_is_reversed(c->tensors[b]))
            return 1;
    return 0;
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
        [FEATURE_STRIDES] = layout_is_odd(&o->q) || layout_is_odd(&o->k) || layout_is_odd(&o->v) ||
                            layout_is_odd(&o->out),
        [FEATURE_REVERSED] = any_reversed(c),
        [FEATURE_TOKENS_FIRST] = q[1] > 1 && llabs(o->q.stride[1]) < llabs(o->q.stride[2]),
        [FEATURE_LSE] = o->lse.rank != 0,
        [FEATURE_KEY_MASS] = o->key_mass.rank != 0,
        [FEATURE_PROBS] = o->probs.rank != 0,
        [FEATURE_LENGTHS] = q[2] != k[2],
        [FEATURE_HALVES] = o->q.bits == 16,
    };
    for (int f = 0; f < FEATURE_COUNT; f++)
        c->features |= has[f] ? 1u << f : 0;
}

__attribute__((format(printf, 2, 3))) static void say(struct op_case *c, const char *format, ...)
{
    const size_t used = strlen(c->text);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(c->text + used, sizeof c->text - used, format, args);
    va_end(args);
}

/* "k(4096,64,-64,1)"; of a tensor that need not be there its name at least. */
static void say_strides(struct op_case *c, enum op_buffer b)
{
    const attn_tensor *t = c->tensors[b];
    const int packed = layout_is_packed(t);
    if (!t->rank || (packed && b <= BUF_OUT))
        return;
    say(c, " %s", names[b]);
    for (uint32_t a = 0; a < t->rank && !packed; a++)
        say(c, "%s%lld%s", a ? "," : "(", (long long)t->stride[a], a + 1 == t->rank ? ")" : "");
}

/* Strides where they are not a packed tensor's. */
static void describe(struct op_case *c)
{
    const attn_op_call *o = &c->call;
    say(c, "%s%d B%lld H%lld/%lld Nq%lld Nk%lld D%lld/%lld",
        o->q.code == ATTN_CODE_BFLOAT ? "bf" : "f", o->q.bits, (long long)o->q.shape[0],
        (long long)o->q.shape[1], (long long)o->k.shape[1], (long long)o->q.shape[2],
        (long long)o->k.shape[2], (long long)o->q.shape[3], (long long)o->v.shape[3]);
    for (int b = 0; b < BUF_SCRATCH; b++)
        say_strides(c, (enum op_buffer)b);
    if (o->flags & ATTN_CALL_BAND)
        say(c, " band[%lld,%lld]", (long long)o->band_lo, (long long)o->band_hi);
}

void op_case_words(struct op_case *c)
{
    describe(c);
    note_features(c);
}
