/* op_words.c: a case in words, for reports: what it is, and what it has that others lack. */
#include "op_layout.h"

#include <stdio.h>

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
    [FEATURE_TOKENS_FIRST] = "tokens before heads in memory",
    [FEATURE_LSE] = "lse",
    [FEATURE_KEY_MASS] = "key_mass",
    [FEATURE_PROBS] = "probs",
    [FEATURE_LENGTHS] = "other lengths of queries and keys",
    [FEATURE_HALVES] = "halves",
};

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

void op_case_words(struct op_case *c)
{
    describe(c);
    note_features(c);
}
