/* score_compute.c: softmax(mask(scale (pse + Q K^T))) V in double. */
#include "opapi.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { QUERY, KEY, VALUE, PSE, MASK, MAX, SUM, OUT };
enum { PRE, NEXT, PRECISE, MODE, HEADS, LAYOUT };
enum { LAYOUT_BNSD, LAYOUT_BSND, LAYOUT_BSH, LAYOUT_SBH, PSE_AFTER_SCALE = 16 };

static const char *const layouts[] = {"BNSD", "BSND", "BSH", "SBH"};

void score_fill(struct aclOpExecutor *e, const struct score *s)
{
    const aclTensor *in[] = {s->query, s->key, s->value, s->pse, s->mask};
    const aclTensor *out[] = {s->max, s->sum, s->out};
    for (int i = 0; i < 5; i++)
        fake_executor_add(e, in[i], 0);
    for (int i = 0; i < 3; i++)
        fake_executor_add(e, out[i], 1);
    const int64_t number[6] = {s->pre_tokens,  s->next_tokens, s->inner_precise,
                               s->sparse_mode, s->heads,       0};
    memcpy(e->number, number, sizeof number);
    for (int i = 0; i < 4; i++)
        if (strcmp(layouts[i], s->layout) == 0)
            e->number[LAYOUT] = i;
    e->number[LAYOUT] |= s->pse_after_scale ? PSE_AFTER_SCALE : 0;
    e->factor = s->scale;
    e->compute = score_compute;
}

/* One call at work. */
struct job {
    struct aclOpExecutor *e;
    struct heads q, k, v, o;
    double *k_data, *v_data; /* of one head, contiguous */
    double *row, *query, *sum;
};

static double at4(const struct operand *o, int64_t a, int64_t b, int64_t c, int64_t d)
{
    const aclTensor *t = &o->tensor;
    const int64_t index[4] = {a, b, c, d};
    int64_t offset = 0;
    uint32_t first = 4 - t->rank; /* the last axes; those of 1 are broadcast */
    for (uint32_t i = 0; i < t->rank; i++)
        offset += (t->shape[i] == 1 ? 0 : index[first + i]) * t->stride[i];
    return element_get(o->host + offset * (int64_t)fake_type_bytes(t->type), t->type);
}

static char *head_at(const struct operand *o, const struct heads *h, int64_t b, int64_t n,
                     int64_t s, int64_t d)
{
    int64_t offset = b * h->stride[0] + n * h->stride[1] + s * h->stride[2] + d * h->stride[3];
    return o->host + offset * (int64_t)fake_type_bytes(o->tensor.type);
}

static void head_read(const struct operand *o, const struct heads *h, int64_t b, int64_t n,
                      double *to)
{
    for (int64_t s = 0; s < h->tokens; s++)
        for (int64_t d = 0; d < h->dim; d++)
            to[s * h->dim + d] = element_get(head_at(o, h, b, n, s, d), o->tensor.type);
}

static int is_hidden(const struct job *j, int64_t b, int64_t n, int64_t i, int64_t key)
{
    const struct aclOpExecutor *e = j->e;
    const struct operand *mask = &e->operand[MASK];
    int64_t corner = j->k.tokens - j->q.tokens, at = key - i;
    if (!mask->tensor.rank)
        return 0;
    switch (e->number[MODE]) {
    case 0:
        return at < -e->number[PRE] || at > e->number[NEXT] || at4(mask, b, n, i, key) != 0.0;
    case 1:
        return at4(mask, b, n, i, key) != 0.0;
    case 2:
        return at > 0;
    case 3:
        return at - corner > 0;
    default:
        return at - corner < -e->number[PRE] || at - corner > e->number[NEXT];
    }
}

static double score_of(const struct job *j, int64_t b, int64_t n, int64_t i, int64_t key)
{
    const struct aclOpExecutor *e = j->e;
    double x = 0.0;
    for (int64_t d = 0; d < j->q.dim; d++)
        x += j->query[d] * j->k_data[key * j->q.dim + d];
    double pse = e->operand[PSE].tensor.rank ? at4(&e->operand[PSE], b, n, i, key) : 0.0;
    return e->number[LAYOUT] & PSE_AFTER_SCALE ? e->factor * x + pse : e->factor * (x + pse);
}

/* Scores of a row to weights; the maximum and the sum as the chip leaves them. */
static int row_softmax(struct job *j, int64_t seen, double *max, double *sum)
{
    int64_t n = j->k.tokens;
    *max = -(double)FLT_MAX;
    *sum = 0.0;
    for (int64_t key = 0; key < n; key++)
        *max = j->row[key] > *max || isnan(j->row[key]) ? j->row[key] : *max;
    if (seen && *max == -(double)FLT_MAX)
        *max = -INFINITY; /* a bias of minus infinity throughout: nothing good comes of it */
    for (int64_t key = 0; key < n; key++)
        *sum += j->row[key] = exp(j->row[key] - *max);
    for (int64_t key = 0; key < n; key++)
        j->row[key] /= *sum;
    if (seen)
        return 1;
    int64_t zeroes = j->e->number[PRECISE] == 2 || j->e->number[MODE] == 3;
    if (zeroes)
        memset(j->row, 0, (size_t)n * sizeof *j->row);
    return zeroes != 0;
}

static void row_write(struct job *j, int64_t b, int64_t n, int64_t i, double max, double sum)
{
    struct operand *o = j->e->operand;
    for (int64_t d = 0; d < j->v.dim; d++) {
        double x = 0.0;
        for (int64_t key = 0; key < j->k.tokens; key++)
            x += j->row[key] != 0.0 ? j->row[key] * j->v_data[key * j->v.dim + d] : 0.0;
        element_set(head_at(&o[OUT], &j->o, b, n, i, d), o[OUT].tensor.type, x);
    }
    for (int which = MAX; which <= SUM; which++) {
        const int64_t *st = o[which].tensor.stride;
        for (int64_t c = 0; c < 8; c++)
            element_set(o[which].host + 4 * (b * st[0] + n * st[1] + i * st[2] + c * st[3]),
                        ACL_FLOAT, which == MAX ? max : sum);
    }
}

static int32_t row_compute(struct job *j, int64_t b, int64_t n, int64_t i)
{
    const struct operand *q = &j->e->operand[QUERY];
    double max, sum;
    int64_t seen = 0;
    for (int64_t d = 0; d < j->q.dim; d++)
        j->query[d] = element_get(head_at(q, &j->q, b, n, i, d), q->tensor.type);
    for (int64_t key = 0; key < j->k.tokens; key++) {
        int hidden = is_hidden(j, b, n, i, key);
        j->row[key] = hidden ? -(double)FLT_MAX : score_of(j, b, n, i, key);
        seen += !hidden;
    }
    if (!row_softmax(j, seen, &max, &sum) && fake_is_strict())
        return ACL_ERROR_RT_AICORE_EXCEPTION;
    row_write(j, b, n, i, max, sum);
    return 0;
}

/* Modes 2 to 4 take the mask's word for it: 1 above the diagonal, 0 elsewhere. */
static int mask_is_triangle(const struct operand *mask)
{
    for (int64_t i = 0; i < 2048; i += 89)
        for (int64_t k = 0; k < 2048; k++)
            if ((at4(mask, 0, 0, i, k) != 0.0) != (k > i))
                return 0;
    return 1;
}

static int32_t operands_check(const struct aclOpExecutor *e)
{
    int64_t mode = e->number[MODE];
    for (int i = 0; i < e->count; i++)
        if (e->operand[i].tensor.rank && e->operand[i].tensor.data % 32 != 0) {
            fake_violation("%s: operand %d is not aligned to 32 bytes", e->name, i);
            return ACL_ERROR_RT_AICORE_EXCEPTION;
        }
    if (e->operand[MASK].tensor.rank && mode >= 2 && mode <= 4 &&
        !mask_is_triangle(&e->operand[MASK])) {
        fake_violation("%s: the mask of sparse mode %d is no triangle", e->name, (int)mode);
        return ACL_ERROR_RT_AICORE_EXCEPTION;
    }
    return 0;
}

static int32_t heads_compute(struct job *j)
{
    struct operand *o = j->e->operand;
    int32_t code = 0;
    int64_t group = j->q.heads / j->k.heads;
    for (int64_t b = 0; b < j->q.batch; b++)
        for (int64_t n = 0; n < j->q.heads; n++) {
            head_read(&o[KEY], &j->k, b, n / group, j->k_data);
            head_read(&o[VALUE], &j->v, b, n / group, j->v_data);
            for (int64_t i = 0; i < j->q.tokens && !code; i++)
                code = row_compute(j, b, n, i);
        }
    return code;
}

int32_t score_compute(struct aclOpExecutor *e)
{
    struct job j = {.e = e};
    struct operand *o = e->operand;
    const char *layout = layouts[e->number[LAYOUT] & 3];
    int32_t code = operands_check(e);
    if (code)
        return code;
    (void)score_heads(&o[QUERY].tensor, layout, e->number[HEADS], &j.q);
    int64_t kv = o[KEY].tensor.rank == 3 ? o[KEY].tensor.shape[2] / j.q.dim : e->number[HEADS];
    (void)score_heads(&o[KEY].tensor, layout, kv, &j.k);
    (void)score_heads(&o[VALUE].tensor, layout, kv, &j.v);
    (void)score_heads(&o[OUT].tensor, layout, e->number[HEADS], &j.o);
    size_t n = (size_t)(j.k.tokens * (j.k.dim + j.v.dim + 1) + j.q.dim);
    double *room = malloc(n * sizeof *room);
    if (!room)
        return ACL_ERROR_RT_AICORE_EXCEPTION;
    j.k_data = room;
    j.v_data = j.k_data + j.k.tokens * j.k.dim;
    j.row = j.v_data + j.k.tokens * j.v.dim;
    j.query = j.row + j.k.tokens;
    code = heads_compute(&j);
    free(room);
    return code;
}
