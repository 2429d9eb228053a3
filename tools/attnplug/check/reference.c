#include "reference.h"

#include "guard.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Doubles of a whole tensor, packed: one pass over strides and types instead of one per use. */
static double *widen(const attn_tensor *t)
{
    int64_t n[4] = {1, 1, 1, 1}, i[4];
    for (uint32_t a = 0; a < t->rank; a++)
        n[a] = t->shape[a];
    double *w = malloc(sizeof(double) * (size_t)(n[0] * n[1] * n[2] * n[3] + 1)), *p = w;
    if (!w)
        return NULL;
    for (i[0] = 0; i[0] < n[0]; i[0]++)
        for (i[1] = 0; i[1] < n[1]; i[1]++)
            for (i[2] = 0; i[2] < n[2]; i[2]++)
                for (i[3] = 0; i[3] < n[3]; i[3]++)
                    *p++ = tensor_get(t, i);
    return w;
}

static int visible(const attn_op_call *c, const int64_t at[4])
{
    int64_t offset = at[3] - at[2];
    if ((c->flags & ATTN_CALL_BAND) && (offset < c->band_lo || offset > c->band_hi))
        return 0;
    return !c->mask.rank || tensor_get(&c->mask, at) != 0;
}

struct wide {
    double *q, *k, *v;
};

/* One row: p[Nk] becomes the row of the softmax; returns lse. */
static double row(const attn_op_call *c, const struct wide *w, const int64_t at[3], double *p)
{
    int64_t D = c->q.shape[3], Nk = c->k.shape[2], H = c->q.shape[1], Hk = c->k.shape[1];
    double scale = c->scale != 0 ? (double)c->scale : 1 / sqrt((double)D);
    const double *q = w->q + ((at[0] * H + at[1]) * c->q.shape[2] + at[2]) * D;
    const double *k = w->k + (at[0] * Hk + at[1] / (H / Hk)) * Nk * D;
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < Nk; j++) {
        const int64_t cell[4] = {at[0], at[1], at[2], j};
        p[j] = -INFINITY;
        if (!visible(c, cell))
            continue;
        double s = 0;
        for (int64_t d = 0; d < D; d++)
            s += q[d] * k[j * D + d];
        p[j] = s * scale + (c->bias.rank ? tensor_get(&c->bias, cell) : 0);
        if (!(p[j] <= top)) /* NaN too, so that it reaches the result */
            top = p[j];
    }
    if (top == -INFINITY) {
        memset(p, 0, sizeof *p * (size_t)Nk);
        return -INFINITY;
    }
    for (int64_t j = 0; j < Nk; j++)
        sum += p[j] = exp(p[j] - top);
    for (int64_t j = 0; j < Nk; j++)
        p[j] /= sum;
    return top + log(sum);
}

static void head(const attn_op_call *c, const struct wide *w, struct reference *r, int64_t b,
                 int64_t h)
{
    int64_t Nq = c->q.shape[2], Nk = c->k.shape[2], Dv = c->v.shape[3];
    int64_t H = c->q.shape[1], Hk = c->k.shape[1];
    const double *v = w->v + (b * Hk + h / (H / Hk)) * Nk * Dv;
    for (int64_t i = 0; i < Nq; i++) {
        int64_t at[3] = {b, h, i}, line = (b * H + h) * Nq + i;
        double *p = r->probs + line * Nk;
        r->lse[line] = row(c, w, at, p);
        for (int64_t j = 0; j < Nk; j++) {
            r->key_mass[b * Nk + j] += p[j] / (double)H;
            for (int64_t d = 0; p[j] != 0 && d < Dv; d++)
                r->out[line * Dv + d] += p[j] * v[j * Dv + d];
        }
    }
}

int reference_open(struct reference *r, const attn_op_call *c)
{
    size_t lines = (size_t)(c->q.shape[0] * c->q.shape[1] * c->q.shape[2]);
    struct wide w = {widen(&c->q), widen(&c->k), widen(&c->v)};
    memset(r, 0, sizeof *r);
    r->out = calloc(lines * (size_t)c->v.shape[3] + 1, sizeof(double));
    r->lse = calloc(lines + 1, sizeof(double));
    r->key_mass = calloc((size_t)(c->q.shape[0] * c->k.shape[2]) + 1, sizeof(double));
    r->probs = calloc(lines * (size_t)c->k.shape[2] + 1, sizeof(double));
    int ok = w.q && w.k && w.v && r->out && r->lse && r->key_mass && r->probs;
    for (int64_t b = 0; ok && b < c->q.shape[0]; b++)
        for (int64_t h = 0; h < c->q.shape[1]; h++)
            head(c, &w, r, b, h);
    free(w.q);
    free(w.k);
    free(w.v);
    if (ok)
        return 0;
    reference_close(r);
    return -1;
}

void reference_close(struct reference *r)
{
    free(r->out);
    free(r->lse);
    free(r->key_mass);
    free(r->probs);
    memset(r, 0, sizeof *r);
}

struct sums {
    double error, wanted, got, product, worst;
};

static void compare(struct distance *d, struct sums *s, const int64_t i[4], double got, double want)
{
    int place = isnan(got) != isnan(want) || (isinf(got) || isinf(want) ? got != want : 0);
    if (isnan(got) && isnan(want))
        return;
    double error = place ? INFINITY : (isinf(want) ? 0 : fabs(got - want));
    if (error > s->worst) {
        s->worst = error;
        memcpy(d->first, i, sizeof d->first);
        d->got = got;
        d->wanted = want;
    }
    d->misplaced += place;
    if (place || isinf(want))
        return;
    s->error += error * error;
    s->wanted += want * want;
    s->got += got * got;
    s->product += got * want;
}

struct distance distance_of(const attn_tensor *t, const double *reference, double floor)
{
    struct distance d = {0};
    struct sums s = {0};
    int64_t n[4] = {1, 1, 1, 1}, i[4], count = 0;
    for (uint32_t a = 0; a < t->rank; a++)
        n[a] = t->shape[a];
    for (i[0] = 0; i[0] < n[0]; i[0]++)
        for (i[1] = 0; i[1] < n[1]; i[1]++)
            for (i[2] = 0; i[2] < n[2]; i[2]++)
                for (i[3] = 0; i[3] < n[3]; i[3]++)
                    compare(&d, &s, i, tensor_get(t, i), reference[count++]);
    double norm = fmax(s.wanted, floor * floor * (double)count);
    d.relative = s.error == 0 ? 0 : sqrt(s.error / norm);
    d.cosine = s.wanted == 0 && s.got == 0 ? 1 : s.product / sqrt(s.wanted * s.got);
    return d;
}
