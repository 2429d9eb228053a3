/* layer_reference.c: the plain attention layer in double precision, straight from its definition
 * (diffusers v0.26.3 src/diffusers/models/attention_processor.py, AttnProcessor): group norm,
 * projections, scaled attention with bias, output projection, residual, rescale. */
#include "layer_case.h"

#include "guard.h"
#include "reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* [rows, channels] of a tensor [B, tokens, channels]. */
static double *widen(const attn_tensor *t, int64_t *rows)
{
    const attn_tensor x = layer_tokens(t);
    *rows = x.shape[0] * x.shape[1];
    double *w = malloc(sizeof(double) * (size_t)(*rows * x.shape[2] + 1));
    for (int64_t i = 0; w && i < *rows; i++)
        for (int64_t d = 0; d < x.shape[2]; d++)
            w[i * x.shape[2] + d] =
                tensor_get(&x, (int64_t[4]){i / x.shape[1], i % x.shape[1], d, 0});
    return w;
}

static double at(const attn_tensor *t, int64_t a, int64_t b)
{
    return tensor_get(t, (int64_t[4]){a, b, 0, 0});
}

static double *project(const double *x, int64_t rows, const attn_linear *l)
{
    int64_t out = l->weight.shape[0], in = l->weight.shape[1];
    double *y = malloc(sizeof(double) * (size_t)(rows * out + 1));
    for (int64_t i = 0; y && i < rows; i++)
        for (int64_t o = 0; o < out; o++) {
            double sum = l->bias.rank ? at(&l->bias, o, 0) : 0;
            for (int64_t d = 0; d < in; d++)
                sum += x[i * in + d] * at(&l->weight, o, d);
            y[i * out + o] = sum;
        }
    return y;
}

/* Mean and variance over `n` values that pick() numbers; then the affine part. */
static void normalize(double *x, int64_t tokens, int64_t channels, int64_t first, int64_t width,
                      const attn_norm *n)
{
    double mean = 0, square = 0, count = (double)(tokens * width);
    for (int64_t i = 0; i < tokens; i++)
        for (int64_t d = first; d < first + width; d++)
            mean += x[i * channels + d] / count;
    for (int64_t i = 0; i < tokens; i++)
        for (int64_t d = first; d < first + width; d++)
            square += (x[i * channels + d] - mean) * (x[i * channels + d] - mean) / count;
    for (int64_t i = 0; i < tokens; i++)
        for (int64_t d = first; d < first + width; d++)
            x[i * channels + d] = (x[i * channels + d] - mean) / sqrt(square + (double)n->eps) *
                                      at(&n->weight, d, 0) +
                                  at(&n->bias, d, 0);
}

static void apply_norm(double *x, int64_t batch, int64_t tokens, int64_t channels,
                       const attn_norm *n)
{
    if (n->kind == ATTN_NORM_GROUP) {
        int64_t width = channels / n->groups;
        for (int64_t b = 0; b < batch; b++)
            for (int64_t g = 0; g < n->groups; g++)
                normalize(x + b * tokens * channels, tokens, channels, g * width, width, n);
    } else if (n->kind == ATTN_NORM_LAYER) {
        for (int64_t i = 0; i < batch * tokens; i++)
            normalize(x + i * channels, 1, channels, 0, channels, n);
    }
}

struct parts {
    double *x, *e, *q, *k, *v, *o, *y;
};

static attn_tensor heads_view(double *data, const struct layer_case *c, int64_t tokens)
{
    const int64_t d = c->layer.dim_head, H = c->layer.heads;
    attn_tensor t = {0};
    t.data = data;
    t.rank = 4;
    t.device_type = ATTN_DEVICE_CPU;
    t.code = ATTN_CODE_FLOAT;
    t.bits = 64;
    t.lanes = 1;
    const int64_t shape[4] = {c->call.hidden.shape[0], H, tokens, d};
    const int64_t stride[4] = {tokens * H * d, d, H * d, 1};
    memcpy(t.shape, shape, sizeof shape);
    memcpy(t.stride, stride, sizeof stride);
    return t;
}

/* o [B, tokens, heads * d] from q, k and v. */
static int attend(struct layer_case *c, struct parts *p)
{
    const int64_t B = c->call.hidden.shape[0], H = c->layer.heads, d = c->layer.dim_head;
    struct reference ref;
    attn_op_call a;
    memset(&a, 0, sizeof a);
    a.q = heads_view(p->q, c, c->tokens);
    a.k = heads_view(p->k, c, c->keys);
    a.v = heads_view(p->v, c, c->keys);
    a.bias = c->call.bias;
    a.scale = c->layer.scale;
    p->o = malloc(sizeof(double) * (size_t)(B * c->tokens * H * d + 1));
    if (!p->o || reference_open(&ref, &a))
        return -1;
    for (int64_t i = 0; i < B * H * c->tokens * d; i++) {
        int64_t b = i / (H * c->tokens * d), h = i / (c->tokens * d) % H, t = i / d % c->tokens;
        p->o[((b * c->tokens + t) * H + h) * d + i % d] = ref.out[i];
    }
    memcpy(c->want_lse, ref.lse, sizeof(double) * (size_t)(B * H * c->tokens));
    memcpy(c->want_mass, ref.key_mass, sizeof(double) * (size_t)(B * c->keys));
    reference_close(&ref);
    return 0;
}

static void finish(struct layer_case *c, const struct parts *p, const double *residual)
{
    int64_t n = c->call.hidden.shape[0] * c->tokens * c->layer.query_dim;
    for (int64_t i = 0; i < n; i++)
        c->want[i] = (p->y[i] + (c->layer.flags & ATTN_LAYER_RESIDUAL ? residual[i] : 0)) /
                     (double)c->layer.rescale;
}

int layer_reference(struct layer_case *c)
{
    const attn_layer *l = &c->layer;
    const int64_t B = c->call.hidden.shape[0];
    struct parts p = {0};
    int64_t rows, key_rows = 0;
    int status = -1;
    double *residual = widen(&c->call.hidden, &rows);
    p.x = widen(&c->call.hidden, &rows);
    p.e = c->call.encoder.rank ? widen(&c->call.encoder, &key_rows) : NULL;
    if (residual && p.x && (p.e || !c->call.encoder.rank)) {
        apply_norm(p.x, B, c->tokens, l->query_dim, &l->group_norm);
        if (p.e)
            apply_norm(p.e, B, c->keys, l->cross_dim, &l->norm_cross);
        p.q = project(p.x, rows, &l->to_q);
        p.k = project(p.e ? p.e : p.x, p.e ? key_rows : rows, &l->to_k);
        p.v = project(p.e ? p.e : p.x, p.e ? key_rows : rows, &l->to_v);
        if (p.q && p.k && p.v && !attend(c, &p) && (p.y = project(p.o, rows, &l->to_out))) {
            finish(c, &p, residual);
            status = 0;
        }
    }
    free(residual);
    free(p.x);
    free(p.e);
    free(p.q);
    free(p.k);
    free(p.v);
    free(p.o);
    free(p.y);
    return status;
}
