#include "op_run.h"
#include "on_device.h"
#include "op_takes.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

int caught_open(struct caught *c, struct result *r)
{
    if (guard_open(&c->buffer, 160, 1, 0)) {
        finding(r, "no memory for error texts");
        return -1;
    }
    c->err = (attn_error){sizeof c->err, 160, (char *)c->buffer.data, 0};
    caught_clear(c);
    return 0;
}

void caught_clear(struct caught *c)
{
    memset(c->buffer.data, 'x', c->buffer.bytes);
    c->buffer.data[0] = 0;
    c->err.capacity = (uint32_t)c->buffer.bytes;
}

void caught_look(struct caught *c, struct result *r, const char *function, attn_status s)
{
    if (s < ATTN_OK || s > ATTN_INTERNAL)
        finding(r, "%s: status %d is none of the contract's", function, s);
    if (s == ATTN_OK)
        return;
    if (!memchr(c->buffer.data, 0, c->buffer.bytes))
        finding(r, "%s: the error text is not NUL-terminated", function);
    else if (!c->buffer.data[0])
        finding(r, "%s: status %s without a text", function, attn_status_name(s));
    else if (strchr((char *)c->buffer.data, '\n'))
        finding(r, "%s: the error text has more than one line", function);
    if (!guard_intact(&c->buffer))
        finding(r, "%s: wrote outside of the error text", function);
}

void caught_close(struct caught *c)
{
    guard_close(&c->buffer);
}

attn_op *instance_open(const struct check *k, const attn_host *host, struct result *r)
{
    char text[256] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    attn_op *op = NULL;
    attn_status s = k->op->create(host, &k->options->device, NULL, 0, &op, &err);
    if (s == ATTN_OK && !op)
        finding(r, "create: ATTN_OK without an op");
    else if (s == ATTN_UNSUPPORTED) {
        r->verdict = VERDICT_SKIP;
        (void)snprintf(r->message, sizeof r->message, "create: %s", text);
        op = NULL;
    } else if (s != ATTN_OK) {
        finding(r, "create: %s: %s", attn_status_name(s), text);
        op = NULL;
    }
    if (op)
        op_takes_learn(k, op);
    return op;
}

static attn_status case_prepare(const struct check *k, attn_op *op, struct op_case *c,
                                struct caught *e, attn_op_plan **plan, uint64_t *scratch,
                                struct result *r)
{
    caught_clear(e);
    attn_status can = k->op->supports(op, &c->call, &e->err);
    caught_look(e, r, "supports", can);
    caught_clear(e);
    *plan = NULL;
    *scratch = UINT64_MAX;
    attn_status s = k->op->prepare(op, &c->call, plan, scratch, &e->err);
    caught_look(e, r, "prepare", s);
    if ((can == ATTN_OK) != (s == ATTN_OK))
        finding(r, "supports says %s, prepare %s (%s)", attn_status_name(can), attn_status_name(s),
                s ? (char *)e->buffer.data : "no text");
    if (can == ATTN_INVALID || s == ATTN_INVALID)
        finding(r, "a call that the contract allows is INVALID: %s", (char *)e->buffer.data);
    if (s == ATTN_OK && !*plan)
        finding(r, "prepare: ATTN_OK without a plan");
    if (s == ATTN_OK && *scratch > UINT64_C(1) << 32)
        finding(r, "prepare: asks for %llu bytes of scratch", (unsigned long long)*scratch);
    return r->failed && s == ATTN_OK && (!*plan || *scratch > UINT64_C(1) << 32) ? ATTN_INTERNAL
                                                                                 : s;
}

attn_status case_run(const struct check *k, attn_op *op, struct op_case *c, struct caught *e,
                     attn_op_plan **plan, struct result *r)
{
    uint64_t scratch = 0;
    attn_status s = case_prepare(k, op, c, e, plan, &scratch, r);
    if (s != ATTN_OK)
        return s;
    if (op_case_fill(c, 1) || op_case_scratch(c, scratch, 0xFF)) {
        finding(r, "no memory for the case");
        s = ATTN_NOMEM;
    } else {
        caught_clear(e);
        s = case_execute(k, *plan, c, &e->err);
        caught_look(e, r, "run", s);
        if (s != ATTN_OK)
            finding(r, "run: %s for a call that prepare took: %s", attn_status_name(s),
                    (char *)e->buffer.data);
        char over[64];
        if (op_case_overrun(c, over, sizeof over))
            finding(r, "run wrote %s", over);
    }
    if (s == ATTN_OK)
        return s;
    k->op->release(*plan);
    *plan = NULL;
    return s;
}

double bound_for(const attn_tensor *t)
{
    if (t->code == ATTN_CODE_BFLOAT)
        return 8e-3;
    return t->bits == 16 ? 1e-3 : (t->bits == 64 ? 1e-12 : 2e-6);
}

/* What a distance usually means. */
static const char *likely(const struct distance *d, double bound)
{
    if (d->misplaced)
        return NULL;
    if (d->cosine < 0.99)
        return "another scale (scale == 0 means 1/sqrt(D)), something added to the scores, or "
               "another function than softmax?";
    return d->relative > 100 * bound ? "an approximation says so in its head "
                                       "(ATTN_HEAD_APPROXIMATE) and is held to a cosine"
                                     : NULL;
}

enum { NEAREST = 9995 }; /* an approximate op's least cosine, in ten thousandths */

static void compare_approximate(const struct distance *d, const char *name, struct result *r)
{
    finding_numeric(r,
                    "%s: cosine %.6f, expected at least %.4f of an approximate op%s; %lld wrong "
                    "infinities or NaNs; at [%lld,%lld,%lld,%lld] %.9g instead of %.9g",
                    name, d->cosine, NEAREST / 1e4,
                    d->cosine < 0.9 ? ": below 0.9 this is another function than softmax "
                                      "attention; make it a processor (plugins/README.md)"
                                    : "",
                    (long long)d->misplaced, (long long)d->first[0], (long long)d->first[1],
                    (long long)d->first[2], (long long)d->first[3], d->got, d->wanted);
}

static void compare_one(const struct check *k, const attn_tensor *t, const char *name,
                        const double *want, double bound, double floor, struct result *r)
{
    if (!t->rank)
        return;
    struct distance d = distance_of(t, want, floor);
    const int approximate = (k->op->head.flags & ATTN_HEAD_APPROXIMATE) != 0;
    const double share = approximate ? (1 - d.cosine) / (1 - NEAREST / 1e4) : d.relative / bound;
    if (share > r->worst) {
        r->worst = share;
        r->worst_case = r->current;
    }
    if (!d.misplaced && share <= 1)
        return;
    if (!r->failed && !approximate)
        r->guess = likely(&d, bound);
    if (approximate)
        compare_approximate(&d, name, r);
    else
        finding_numeric(r,
                        "%s: relative error %.3g, cosine %.6f, expected relative error at most "
                        "%.1g; %lld wrong infinities or NaNs; at [%lld,%lld,%lld,%lld] %.9g "
                        "instead of %.9g",
                        name, d.relative, d.cosine, bound, (long long)d.misplaced,
                        (long long)d.first[0], (long long)d.first[1], (long long)d.first[2],
                        (long long)d.first[3], d.got, d.wanted);
}

/* Rows that see no key show in the reference. */
static void note_dark_rows(struct op_case *c, const struct reference *ref)
{
    const int64_t *n = c->call.q.shape;
    for (int64_t i = 0; i < n[0] * n[1] * n[2]; i++)
        if (isinf(ref->lse[i]))
            c->features |= 1u << FEATURE_DARK_ROWS;
}

void case_compare(const struct check *k, struct op_case *c, struct result *r)
{
    struct reference ref;
    if (reference_open(&ref, &c->call)) {
        finding(r, "no memory for the reference");
        return;
    }
    double bound = bound_for(&c->call.q);
    compare_one(k, &c->call.out, "out", ref.out, bound, 0, r);
    compare_one(k, &c->call.lse, "lse", ref.lse, bound, 1, r);
    compare_one(k, &c->call.key_mass, "key_mass", ref.key_mass, bound, 0, r);
    compare_one(k, &c->call.probs, "probs", ref.probs, bound, 0, r);
    note_dark_rows(c, &ref);
    reference_close(&ref);
}

void features_count(const struct op_case *c, int is_wrong, struct result *r)
{
    r->judged[is_wrong]++;
    for (int f = 0; f < FEATURE_COUNT; f++)
        r->with[is_wrong][f] += c->features >> f & 1;
}

/* The feature that all wrong cases have, and fewest of the right ones; -1 where it says little. */
static int telling_feature(const struct result *r)
{
    int best = -1;
    for (int f = 0; r->judged[1] > 1 && r->judged[0] && f < FEATURE_COUNT; f++)
        if (r->with[1][f] == r->judged[1] && 3 * r->with[0][f] < r->judged[0] &&
            (best < 0 || r->with[0][f] < r->with[0][best]))
            best = f;
    return best;
}

void features_tell(struct result *r)
{
    const long long right = r->judged[0], wrong = r->judged[1];
    const int feature = telling_feature(r);
    if (feature < 0) {
        /* Where plain calls are wrong too, that is the place to look. */
        if (r->guess && !strcmp(r->name, "plain"))
            finding_more(r, "; %s", r->guess);
        return;
    }
    finding_more(r, "; all %lld wrong cases have %s, ", wrong, feature_words[feature]);
    if (r->with[0][feature])
        finding_more(r, "and %lld of %lld right ones", (long long)r->with[0][feature], right);
    else
        finding_more(r, "and none of %lld right ones", right);
}

uint64_t case_bits(const struct op_case *c)
{
    static const enum op_buffer outputs[] = {BUF_OUT, BUF_LSE, BUF_KEY_MASS, BUF_PROBS};
    uint64_t sum = 0;
    for (size_t o = 0; o < sizeof outputs / sizeof *outputs; o++)
        if (c->buffers[outputs[o]].base)
            sum = sum * 31 + guard_bits(&c->buffers[outputs[o]]);
    return sum;
}
