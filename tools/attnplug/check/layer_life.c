/* layer_life.c: what a processor does besides computing. */
#include "layer_session.h"
#include "surroundings.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

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
            pthread_create(&threads[i], NULL, work, &w[i])) {
            finding(r, "no memory for another thread's case");
            layer_case_close(&w[i].mine);
            break;
        }
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

void layer_threads(const struct check *k, struct result *r)
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
