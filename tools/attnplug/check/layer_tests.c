/* layer_tests.c: a processor over random layers, on a compute that is strict about the dry run and
 * sums in double. */
#include "check.h"
#include "fake_compute.h"
#include "layer_case.h"
#include "reference.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double bound = 1e-5;

/* A processor, a binding and a case, open together. */
struct session {
    struct fake_compute fake;
    attn_processor *processor;
    attn_binding *binding;
    struct layer_case c;
    enum layer_form form;
    char text[256];
    attn_error err;
};

static enum layer_form form_of(const struct check *k);

static attn_status processor_open(const struct check *k, struct session *s, struct result *r)
{
    attn_device device = {ATTN_DEVICE_CPU, 0, "cpu"};
    memset(s, 0, sizeof *s);
    s->form = form_of(k);
    fake_init(&s->fake);
    s->err = (attn_error){sizeof s->err, sizeof s->text, s->text, 0};
    attn_status status =
        k->processor->create(&s->fake.host, &device, NULL, 0, &s->processor, &s->err);
    if (status == ATTN_UNSUPPORTED) {
        r->verdict = VERDICT_SKIP;
        (void)snprintf(r->message, sizeof r->message, "create: %s", s->text);
    } else if (status != ATTN_OK || !s->processor) {
        finding(r, "create: %s: %s", attn_status_name(status), s->text);
        status = ATTN_INTERNAL;
    }
    return status;
}

static void session_close(const struct check *k, struct session *s)
{
    if (s->binding)
        k->processor->unbind(s->binding);
    if (s->processor)
        k->processor->destroy(s->processor);
    layer_case_close(&s->c);
}

/* Opens case `index`, bound.  ATTN_UNSUPPORTED where the processor says that the layer is not for
 * it. */
static attn_status session_open(const struct check *k, struct session *s, int64_t index,
                                struct result *r)
{
    attn_status status = processor_open(k, s, r);
    if (status != ATTN_OK)
        return status;
    if (layer_case_open(&s->c, s->form, k->options->seed, (uint64_t)index)) {
        finding(r, "no memory for the case");
        return ATTN_NOMEM;
    }
    begin_case(r, index, s->c.text);
    attn_work work = fake_bind_work(&s->fake, &s->err);
    s->text[0] = 0;
    status = k->processor->bind(s->processor, &s->c.layer, s->c.params, s->c.n_params, &work,
                                &s->binding, &s->err);
    if (status == ATTN_OK && !s->binding)
        finding(r, "bind: ATTN_OK without a binding");
    if (status != ATTN_OK && !s->text[0])
        finding(r, "bind: %s without a text", attn_status_name(status));
    if (status != ATTN_OK)
        s->binding = NULL;
    return status;
}

/* prepare and run once; the plan stays in *run.  ATTN_UNSUPPORTED where prepare refuses. */
static attn_status session_run(const struct check *k, struct session *s, struct fake_run *run,
                               struct result *r)
{
    memset(run, 0, sizeof *run);
    attn_status status = fake_prepare(run, &s->fake, k->processor, s->binding, &s->c.call);
    if (status == ATTN_UNSUPPORTED || status == ATTN_INVALID) {
        if (!run->text[0])
            finding(r, "prepare: %s without a text", attn_status_name(status));
        return ATTN_UNSUPPORTED;
    }
    if (status != ATTN_OK) {
        finding(r, "prepare: %s: %s", attn_status_name(status), run->text);
        return status;
    }
    layer_case_poison(&s->c);
    status = fake_execute(run, &s->c.call);
    if (status != ATTN_OK)
        finding(r, "run: %s: %s", attn_status_name(status), run->text);
    return status;
}

/* The first form of which the processor takes a layer; plain where it takes none.  One process runs
 * one test: looked for once. */
static enum layer_form form_of(const struct check *k)
{
    enum { TRIES = 40 };
    static int form = -1;
    if (form >= 0)
        return (enum layer_form)form;
    for (form = 0; form < FORM_COUNT; form++)
        for (int64_t i = 0; i < TRIES; i++) {
            struct session s;
            struct fake_run run;
            struct result unseen = {0};
            int taken = session_open(k, &s, i, &unseen) == ATTN_OK;
            if (taken) {
                memset(&run, 0, sizeof run);
                taken = fake_prepare(&run, &s.fake, k->processor, s.binding, &s.c.call) == ATTN_OK;
                if (taken)
                    fake_release(&run);
            }
            session_close(k, &s);
            if (taken)
                return (enum layer_form)form;
        }
    form = FORM_PLAIN;
    return FORM_PLAIN;
}

/* The largest distance of what was asked for from diffusers' layer, as a share of the bound. */
static double distance_share(const struct layer_case *c)
{
    attn_tensor out = layer_tokens(&c->call.out);
    struct distance d = distance_of(&out, c->want, 0);
    double worst = d.misplaced ? INFINITY : d.relative / bound;
    if (c->call.lse.rank)
        worst = fmax(worst, distance_of(&c->call.lse, c->want_lse, 1).relative / bound);
    if (c->call.key_mass.rank)
        worst = fmax(worst, distance_of(&c->call.key_mass, c->want_mass, 0).relative / bound);
    if (c->call.probs.rank)
        worst = fmax(worst, distance_of(&c->call.probs, c->want_probs, 0).relative / bound);
    return worst;
}

/* -- numbers
 * ------------------------------------------------------------------------------------------------
 */

struct tally {
    int64_t plain, other;
    double worst;
    char first_other[256];
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

static void compare_runs(struct session *s, struct fake_run *run, const float *before, int64_t n,
                         const char *what, struct result *r)
{
    layer_case_poison(&s->c);
    attn_status status = fake_execute(run, &s->c.call);
    if (status != ATTN_OK)
        finding(r, "%s: %s: %s", what, attn_status_name(status), run->text);
    else if (memcmp(before, s->c.call.out.data, (size_t)n * sizeof(float)) != 0)
        finding(r, "%s: other bits than before", what);
}

static void replay_one(const struct check *k, int64_t index, struct result *r)
{
    struct session s;
    struct fake_run run;
    if (session_open(k, &s, index, r) == ATTN_OK && session_run(k, &s, &run, r) == ATTN_OK) {
        const attn_tensor *out = &s.c.call.out;
        int64_t n = out->shape[0] * out->stride[0];
        float *kept = malloc((size_t)n * sizeof *kept);
        r->taken++;
        if (kept) {
            memcpy(kept, out->data, (size_t)n * sizeof *kept);
            compare_runs(&s, &run, kept, n, "the same call again", r);
            s.c.call.flags |= ATTN_LAYER_CALL_SAME;
            compare_runs(&s, &run, kept, n, "with ATTN_LAYER_CALL_SAME", r);
            s.c.call.flags = 0;
            if (s.c.call.hidden.rank == 3 && s.c.layer.query_dim == out->shape[2]) {
                attn_tensor apart = s.c.call.out;
                s.c.call.out = s.c.call.hidden; /* in place */
                attn_status status = fake_execute(&run, &s.c.call);
                if (status != ATTN_OK ||
                    memcmp(kept, s.c.call.out.data, (size_t)n * sizeof *kept) != 0)
                    finding(r, "out in the hidden states' memory: %s",
                            status ? run.text : "another result");
                s.c.call.out = apart;
            }
            free(kept);
        }
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

/* -- bind is strict
 * ------------------------------------------------------------------------------------------ */

static void expect_refusal(const struct check *k, struct session *s, const attn_param *strange,
                           const char *what, struct result *r)
{
    attn_param params[3];
    uint32_t n = s->c.n_params;
    memcpy(params, s->c.params, sizeof s->c.params);
    if (strange)
        params[n++] = *strange;
    attn_work work = fake_bind_work(&s->fake, &s->err);
    attn_binding *binding = NULL;
    s->text[0] = 0;
    attn_status status =
        k->processor->bind(s->processor, &s->c.layer, params, n, &work, &binding, &s->err);
    if (status == ATTN_OK) {
        finding(r, "bind takes %s", what);
        k->processor->unbind(binding);
    } else if (!s->text[0]) {
        finding(r, "bind refuses %s without a text", what);
    }
}

/* The first layer that the processor binds: what is then wrong with it is the fault's alone. */
static attn_status bindable(const struct check *k, struct session *s, struct result *r)
{
    attn_status status = ATTN_UNSUPPORTED;
    for (int64_t i = 0; i < 50 && status != ATTN_OK && r->verdict != VERDICT_SKIP; i++) {
        if (i)
            session_close(k, s);
        status = session_open(k, s, i, r);
    }
    if (status == ATTN_OK)
        return status;
    session_close(k, s);
    if (processor_open(k, s, r) != ATTN_OK || layer_case_open(&s->c, s->form, k->options->seed, 0))
        return ATTN_UNSUPPORTED;
    return ATTN_OK;
}

static void layer_bind_strict(const struct check *k, struct result *r)
{
    struct session s;
    attn_param strange = {"no_such_parameter", ATTN_PARAM_INT, 0, 1, 0, NULL, NULL};
    if (bindable(k, &s, r) != ATTN_OK) {
        session_close(k, &s);
        return;
    }
    r->taken = 1;
    attn_layer right = s.c.layer;
    expect_refusal(k, &s, &strange, "a parameter 'no_such_parameter'", r);
    s.c.layer.to_q.weight.shape[1] += 8;
    expect_refusal(k, &s, NULL, "to_q.weight with 8 columns more", r);
    s.c.layer = right;
    s.c.layer.to_out.weight.shape[1] += 8;
    expect_refusal(k, &s, NULL, "to_out.0.weight with 8 columns more", r);
    s.c.layer = right;
    s.c.layer.to_q.weight.rank = 0;
    expect_refusal(k, &s, NULL, "a layer without to_q", r);
    s.c.layer = right;
    s.c.layer.to_v.weight.rank = s.c.layer.to_k.weight.rank = 0;
    s.c.layer.add_v.weight.rank = s.c.layer.add_k.weight.rank = 0;
    expect_refusal(k, &s, NULL, "a layer without projections of keys and values", r);
    s.c.layer = right;
    s.c.layer.heads = 0;
    expect_refusal(k, &s, NULL, "no heads", r);
    s.c.layer = right;
    s.c.layer.size = 64;
    expect_refusal(k, &s, NULL, "a layer of size 64", r);
    s.c.layer = right;
    session_close(k, &s);

    attn_processor *p = NULL;
    attn_device device = {ATTN_DEVICE_CPU, 0, "cpu"};
    const attn_host bare = {sizeof bare, 1, NULL, NULL, NULL, NULL};
    attn_status status = k->processor->create(&bare, &device, NULL, 0, &p, NULL);
    if (status == ATTN_OK && (k->processor->head.flags & ATTN_HEAD_NEEDS_COMPUTE))
        finding(r, "create works without attn.compute/1, which its head says it needs");
    if (status == ATTN_OK)
        k->processor->destroy(p);
    k->processor->destroy(NULL);
    k->processor->release(NULL);
}

/* -- two threads on one binding
 * -------------------------------------------------------------------------------- */

struct worker {
    const struct check *k;
    struct session *s; /* binding and weights are shared; the fake has one step list each */
    struct fake_compute fake;
    struct layer_case mine; /* buffers of its own */
    double worst;
    attn_status status;
    char text[FAKE_TEXT];
};

static void *work(void *arg)
{
    struct worker *w = arg;
    struct fake_run run;
    memset(&run, 0, sizeof run);
    for (int i = 0; i < 20 && w->status == ATTN_OK; i++) {
        w->status = fake_prepare(&run, &w->fake, w->k->processor, w->s->binding, &w->mine.call);
        if (w->status == ATTN_OK)
            w->status = fake_execute(&run, &w->mine.call);
        if (w->status == ATTN_OK)
            w->worst = fmax(w->worst, distance_share(&w->mine));
        (void)snprintf(w->text, sizeof w->text, "%s", run.text);
        fake_release(&run);
    }
    return NULL;
}

static void threads_one(const struct check *k, int64_t index, struct result *r)
{
    struct session s;
    struct fake_run run;
    pthread_t threads[2];
    struct worker w[2];
    if (session_open(k, &s, index, r) != ATTN_OK || session_run(k, &s, &run, r) != ATTN_OK) {
        session_close(k, &s);
        return;
    }
    double alone = distance_share(&s.c);
    fake_release(&run);
    r->taken++;
    int started = 0;
    for (int i = 0; i < 2; i++) {
        memset(&w[i], 0, sizeof w[i]);
        w[i].k = k;
        w[i].s = &s;
        fake_init(&w[i].fake);
        if (layer_case_open(&w[i].mine, s.form, k->options->seed, (uint64_t)index) ||
            pthread_create(&threads[i], NULL, work, &w[i]))
            break;
        started++;
    }
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
        if (w[i].status != ATTN_OK)
            finding(r, "two plans of one binding: %s: %s", attn_status_name(w[i].status),
                    w[i].text);
        else if (alone <= 1 && w[i].worst > 1)
            finding(r, "two plans of one binding at once: another result than alone");
        layer_case_close(&w[i].mine);
    }
    session_close(k, &s);
}

static void layer_threads(const struct check *k, struct result *r)
{
    int64_t first, end;
    case_range(k, 10, 60, &first, &end);
    for (int64_t i = first; i < end && r->verdict != VERDICT_SKIP; i++)
        threads_one(k, i, r);
    r->current = -1;
}

/* -- leaks
 * ------------------------------------------------------------------------------------------------------
 */

static void layer_leaks(const struct check *k, struct result *r)
{
    int64_t first, end;
    struct alloc_counts before = {0, 0};
    case_range(k, 100, 600, &first, &end);
    for (int64_t i = first - 10; i < end && r->verdict != VERDICT_SKIP; i++) {
        struct session s;
        struct fake_run run;
        if (i == first)
            before = alloc_now();
        if (session_open(k, &s, i < first ? first : i, r) == ATTN_OK &&
            session_run(k, &s, &run, r) == ATTN_OK) {
            r->taken++;
            fake_release(&run);
        }
        session_close(k, &s);
        if (s.fake.live)
            finding(r, "%llu blocks of compute.alloc are left", (unsigned long long)s.fake.live);
    }
    struct alloc_counts after = alloc_now();
    r->current = -1;
    if (alloc_counting() && after.live - before.live > (end - first) / 10)
        finding(r, "%lld blocks of memory are left after %lld lives",
                (long long)(after.live - before.live), (long long)(end - first));
}

/* run takes nothing from the heap; the strict compute itself takes one block for each attend. */
static void layer_allocation(const struct check *k, struct result *r)
{
    int64_t first, end;
    case_range(k, 30, 200, &first, &end);
    for (int64_t i = first; i < end && alloc_counting() && r->verdict != VERDICT_SKIP; i++) {
        struct session s;
        struct fake_run run;
        if (session_open(k, &s, i, r) == ATTN_OK && session_run(k, &s, &run, r) == ATTN_OK) {
            struct alloc_counts before = alloc_now();
            (void)fake_execute(&run, &s.c.call);
            int64_t taken = alloc_now().taken - before.taken - s.fake.count[FAKE_ATTEND];
            r->taken++;
            if (taken)
                finding(r, "run took memory from the heap %lld times", (long long)taken);
            fake_release(&run);
        }
        session_close(k, &s);
    }
    r->current = -1;
    if (!alloc_counting())
        r->verdict = VERDICT_SKIP;
}

const struct test layer_tests[] = {
    {"bind", "unknown parameters, missing weights and wrong shapes are refused with a text",
     layer_bind_strict, NULL},
    {"layers", "random layers of every flag against double precision; dry and real runs alike",
     layer_numbers, NULL},
    {"again", "the same plan again, with kept keys, and in place: the same bits", layer_replay,
     "whether a plan can run again"},
    {"two-plans", "two plans of one binding on two threads", layer_threads,
     "what two threads do to it"},
    {"heap", "run takes no memory from the heap", layer_allocation, "whether run takes memory"},
    {"lives", "nothing is left behind", layer_leaks, NULL},
    {NULL, NULL, NULL, NULL},
};
