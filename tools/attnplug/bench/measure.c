/* measure.c: the ops of one shape on the same memory, in turns. */
#include "bench.h"

#include "../check/check.h"
#include "error.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_SETS = 64, EAGER_ROUNDS = 5, MOST_CALLS = 40 };
enum { TAPE_MS = 200 }; /* about as long as a slow op's tape lasts */

struct set {
    void *q, *k, *v, *out, *mass;
};

struct job {
    attn_host_op *op;
    attn_host_op_plan *plans[MAX_SETS]; /* one a set: their addresses never change */
    attn_op_call calls[MAX_SETS];
    int n;
    int n_calls, rounds; /* of a tape, and of tapes */
    void *tape;
    double graph[BENCH_MAX_ROUNDS], eager[EAGER_ROUNDS];
};

struct work {
    const struct bench *b;
    const struct bench_shape *shape;
    struct bench_inputs in;
    struct set sets[MAX_SETS];
    int n_sets, n_calls;
    attn_host_op *reference;
    double reference_ms; /* for the whole shape */
    struct job jobs[BENCH_MAX_OPS];
    int n_jobs;
};

/* -- buffers ----------------------------------------------------------------------------------- */

static void plan_sizes(struct work *w)
{
    const struct bench_shape *s = w->shape;
    const double bytes =
        2.0 * (double)(s->b * s->h * (s->nq + s->nk) * s->d) * ((double)w->b->bits / 8);
    const struct bench_place *p = w->b->place;
    const double sets = (double)p->rotate / bytes + 1, calls = p->tape_flop / bench_flop(s) + 1;
    w->n_sets = !p->rotate ? 1 : sets > MAX_SETS ? MAX_SETS : sets < 2 ? 2 : (int)sets;
    w->n_calls = calls > MOST_CALLS ? MOST_CALLS : (int)calls;
    if (w->n_calls < w->n_sets) {
        w->n_calls = w->n_sets;
    }
}

static attn_status inputs_open(struct work *w, attn_error *err)
{
    const struct bench_shape *s = w->shape;
    const int64_t q = s->b * s->h * s->nq * s->d, k = s->b * s->h * s->nk * s->d;
    const size_t element = w->b->bits / 8;
    w->in.q = malloc((size_t)q * element);
    w->in.k = malloc((size_t)k * element);
    w->in.v = malloc((size_t)k * element);
    if (!w->in.q || !w->in.k || !w->in.v) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %lld elements", (long long)(q + 2 * k));
    }
    bench_values(w->in.q, q, w->b->code, w->b->bits, 1);
    bench_values(w->in.k, k, w->b->code, w->b->bits, 2);
    bench_values(w->in.v, k, w->b->code, w->b->bits, 3);
    return ATTN_OK;
}

static attn_status buffer(struct work *w, const attn_tensor *t, const void *from, void **data,
                          attn_error *err)
{
    struct bench_place *p = w->b->place;
    const uint64_t bytes = bench_bytes(t);
    if (!bytes) {
        return ATTN_OK;
    }
    attn_status status = p->alloc(p, bytes, data, err);
    return status == ATTN_OK && from ? p->put(p, *data, from, bytes, err) : status;
}

static attn_status sets_open(struct work *w, attn_error *err)
{
    const attn_op_call c = bench_call(w->b, w->shape, w->b->code, w->b->bits);
    attn_status status = ATTN_OK;
    for (int i = 0; i < w->n_sets && status == ATTN_OK; i++) {
        struct set *s = &w->sets[i];
        status = buffer(w, &c.q, w->in.q, &s->q, err);
        if (status == ATTN_OK) {
            status = buffer(w, &c.k, w->in.k, &s->k, err);
        }
        if (status == ATTN_OK) {
            status = buffer(w, &c.v, w->in.v, &s->v, err);
        }
        if (status == ATTN_OK) {
            status = buffer(w, &c.out, NULL, &s->out, err);
        }
        if (status == ATTN_OK) {
            status = buffer(w, &c.key_mass, NULL, &s->mass, err);
        }
    }
    return status;
}

/* -- one op ------------------------------------------------------------------------------------ */

static attn_status job_run(void *ctx, int i, void *stream, attn_error *err)
{
    struct job *j = ctx;
    attn_op_call *call = &j->calls[i % j->n];
    call->stream = stream;
    return attn_host_op_run(j->plans[i % j->n], call, err);
}

/* An op that is slow (one that works through the reference, say) gets a shorter tape and fewer
 * rounds, at least one of each. `ms`: what a call takes, about. */
static void job_pace(const struct work *w, struct job *j, double ms)
{
    const double calls = TAPE_MS / ms, rounds = w->b->seconds * 1e3 / ms;
    j->n_calls = calls >= w->n_calls ? w->n_calls : calls < 1 ? 1 : (int)calls;
    j->rounds = rounds / j->n_calls >= w->b->rounds ? w->b->rounds
                : rounds / j->n_calls < 1           ? 1
                                                    : (int)(rounds / j->n_calls);
}

static attn_status job_prepare(struct work *w, struct job *j, attn_error *err)
{
    struct bench_place *p = w->b->place;
    attn_status status = ATTN_OK;
    for (int i = 0; i < w->n_sets && status == ATTN_OK; i++) {
        const struct set *s = &w->sets[i];
        attn_op_call *c = &j->calls[i];
        *c = bench_call(w->b, w->shape, w->b->code, w->b->bits);
        status = attn_host_op_prepare(j->op, c, &j->plans[i], &c->scratch_bytes, err);
        if (status != ATTN_OK) {
            break;
        }
        j->n++;
        c->q.data = s->q;
        c->k.data = s->k;
        c->v.data = s->v;
        c->out.data = s->out;
        c->key_mass.data = s->mass;
        if (c->scratch_bytes) {
            status = p->alloc(p, c->scratch_bytes, &c->scratch, err);
        }
    }
    const double start = bench_now_ms();
    if (status == ATTN_OK) {
        status = p->once(p, job_run, j, j->n, err); /* loads what loads late */
    }
    if (status == ATTN_OK) {
        job_pace(w, j, (bench_now_ms() - start) / j->n);
        status = p->record(p, job_run, j, j->n_calls, &j->tape, err);
    }
    return status;
}

static void job_close(struct work *w, struct job *j)
{
    struct bench_place *p = w->b->place;
    p->drop(p, j->tape);
    for (int i = 0; i < j->n; i++) {
        p->free(p, j->calls[i].scratch);
        attn_host_op_release(j->plans[i]);
    }
    (void)attn_host_op_close(j->op);
}

/* The relative error that a result may have.  Of an approximate op the check wants a cosine of
 * 0.9995, which an error of sqrt(2 (1 - 0.9995)) has. */
static double bound_of(const attn_host_op *op, const attn_tensor *q)
{
    return attn_host_op_head(op)->flags & ATTN_HEAD_APPROXIMATE ? 0.0316 : bound_for(q);
}

/* An op that cannot run or refuses the shape leaves a row that says so. */
static attn_status job_open(struct work *w, const char *id, struct bench_row *row, attn_error *err)
{
    ATTN_ERROR_ON(why, 256);
    const struct bench *b = w->b;
    struct job *j = &w->jobs[w->n_jobs];
    const attn_op_call call = bench_call(b, w->shape, b->code, b->bits);
    *row = (struct bench_row){.shape = *w->shape};
    (void)snprintf(row->op, sizeof row->op, "%s", id);
    attn_status status =
        attn_host_op_open(b->registry, id, &b->place->device, b->host, NULL, 0, &j->op, &why);
    if (status == ATTN_OK) {
        (void)snprintf(row->version, sizeof row->version, "%s", attn_host_op_head(j->op)->version);
        status = attn_host_op_supports(j->op, &call, &why);
        if (status != ATTN_OK) {
            (void)attn_host_op_close(j->op);
        }
    }
    if (status != ATTN_OK) {
        (void)snprintf(row->refused, sizeof row->refused, "%s", why.text);
        return ATTN_OK;
    }
    w->n_jobs++;
    status =
        bench_verify(b, w->shape, j->op, w->reference, &w->in, &row->error, &w->reference_ms, err);
    const double bound = bound_of(j->op, &call.q);
    if (status == ATTN_OK && !(row->error <= bound)) {
        status =
            attn_fail(err, ATTN_INTERNAL,
                      "%s is wrong at %lld,%lld,%lld,%lld,%lld: error %.3g, expected at most %g",
                      id, (long long)w->shape->b, (long long)w->shape->h, (long long)w->shape->nq,
                      (long long)w->shape->nk, (long long)w->shape->d, row->error, bound);
    }
    return status == ATTN_OK ? job_prepare(w, j, err) : status;
}

/* -- rounds
 * ----------------------------------------------------------------------------------------- */

static attn_status take_times(struct work *w, attn_error *err)
{
    struct bench_place *p = w->b->place;
    attn_status status = ATTN_OK;
    for (int round = 0; round < w->b->rounds; round++) {
        for (int i = 0; i < w->n_jobs && status == ATTN_OK; i++) {
            struct job *j = &w->jobs[i];
            if (round >= j->rounds) {
                continue;
            }
            status = p->play(p, j->tape, &j->graph[round], err);
            if (status == ATTN_OK && p->eager && round < EAGER_ROUNDS) {
                status = p->eager(p, job_run, j, j->n_calls, &j->eager[round], err);
            }
        }
    }
    return status;
}

static void fill_row(const struct work *w, struct job *j, struct bench_row *row)
{
    const struct bench_place *p = w->b->place;
    const int eager = j->rounds < EAGER_ROUNDS ? j->rounds : EAGER_ROUNDS;
    row->rounds = j->rounds;
    row->median_ms = bench_median(j->graph, j->rounds);
    row->eager_ms = p->eager ? bench_median(j->eager, eager) : 0;
    row->tflops = bench_flop(w->shape) / row->median_ms * 1e-9;
    row->share = p->floor_ms(p, w->shape, w->b->bits) / row->median_ms;
}

static void fill_ratios(const struct work *w, struct bench_row *rows, int n)
{
    const struct bench *b = w->b;
    const bool reference = b->place->peer && strcmp(b->place->peer, b->place->reference) == 0;
    double peer = reference ? w->reference_ms : 0;
    for (int i = 0; i < n; i++) {
        if (b->place->peer && strcmp(rows[i].op, b->place->peer) == 0) {
            peer = rows[i].median_ms;
        }
    }
    for (int i = 0; i < n; i++) {
        rows[i].ratio = rows[i].median_ms > 0 ? peer / rows[i].median_ms : 0;
    }
}

static void work_close(struct work *w)
{
    struct bench_place *p = w->b->place;
    while (w->n_jobs > 0) {
        job_close(w, &w->jobs[--w->n_jobs]);
    }
    for (int i = 0; i < w->n_sets; i++) {
        void *const all[] = {w->sets[i].q, w->sets[i].k, w->sets[i].v, w->sets[i].out,
                             w->sets[i].mass};
        for (size_t k = 0; k < sizeof all / sizeof all[0]; k++) {
            p->free(p, all[k]);
        }
    }
    free(w->in.q);
    free(w->in.k);
    free(w->in.v);
    (void)attn_host_op_close(w->reference);
    free(w);
}

attn_status bench_measure(const struct bench *b, const struct bench_shape *s,
                          struct bench_row *rows, int *n, attn_error *err)
{
    struct bench_row *of_job[BENCH_MAX_OPS];
    struct work *w = calloc(1, sizeof *w);
    *n = 0;
    if (!w) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %zu bytes", sizeof *w);
    }
    w->b = b;
    w->shape = s;
    plan_sizes(w);
    attn_status status = attn_host_op_open(b->registry, b->place->reference, &b->place->device,
                                           b->host, NULL, 0, &w->reference, err);
    if (status == ATTN_OK) {
        status = inputs_open(w, err);
    }
    if (status == ATTN_OK) {
        status = sets_open(w, err);
    }
    for (int i = 0; i < b->n_ops && status == ATTN_OK; i++) {
        const int before = w->n_jobs;
        status = job_open(w, b->ops[i], &rows[*n], err);
        if (w->n_jobs > before) {
            of_job[before] = &rows[*n];
        }
        ++*n;
    }
    if (status == ATTN_OK) {
        status = take_times(w, err);
    }
    for (int i = 0; i < w->n_jobs && status == ATTN_OK; i++) {
        fill_row(w, &w->jobs[i], of_job[i]);
    }
    if (status == ATTN_OK) {
        fill_ratios(w, rows, *n);
    }
    work_close(w);
    return status;
}
