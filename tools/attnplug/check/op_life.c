/* op_life.c: what an op does besides computing. */
#include "on_device.h"
#include "op_run.h"
#include "op_tests.h"
#include "surroundings.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

static attn_status create(const struct check *k, const attn_param *params, uint32_t n, attn_op **op,
                          attn_error *err)
{
    return k->op->create(k->host, &k->options->device, params, n, op, err);
}

void op_life(const struct check *k, struct result *r)
{
    attn_op *op = instance_open(k, k->host, r);
    if (!op)
        return;
    r->cases = r->taken = 1;
    k->op->destroy(op);
    k->op->destroy(NULL);
    k->op->release(NULL);
    if (k->op->query && k->op->query("example.unknown/1"))
        finding(r, "query: answers an id that nobody defined");

    struct caught e;
    if (caught_open(&e, r))
        return;
    attn_param strange = {"no_such_parameter", ATTN_PARAM_INT, 0, 1, 0, NULL, NULL};
    attn_op *other = NULL;
    attn_status s = create(k, &strange, 1, &other, &e.err);
    caught_look(&e, r, "create", s);
    if (s == ATTN_OK) {
        finding(r, "create: takes a parameter 'no_such_parameter' without a word");
        k->op->destroy(other);
    }
    attn_device nowhere = {ATTN_DEVICE_CPU + 20, 0, "nowhere"};
    caught_clear(&e);
    s = k->op->create(k->host, &nowhere, NULL, 0, &other, &e.err);
    caught_look(&e, r, "create", s);
    if (s == ATTN_OK)
        finding(r, "create: takes device type 21, runtime 'nowhere'");

    const attn_host bare = {sizeof bare, 1,    NULL,
                            NULL,        NULL, NULL}; /* the least that a host may be */
    s = k->op->create(&bare, &k->options->device, NULL, 0, &other, NULL);
    if (s == ATTN_OK)
        k->op->destroy(other);
    else if (s != ATTN_UNSUPPORTED)
        finding(r, "create: %s on a host without threads, log and query", attn_status_name(s));
    attn_host later = *k->host;
    later.size += 64;
    s = k->op->create(&later, &k->options->device, NULL, 0, &other, NULL);
    if (s == ATTN_OK)
        k->op->destroy(other);
    else
        finding(r, "create: %s on a host whose size is more than it knows", attn_status_name(s));
    caught_close(&e);
}

/* Draws cases until one is taken and has run once; its plan in *plan.  0, or -1 where none was
 * found. */
static int find_case(const struct check *k, attn_op *op, struct caught *e, struct op_case *c,
                     int64_t *index, attn_op_plan **plan, struct result *r)
{
    for (int tries = 0; tries < 50; tries++, ++*index) {
        op_case_draw(c, KIND_ANY, k->op->head.dtypes, k->options->seed + 4, (uint64_t)*index);
        begin_case(r, *index, c->text);
        if (case_run(k, op, c, e, plan, r) == ATTN_OK) {
            r->taken++;
            return 0;
        }
        op_case_close(c);
    }
    return -1;
}

/* The plan once more; 0, or -1 after a finding. */
static int once_more(const struct check *k, struct op_case *c, attn_op_plan *plan,
                     unsigned char poison, struct result *r)
{
    op_case_poison(c, poison);
    const attn_status s = case_execute(k, plan, c, NULL);
    if (s != ATTN_OK)
        finding(r, "the same plan again: %s", attn_status_name(s));
    return s == ATTN_OK ? 0 : -1;
}

static void again(const struct check *k, struct op_case *c, attn_op_plan *plan, struct result *r)
{
    static const unsigned char poisons[] = {0xFF, 0x00, 0x7F, 0x3C};
    const uint64_t first = case_bits(c);
    for (size_t i = 1; i < sizeof poisons; i++)
        if (once_more(k, c, plan, poisons[i], r) == 0)
            case_compare(k, c, r);
    /* Bits are compared under the first run's poison, which gaps between elements keep. */
    if (once_more(k, c, plan, poisons[0], r) == 0 && case_bits(c) != first)
        finding(r, "the same call on the same data gave other bits");
    if (op_case_fill(c, 77)) /* new data, same plan */
        finding(r, "no memory for the case");
    else if (once_more(k, c, plan, poisons[0], r) == 0)
        case_compare(k, c, r);
}

void op_replay(const struct check *k, struct result *r)
{
    int64_t first, end;
    struct caught e;
    attn_op *op = instance_open(k, k->host, r);
    if (!op || caught_open(&e, r))
        return;
    case_range(k, 20, 200, &first, &end);
    for (int64_t i = first; i < end; i++) {
        struct op_case c;
        attn_op_plan *plan;
        if (find_case(k, op, &e, &c, &i, &plan, r))
            break;
        again(k, &c, plan, r);
        k->op->release(plan);
        op_case_close(&c);
    }
    r->current = -1;
    caught_close(&e);
    k->op->destroy(op);
}

void op_allocation(const struct check *k, struct result *r)
{
    int64_t first, end;
    struct caught e;
    if (!alloc_counting() && !k->gpu) {
        r->verdict = VERDICT_SKIP;
        (void)snprintf(r->message, sizeof r->message, "a sanitizer owns the allocator");
        return;
    }
    attn_op *op = instance_open(k, k->host, r);
    if (!op || caught_open(&e, r))
        return;
    case_range(k, 20, 100, &first, &end);
    for (int64_t i = first; i < end; i++) {
        struct op_case c;
        attn_op_plan *plan;
        if (find_case(k, op, &e, &c, &i, &plan, r))
            break;
        size_t device = 0;
        struct alloc_counts before = alloc_now();
        (void)case_execute_counted(k, plan, &c, &device, NULL);
        struct alloc_counts after = alloc_now();
        if (device)
            finding(r, "run took %zu bytes of device memory", device);
        if (!k->gpu && after.taken != before.taken) /* a driver's own calls count too */
            finding(r, "run took memory from the heap %lld times",
                    (long long)(after.taken - before.taken));
        k->op->release(plan);
        op_case_close(&c);
    }
    r->current = -1;
    caught_close(&e);
    k->op->destroy(op);
}

/* The same case on the pool, serially and shuffled: the same bits. */
void op_order(const struct check *k, struct result *r)
{
    const attn_host serial = {sizeof serial, 1, k->host->ctx, NULL, NULL, k->host->query};
    const attn_host *hosts[] = {k->host, &serial, k->shuffled};
    static const char *const names[] = {"threads", "serial", "shuffled"};
    int64_t first, end;
    case_range(k, 15, 150, &first, &end);
    for (int64_t i = first; i < end; i++) {
        uint64_t bits[3] = {0};
        int ran = 0;
        for (int h = 0; h < 3; h++) {
            struct op_case c;
            struct caught e;
            attn_op_plan *plan;
            attn_op *op = instance_open(k, hosts[h], r);
            if (!op || caught_open(&e, r))
                return;
            op_case_draw(&c, KIND_ANY, k->op->head.dtypes, k->options->seed + 5, (uint64_t)i);
            begin_case(r, i, c.text);
            if (case_run(k, op, &c, &e, &plan, r) == ATTN_OK) {
                bits[h] = case_bits(&c);
                ran++;
                k->op->release(plan);
            }
            op_case_close(&c);
            caught_close(&e);
            k->op->destroy(op);
        }
        r->taken += ran;
        for (int h = 1; h < 3 && ran == 3; h++)
            if (bits[h] != bits[0])
                finding(r, "the result with %s differs from that with %s", names[h], names[0]);
    }
    r->current = -1;
}

/* -- two threads
 * ----------------------------------------------------------------------------------------- */

struct worker {
    const struct check *k;
    attn_op *op; /* shared, or NULL for one of its own */
    int64_t first, end;
    struct result own;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    struct caught e;
    attn_op *op = w->op ? w->op : instance_open(w->k, w->k->host, &w->own);
    if (!op || caught_open(&e, &w->own))
        return NULL;
    for (int64_t i = w->first; i < w->end; i++) {
        struct op_case c;
        attn_op_plan *plan;
        op_case_draw(&c, KIND_ANY, w->k->op->head.dtypes, w->k->options->seed + 6, (uint64_t)i);
        begin_case(&w->own, i, c.text);
        if (case_run(w->k, op, &c, &e, &plan, &w->own) == ATTN_OK) {
            w->own.taken++;
            case_compare(w->k, &c, &w->own);
            w->k->op->release(plan);
        }
        op_case_close(&c);
    }
    caught_close(&e);
    if (!w->op)
        w->k->op->destroy(op);
    return NULL;
}

static void together(const struct check *k, attn_op *shared, struct result *r)
{
    struct worker w[2];
    pthread_t t[2];
    int64_t first, end;
    case_range(k, 20, 200, &first, &end);
    for (int i = 0; i < 2; i++) {
        memset(&w[i], 0, sizeof w[i]);
        w[i] = (struct worker){k, shared, first, end, w[i].own};
        w[i].own.first = w[i].own.worst_case = -1;
        if (pthread_create(&t[i], NULL, work, &w[i])) {
            finding(r, "pthread_create failed");
            return;
        }
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(t[i], NULL);
        r->cases += w[i].own.cases;
        r->taken += w[i].own.taken;
        if (w[i].own.failed && !r->failed)
            memcpy(r->case_text, w[i].own.case_text, sizeof r->case_text);
        const int numeric = w[i].own.numeric == w[i].own.failed;
        for (int64_t f = 0; f < w[i].own.n_failing && f < CHECK_FAILING; f++) {
            r->current = w[i].own.failing[f];
            finding(r, "with %s: %s", shared ? "two plans of one instance" : "two instances",
                    w[i].own.message);
            r->numeric += numeric;
        }
    }
}

void op_threads(const struct check *k, struct result *r)
{
    attn_op *op = instance_open(k, k->host, r);
    if (!op)
        return;
    together(k, NULL, r);
    together(k, op, r);
    r->current = -1;
    k->op->destroy(op);
}

/* -- what is left behind
 * ----------------------------------------------------------------------------------- */

/* What a driver may keep for itself between two looks. */
enum { DEVICE_SLACK = 16 << 20 };

static void whole_life(const struct check *k, struct result *r, int64_t index)
{
    struct op_case c;
    struct caught e;
    attn_op_plan *plan;
    attn_op *op = instance_open(k, k->host, r);
    if (!op || caught_open(&e, r))
        return;
    op_case_draw(&c, KIND_ANY, k->op->head.dtypes, k->options->seed + 7, (uint64_t)index);
    begin_case(r, index, c.text);
    if (case_run(k, op, &c, &e, &plan, r) == ATTN_OK) {
        r->taken++;
        k->op->release(plan);
    }
    op_case_close(&c);
    caught_close(&e);
    k->op->destroy(op);
}

void op_leaks(const struct check *k, struct result *r)
{
    struct surroundings before, after;
    int64_t first, end;
    case_range(k, 100, 1000, &first, &end);
    /* What is made once and kept is made now; on a device that may be a compiled kernel for each
     * shape, so there every life is lived before. */
    for (int64_t i = first; i < end && (k->gpu || i < first + 20); i++)
        whole_life(k, r, i);
    struct alloc_counts start = alloc_now();
    const size_t free_before = device_free_bytes(k);
    surroundings_look(&before);
    for (int64_t i = first; i < end; i++)
        whole_life(k, r, i);
    surroundings_look(&after);
    struct alloc_counts done = alloc_now();
    r->current = -1;
    surroundings_compare(&before, &after, r);
    const size_t free_after = device_free_bytes(k);
    if (free_before > free_after + DEVICE_SLACK)
        finding(r, "%zu bytes of device memory are left after %lld lives", free_before - free_after,
                (long long)(end - first));
    if (alloc_counting() && done.live - start.live > (end - first) / 10)
        finding(r, "%lld blocks of memory are left after %lld lives",
                (long long)(done.live - start.live), (long long)(end - first));
}
