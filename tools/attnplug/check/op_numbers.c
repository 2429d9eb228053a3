/* op_numbers.c: results against double precision. */
#include "on_device.h"
#include "op_run.h"
#include "op_takes.h"
#include "op_tests.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void one(const struct check *k, attn_op *op, struct caught *e, enum op_kind kind,
                int64_t index, struct result *r)
{
    struct op_case c;
    attn_op_plan *plan;
    op_case_draw(&c, kind, k->op->head.dtypes, k->options->seed, (uint64_t)index);
    begin_case(r, index, c.text);
    if (case_run(k, op, &c, e, &plan, r) == ATTN_OK) {
        const int64_t before = r->failed;
        r->taken++;
        case_compare(k, &c, r);
        features_count(&c, r->failed > before, r);
        k->op->release(plan);
    }
    op_case_close(&c);
}

static void many(const struct check *k, struct result *r, enum op_kind kind, int64_t quick,
                 int64_t full)
{
    int64_t first, end;
    struct caught e;
    attn_op *op = instance_open(k, k->host, r);
    if (!op)
        return;
    if (caught_open(&e, r))
        return;
    case_range(k, quick, full, &first, &end);
    for (int64_t i = first; i < end; i++)
        one(k, op, &e, kind, i, r);
    r->current = -1;
    caught_close(&e);
    k->op->destroy(op);
}

/* Each type that the head promises is taken by some plain call. */
static void promised_types(const struct check *k, struct result *r)
{
    enum { TRIES = 40 };
    static const struct {
        uint64_t bit;
        const char *name;
    } types[] = {{ATTN_DTYPE_F32, "fp32"},
                 {ATTN_DTYPE_F16, "fp16"},
                 {ATTN_DTYPE_BF16, "bf16"},
                 {ATTN_DTYPE_F64, "fp64"}};
    attn_op *op = r->verdict == VERDICT_PASS ? instance_open(k, k->host, r) : NULL;
    for (size_t t = 0; op && t < sizeof types / sizeof *types; t++) {
        char why[160] = "";
        attn_error err = {sizeof err, sizeof why, why, 0};
        attn_status s = ATTN_UNSUPPORTED;
        struct random r0 = random_for(0, 0);
        if (op_takes_pick(&r0, types[t].bit))
            s = ATTN_OK;
        for (uint64_t i = 0; i < TRIES && s != ATTN_OK && k->op->head.dtypes & types[t].bit; i++) {
            struct op_case c;
            op_case_draw(&c, KIND_PLAIN, types[t].bit, k->options->seed, i);
            s = k->op->supports(op, &c.call, &err);
        }
        if (s != ATTN_OK && k->op->head.dtypes & types[t].bit)
            finding(r,
                    "its head promises %s, and supports refuses each of %d random contiguous calls "
                    "(\"%s\") and all of these: %s",
                    types[t].name, TRIES, why, op_takes_words);
    }
    if (op)
        k->op->destroy(op);
}

void op_plain(const struct check *k, struct result *r)
{
    many(k, r, KIND_PLAIN, 40, 300);
    if (k->options->case_index < 0)
        promised_types(k, r);
}

void op_numbers(const struct check *k, struct result *r)
{
    many(k, r, KIND_ANY, 120, 2500);
}

void op_edges(const struct check *k, struct result *r)
{
    many(k, r, KIND_EDGE, 100, 600);
}

void op_long(const struct check *k, struct result *r)
{
    many(k, r, KIND_LONG, 3, 12);
}

/* Supports and prepare alone, data NULL: cheap, so thousands. */
void op_agreement(const struct check *k, struct result *r)
{
    int64_t first, end;
    attn_op *op = instance_open(k, k->host, r);
    if (!op)
        return;
    case_range(k, 2000, 20000, &first, &end);
    for (int64_t i = first; i < end; i++) {
        struct op_case c;
        attn_op_plan *plan = NULL;
        uint64_t scratch = 0;
        op_case_draw(&c, i % 4 ? KIND_ANY : KIND_EDGE, k->op->head.dtypes, k->options->seed + 1,
                     (uint64_t)i);
        begin_case(r, i, c.text);
        attn_status can = k->op->supports(op, &c.call, NULL);
        attn_status s = k->op->prepare(op, &c.call, &plan, &scratch, NULL);
        if ((can == ATTN_OK) != (s == ATTN_OK))
            finding(r, "supports says %s, prepare %s", attn_status_name(can), attn_status_name(s));
        if (can == ATTN_INVALID || s == ATTN_INVALID)
            finding(r, "a call that the contract allows is INVALID: what an op does not do is "
                       "UNSUPPORTED, and the host asks another");
        r->taken += s == ATTN_OK;
        if (s == ATTN_OK)
            k->op->release(plan);
    }
    r->current = -1;
    k->op->destroy(op);
}

/* Rows of out other than `row` must be finite. */
static void rows_finite(const struct op_case *c, const int64_t row[4], double bad, struct result *r)
{
    const attn_tensor *out = &c->call.out;
    const int64_t *n = out->shape;
    for (int64_t line = 0; line < n[0] * n[1] * n[2]; line++) {
        int64_t i[4] = {line / (n[1] * n[2]), line / n[2] % n[1], line % n[2], 0};
        if (i[0] == row[0] && i[1] == row[1] && i[2] == row[2])
            continue;
        for (i[3] = 0; i[3] < n[3]; i[3]++)
            if (!isfinite(tensor_get(out, i))) {
                finding(r,
                        "%g in query row [%lld,%lld,%lld] made out[%lld,%lld,%lld,%lld] not finite",
                        bad, (long long)row[0], (long long)row[1], (long long)row[2],
                        (long long)i[0], (long long)i[1], (long long)i[2], (long long)i[3]);
                return;
            }
    }
}

/* A bad number in one row of the queries: that row may be anything, every other row stays a number.
 */
static void spoil(const struct check *k, attn_op *op, struct caught *e, int64_t index,
                  struct result *r)
{
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    struct op_case c;
    attn_op_plan *plan;
    op_case_draw(&c, KIND_ANY, k->op->head.dtypes, k->options->seed + 2, (uint64_t)index);
    begin_case(r, index, c.text);
    if (case_run(k, op, &c, e, &plan, r) == ATTN_OK) {
        struct random at = random_for(k->options->seed + 3, (uint64_t)index);
        const int64_t *n = c.call.q.shape;
        int64_t row[4];
        for (int a = 0; a < 4; a++)
            row[a] = random_between(&at, 0, n[a] - 1);
        tensor_set(&c.call.q, row, bad[index % 3]);
        op_case_poison(&c, 0xFF);
        attn_status s = case_execute(k, plan, &c, NULL);
        if (s != ATTN_OK)
            finding(r, "run: %s with %g in the queries", attn_status_name(s), bad[index % 3]);
        else
            rows_finite(&c, row, bad[index % 3], r);
        r->taken++;
        k->op->release(plan);
    }
    op_case_close(&c);
}

void op_nonfinite(const struct check *k, struct result *r)
{
    int64_t first, end;
    struct caught e;
    attn_op *op = instance_open(k, k->host, r);
    if (!op || caught_open(&e, r))
        return;
    case_range(k, 30, 200, &first, &end);
    for (int64_t i = first; i < end; i++)
        spoil(k, op, &e, i, r);
    r->current = -1;
    caught_close(&e);
    k->op->destroy(op);
}
