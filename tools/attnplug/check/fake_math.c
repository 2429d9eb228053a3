/* fake_math.c: what the fake compute computes: straight loops, sums in double. */
#include "fake_math.h"

#include <math.h>
#include <stdlib.h>

static int64_t offset_of(const attn_tensor *t, const int64_t at[4])
{
    int64_t offset = 0;
    for (uint32_t i = 0; i < t->rank; i++)
        offset += at[i] * t->stride[i];
    return offset;
}

static double get(const attn_tensor *t, int64_t a, int64_t b, int64_t c, int64_t d)
{
    const int64_t at[4] = {a, b, c, d};
    int64_t offset = offset_of(t, at);
    if (t->code == ATTN_CODE_UINT)
        return ((const uint8_t *)t->data)[offset];
    return (double)((const float *)t->data)[offset];
}

static void put(const attn_tensor *t, int64_t a, int64_t b, int64_t c, int64_t d, double value)
{
    const int64_t at[4] = {a, b, c, d};
    ((float *)t->data)[offset_of(t, at)] = (float)value;
}

/* As rank 4 with leading axes of 1. */
static attn_tensor widened(const attn_tensor *t)
{
    attn_tensor w = *t;
    uint32_t shift = 4 - t->rank;
    for (uint32_t i = 0; i < 4; i++) {
        w.shape[i] = i < shift ? 1 : t->shape[i - shift];
        w.stride[i] = i < shift ? 0 : t->stride[i - shift];
    }
    w.rank = 4;
    return w;
}

/* sum_i x[i] m[row, i] */
static double dot_row(const attn_tensor *x, int64_t a, int64_t b, int64_t c, const attn_tensor *m,
                      int64_t row)
{
    double sum = 0;
    for (int64_t i = 0; i < m->shape[1]; i++)
        sum += get(x, a, b, c, i) * get(m, row, i, 0, 0);
    return sum;
}

static double low_rank(const attn_work *w, const attn_tensor *x, int64_t a, int64_t b, int64_t c,
                       const attn_linear *l, int64_t row)
{
    double sum = 0;
    for (uint32_t i = 0; i < l->n_terms; i++) {
        const attn_term *t = &l->terms[i];
        double product = 0;
        for (int64_t r = 0; r < t->down.shape[0]; r++)
            product += dot_row(x, a, b, c, &t->down, r) * get(&t->up, row, r, 0, 0);
        sum += (double)t->factor * (double)w->scales[t->slot] * product;
    }
    return sum;
}

void fake_linear_run(const attn_work *w, float alpha, const attn_tensor *x4, const attn_linear *l,
                     float beta, const attn_tensor *c, const attn_tensor *y4)
{
    attn_tensor x = widened(x4), y = widened(y4), cc = beta != 0 ? widened(c) : *x4;
    for (int64_t a = 0; a < y.shape[0]; a++)
        for (int64_t b = 0; b < y.shape[1]; b++)
            for (int64_t n = 0; n < y.shape[2]; n++)
                for (int64_t o = 0; o < y.shape[3]; o++) {
                    double sum = dot_row(&x, a, b, n, &l->weight, o);
                    if (l->bias.rank)
                        sum += get(&l->bias, o, 0, 0, 0);
                    sum = (double)alpha * (sum + low_rank(w, &x, a, b, n, l, o));
                    if (beta != 0)
                        sum += (double)beta * get(&cc, a, b, n, o);
                    put(&y, a, b, n, o, sum);
                }
}

static double affine(const attn_norm *n, int64_t channel, double value)
{
    if (n->weight.rank)
        value *= get(&n->weight, channel, 0, 0, 0);
    if (n->bias.rank)
        value += get(&n->bias, channel, 0, 0, 0);
    return value;
}

/* x, y [B, N, C]: one group of `size` channels from `first`, over tokens [from, to). */
static void norm_group(const attn_norm *n, const attn_tensor *x, const attn_tensor *y, int64_t b,
                       int64_t from, int64_t to, int64_t first, int64_t size)
{
    double sum = 0, squares = 0, count = (double)((to - from) * size);
    for (int64_t i = from; i < to; i++)
        for (int64_t c = first; c < first + size; c++)
            sum += get(x, b, i, c, 0);
    double mean = sum / count;
    for (int64_t i = from; i < to; i++)
        for (int64_t c = first; c < first + size; c++)
            squares += pow(get(x, b, i, c, 0) - mean, 2);
    double factor = 1 / sqrt(squares / count + (double)n->eps);
    for (int64_t i = from; i < to; i++)
        for (int64_t c = first; c < first + size; c++)
            put(y, b, i, c, 0, affine(n, c, (get(x, b, i, c, 0) - mean) * factor));
}

void fake_norm_run(const attn_norm *n, const attn_tensor *x, const attn_tensor *y)
{
    int64_t channels = x->shape[2];
    for (int64_t b = 0; b < x->shape[0]; b++) {
        if (n->kind == ATTN_NORM_LAYER) {
            for (int64_t i = 0; i < x->shape[1]; i++)
                norm_group(n, x, y, b, i, i + 1, 0, channels);
        } else {
            int64_t size = channels / (int64_t)n->groups;
            for (int64_t g = 0; g < (int64_t)n->groups; g++)
                norm_group(n, x, y, b, 0, x->shape[1], g * size, size);
        }
    }
}

/* y [B, C, H, W] = y * conv_y(zq) + conv_b(zq), zq resized to nearest */
void fake_spatial_run(const attn_norm *n, const attn_tensor *zq, const attn_tensor *y)
{
    for (int64_t b = 0; b < y->shape[0]; b++)
        for (int64_t c = 0; c < y->shape[1]; c++)
            for (int64_t i = 0; i < y->shape[2]; i++)
                for (int64_t j = 0; j < y->shape[3]; j++) {
                    int64_t zi = i * zq->shape[2] / y->shape[2];
                    int64_t zj = j * zq->shape[3] / y->shape[3];
                    double factor = n->conv_y.bias.rank ? get(&n->conv_y.bias, c, 0, 0, 0) : 0;
                    double shift = n->conv_b.bias.rank ? get(&n->conv_b.bias, c, 0, 0, 0) : 0;
                    for (int64_t z = 0; z < zq->shape[1]; z++) {
                        factor += get(&n->conv_y.weight, c, z, 0, 0) * get(zq, b, z, zi, zj);
                        shift += get(&n->conv_b.weight, c, z, 0, 0) * get(zq, b, z, zi, zj);
                    }
                    put(y, b, c, i, j, get(y, b, c, i, j) * factor + shift);
                }
}

/* One row of probabilities; returns the log-sum-exp. */
static double softmax_row(const attn_op_call *c, int64_t b, int64_t h, int64_t i, double *p)
{
    int64_t keys = c->k.shape[2], kv = h / (c->q.shape[1] / c->k.shape[1]);
    double scale = c->scale != 0 ? (double)c->scale : 1 / sqrt((double)c->q.shape[3]);
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < keys; j++) {
        double score = 0;
        for (int64_t d = 0; d < c->q.shape[3]; d++)
            score += get(&c->q, b, h, i, d) * get(&c->k, b, kv, j, d);
        p[j] = scale * score + (c->bias.rank ? get(&c->bias, b, h, i, j) : 0);
        if (c->mask.rank && get(&c->mask, b, h, i, j) == 0)
            p[j] = -INFINITY;
        top = fmax(top, p[j]);
    }
    for (int64_t j = 0; j < keys && isfinite(top); j++)
        sum += exp(p[j] - top);
    for (int64_t j = 0; j < keys; j++)
        p[j] = isfinite(top) ? exp(p[j] - top) / sum : 0;
    return isfinite(top) ? top + log(sum) : -INFINITY;
}

static void attend_row(const attn_op_call *c, int64_t b, int64_t h, int64_t i, double *p)
{
    int64_t keys = c->k.shape[2], kv = h / (c->q.shape[1] / c->k.shape[1]);
    double lse = softmax_row(c, b, h, i, p);
    for (int64_t d = 0; d < c->v.shape[3]; d++) {
        double sum = 0;
        for (int64_t j = 0; j < keys; j++)
            sum += p[j] * get(&c->v, b, kv, j, d);
        put(&c->out, b, h, i, d, sum);
    }
    if (c->lse.rank)
        put(&c->lse, b, h, i, 0, lse);
    for (int64_t j = 0; j < keys; j++) {
        if (c->probs.rank)
            put(&c->probs, b, h, i, j, p[j]);
        if (c->key_mass.rank)
            put(&c->key_mass, b, j, 0, 0,
                get(&c->key_mass, b, j, 0, 0) + p[j] / (double)c->q.shape[1]);
    }
}

/* 0 where there is no memory. */
int fake_attend_run(const attn_op_call *c)
{
    double *p = calloc((size_t)c->k.shape[2] + 1, sizeof *p);
    if (!p)
        return 0;
    if (c->key_mass.rank)
        for (int64_t b = 0; b < c->k.shape[0]; b++)
            for (int64_t j = 0; j < c->k.shape[2]; j++)
                put(&c->key_mass, b, j, 0, 0, 0);
    for (int64_t b = 0; b < c->q.shape[0]; b++)
        for (int64_t h = 0; h < c->q.shape[1]; h++)
            for (int64_t i = 0; i < c->q.shape[2]; i++)
                attend_row(c, b, h, i, p);
    free(p);
    return 1;
}

/* dst = alpha a + beta b over dst's shape; a and b may be of 1 where dst is not (copy). */
void fake_elements_run(float alpha, const attn_tensor *a0, float beta, const attn_tensor *b0,
                       const attn_tensor *dst0)
{
    attn_tensor a = widened(a0), b = b0 ? widened(b0) : a, dst = widened(dst0);
    for (int i = 0; i < 4; i++)
        if (a.shape[i] == 1)
            a.stride[i] = 0;
    for (int64_t i = 0; i < dst.shape[0]; i++)
        for (int64_t j = 0; j < dst.shape[1]; j++)
            for (int64_t k = 0; k < dst.shape[2]; k++)
                for (int64_t l = 0; l < dst.shape[3]; l++) {
                    double value = (double)alpha * get(&a, i, j, k, l);
                    if (b0)
                        value += (double)beta * get(&b, i, j, k, l);
                    put(&dst, i, j, k, l, value);
                }
}

void fake_fill_run(float value, const attn_tensor *dst)
{
    attn_tensor d = widened(dst);
    for (int64_t i = 0; i < d.shape[0]; i++)
        for (int64_t j = 0; j < d.shape[1]; j++)
            for (int64_t k = 0; k < d.shape[2]; k++)
                for (int64_t l = 0; l < d.shape[3]; l++)
                    put(&d, i, j, k, l, (double)value);
}
