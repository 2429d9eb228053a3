/* layer_tests.c: a processor over random layers, on a compute that is strict about the dry run and
 * sums in double: what it computes, once and again.  layer_bind.c has what it refuses, layer_life.c
 * what it does besides computing. */
#include "layer_session.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* -- numbers
 * ------------------------------------------------------------------------------------------------
 */

struct tally {
    int64_t plain, other;
    double worst;
    char first_other[512];
    int64_t first_other_index;
};

static void number_one(const struct check *k, int64_t index, struct tally *t, struct result *r)
{
    struct session s;
    struct fake_run run;
    if (session_open(k, &s, index, r) == ATTN_OK && session_run(k, &s, &run, r) == ATTN_OK) {
        double share = distance_share(&s.c);
        r->taken++;
        if (share <= 1) {
            t->plain++;
            t->worst = fmax(t->worst, share);
        } else if (!t->other++) {
            t->first_other_index = index;
            (void)snprintf(t->first_other, sizeof t->first_other, "%s", s.c.text);
        }
        fake_release(&run);
    }
    session_close(k, &s);
}

/* A processor computes the plain layer, or something of its own, which may be the same here and
 * there: frames of a video are their own first frame where there is but one, and norms that are
 * left out matter only to layers that have them.  One that mostly agrees is meant to be plain. */
static void layer_numbers(const struct check *k, struct result *r)
{
    struct tally t = {0};
    int64_t first, end;
    case_range(k, 80, 1000, &first, &end);
    for (int64_t i = first; i < end && r->verdict != VERDICT_SKIP; i++)
        number_one(k, i, &t, r);
    r->worst = t.worst;
    r->current = t.other ? t.first_other_index : -1;
    if (t.other && t.plain > t.other) {
        (void)snprintf(r->case_text, sizeof r->case_text, "%s", t.first_other);
        finding(r, "agrees with diffusers' layer on %lld calls and differs on %lld",
                (long long)t.plain, (long long)t.other);
    } else if (t.other) {
        (void)snprintf(r->message, sizeof r->message,
                       "computes something else than diffusers' layer on %lld of %lld calls",
                       (long long)t.other, (long long)(t.plain + t.other));
    } else if (!t.plain && r->verdict == VERDICT_PASS) {
        finding(r,
                "takes none of %lld layers, nor any with added projections or with an image "
                "prompt: what else it may want, no engine knows",
                (long long)r->cases);
    }
}

/* -- the same plan again
 * ------------------------------------------------------------------------------------ */

static void compare_runs(struct session *s, struct fake_run *run, uint64_t before, const char *what,
                         struct result *r)
{
    layer_case_poison(&s->c);
    attn_status status = fake_execute(run, &s->c.call);
    if (status != ATTN_OK)
        finding(r, "%s: %s: %s", what, attn_status_name(status), run->text);
    else if (layer_case_bits(&s->c) != before)
        finding(r, "%s: other bits than before", what);
}

/* Whether out may lie where the hidden states do: of their shape, and laid out alike. */
static int may_be_in_place(const attn_layer_call *c)
{
    return !memcmp(c->hidden.shape, c->out.shape, sizeof c->out.shape) &&
           !memcmp(c->hidden.stride, c->out.stride, sizeof c->out.stride);
}

/* s->c.call.out has the result of a run of its own. */
static void in_place(struct session *s, struct fake_run *run, struct result *r)
{
    const attn_tensor apart = s->c.call.out, shared = s->c.call.hidden;
    s->c.call.out = shared;
    attn_status status = fake_execute(run, &s->c.call);
    s->c.call.out = apart;
    if (status != ATTN_OK)
        finding(r, "out in the hidden states' memory: %s", run->text);
    else if (!layer_case_same(&apart, &shared))
        finding(r, "out in the hidden states' memory: another result");
}

static void replay_one(const struct check *k, int64_t index, struct result *r)
{
    struct session s;
    struct fake_run run;
    if (session_open(k, &s, index, r) == ATTN_OK && session_run(k, &s, &run, r) == ATTN_OK) {
        const uint64_t first = layer_case_bits(&s.c);
        r->taken++;
        compare_runs(&s, &run, first, "the same call again", r);
        s.c.call.flags |= ATTN_LAYER_CALL_SAME;
        compare_runs(&s, &run, first, "with ATTN_LAYER_CALL_SAME", r);
        s.c.call.flags = 0;
        if (may_be_in_place(&s.c.call))
            in_place(&s, &run, r);
        fake_release(&run);
    }
    session_close(k, &s);
}

static void layer_replay(const struct check *k, struct result *r)
{
    int64_t first, end;
    case_range(k, 40, 400, &first, &end);
    for (int64_t i = first; i < end && r->verdict != VERDICT_SKIP; i++)
        replay_one(k, i, r);
    r->current = -1;
}

const struct test layer_tests[] = {
    {"bind", "unknown parameters, missing weights and wrong shapes are refused with a text",
     layer_bind_strict, NULL},
    {"refusals", "calls that break the contract are refused with a text", layer_refusals, NULL},
    {"layers", "random layers of every flag against double precision; dry and real runs alike",
     layer_numbers, NULL},
    {"again", "the same plan again, with kept keys, and in place: the same bits", layer_replay,
     "whether a plan can run again"},
    {"two-plans", "two plans of one binding, and two instances, on two threads", layer_threads,
     "what two threads do to it"},
    {"heap", "run takes no memory from the heap", layer_allocation, "whether run takes memory"},
    {"lives", "nothing is left behind: memory, threads, files, floating-point mode, signals",
     layer_leaks, NULL},
    {NULL, NULL, NULL, NULL},
};
