/* layer_life.c: what a processor does besides computing. */
#include "layer_session.h"
#include "surroundings.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- two threads
 * --------------------------------------------------------------------------------------------- */

struct worker {
    const struct check *k;
    struct session *s; /* binding and weights are shared; the fake has one step list each */
    int64_t index;     /* of the case */
    struct fake_compute fake;
    struct layer_case mine; /* buffers of its own */
    double worst;
    attn_status status;
    char text[FAKE_TEXT];
};

/* A plan of the shared binding. */
static void *work_together(void *arg)
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

/* An instance of its own, bound to a layer of its own. */
static void *work_apart(void *arg)
{
    struct worker *w = arg;
    struct session *s = malloc(sizeof *s); /* large for a thread's stack */
    struct result own = {0};
    for (int i = 0; s && i < 10 && !own.failed; i++) {
        struct fake_run run;
        if (session_open(w->k, s, w->index, &own) == ATTN_OK &&
            session_run(w->k, s, &run, &own) == ATTN_OK) {
            w->worst = fmax(w->worst, distance_share(&s->c));
            fake_release(&run);
        }
        session_close(w->k, s);
    }
    w->status = !s ? ATTN_NOMEM : own.failed ? ATTN_INTERNAL : ATTN_OK;
    (void)snprintf(w->text, sizeof w->text, "%.*s", FAKE_TEXT - 1, own.message);
    free(s);
    return NULL;
}

/* Both run `work`; a finding for each that fails, or gives another result than alone: `alone` has
 * theirs. */
static void both(struct worker w[2], void *(*work)(void *), const double alone[2], const char *what,
                 struct result *r)
{
    pthread_t threads[2];
    int started = 0;
    while (started < 2 && !pthread_create(&threads[started], NULL, work, &w[started]))
        started++;
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
        if (w[i].status != ATTN_OK)
            finding(r, "%s: %s: %s", what, attn_status_name(w[i].status), w[i].text);
        else if (alone[i] <= 1 && w[i].worst > 1)
            finding(r, "%s at once: another result than alone", what);
    }
    if (started < 2)
        finding(r, "no thread for %s", what);
}

/* Two plans of the case's binding. */
static void plans_one(const struct check *k, int64_t index, struct worker w[2], struct result *r)
{
    struct session s;
    struct fake_run run;
    if (session_open(k, &s, index, r) == ATTN_OK && session_run(k, &s, &run, r) == ATTN_OK) {
        const double share = distance_share(&s.c), alone[2] = {share, share};
        int ready = 1;
        fake_release(&run);
        r->taken++;
        for (int i = 0; i < 2; i++) {
            memset(&w[i], 0, sizeof w[i]);
            w[i].k = k;
            w[i].s = &s;
            fake_init(&w[i].fake);
            ready &= !layer_case_open(&w[i].mine, s.form, k->options->seed, (uint64_t)index);
        }
        if (ready)
            both(w, work_together, alone, "two plans of one binding", r);
        else
            finding(r, "no memory for the threads' cases");
        for (int i = 0; i < 2; i++)
            layer_case_close(&w[i].mine);
    }
    session_close(k, &s);
}

/* What a case gives alone, as distance_share; -1 where it is not taken. */
static double share_alone(const struct check *k, int64_t index)
{
    struct session s;
    struct fake_run run;
    struct result unseen = {0};
    double share = -1;
    if (session_open(k, &s, index, &unseen) == ATTN_OK &&
        session_run(k, &s, &run, &unseen) == ATTN_OK) {
        share = distance_share(&s.c);
        fake_release(&run);
    }
    session_close(k, &s);
    return share;
}

/* Two instances, bound to this case's layer and to the next one's. */
static void instances_one(const struct check *k, int64_t index, struct worker w[2],
                          struct result *r)
{
    const double alone[2] = {share_alone(k, index), share_alone(k, index + 1)};
    if (alone[0] < 0 || alone[1] < 0)
        return;
    for (int i = 0; i < 2; i++) {
        memset(&w[i], 0, sizeof w[i]);
        w[i].k = k;
        w[i].index = index + i;
    }
    both(w, work_apart, alone, "two instances", r);
}

void layer_threads(const struct check *k, struct result *r)
{
    static struct worker w[2]; /* large for a stack */
    int64_t first, end;
    case_range(k, 10, 60, &first, &end);
    for (int64_t i = first; i < end && r->verdict != VERDICT_SKIP; i++) {
        plans_one(k, i, w, r);
        instances_one(k, i, w, r);
    }
    r->current = -1;
}

/* -- leaks
 * ------------------------------------------------------------------------------------------------------
 */

void layer_leaks(const struct check *k, struct result *r)
{
    int64_t first, end;
    struct alloc_counts before = {0, 0};
    struct surroundings then = {0}, now;
    case_range(k, 100, 600, &first, &end);
    for (int64_t i = first - 10; i < end && r->verdict != VERDICT_SKIP; i++) {
        struct session s;
        struct fake_run run;
        if (i == first) { /* what is made once and kept has been made */
            before = alloc_now();
            surroundings_look(&then);
        }
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
    surroundings_look(&now);
    r->current = -1;
    if (r->verdict != VERDICT_SKIP)
        surroundings_compare(&then, &now, r);
    if (alloc_counting() && after.live - before.live > (end - first) / 10)
        finding(r, "%lld blocks of memory are left after %lld lives",
                (long long)(after.live - before.live), (long long)(end - first));
}

/* run takes nothing from the heap; the strict compute itself takes one block for each attend. */
void layer_allocation(const struct check *k, struct result *r)
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
