/* layer_reference.c: attention layers in double precision, straight from their definitions
 * (diffusers v0.26.3 src/diffusers/models/attention_processor.py: AttnProcessor,
 * AttnAddedKVProcessor, IPAdapterAttnProcessor; SpatialNorm of the same file): norms, projections,
 * scaled attention with bias, output projection, residual, rescale. */
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

/* norm(x) * conv_y(zq) + conv_b(zq), zq taken to x's size by nearest. */
static void apply_spatial(double *x, const struct layer_case *c)
{
    const attn_norm *n = &c->layer.spatial_norm;
    const attn_tensor *h = &c->call.hidden, *zq = &c->call.temb;
    const int64_t channels = h->shape[1], height = h->shape[2], width = h->shape[3];
    attn_norm group = *n;
    group.kind = ATTN_NORM_GROUP;
    apply_norm(x, h->shape[0], c->tokens, channels, &group);
    for (int64_t i = 0; i < h->shape[0] * c->tokens; i++) {
        const int64_t b = i / c->tokens, y = i % c->tokens / width, t = i % width;
        const int64_t from[2] = {y * zq->shape[2] / height, t * zq->shape[3] / width};
        for (int64_t d = 0; d < channels; d++) {
            double factor = at(&n->conv_y.bias, d, 0), shift = at(&n->conv_b.bias, d, 0);
            for (int64_t z = 0; z < zq->shape[1]; z++) {
                double value = tensor_get(zq, (int64_t[4]){b, z, from[0], from[1]});
                factor += value * at(&n->conv_y.weight, d, z);
                shift += value * at(&n->conv_b.weight, d, z);
            }
            x[i * channels + d] = x[i * channels + d] * factor + shift;
        }
    }
}

/* Rows [B, inner] that attention reads; keys and values may be joined of two. */
struct parts {
    double *residual, *x, *e, *q, *k, *v, *o, *y;
    double *image, *ip_k, *ip_v, *ip_o;
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

/* [B, tokens, heads * d] from q, k and v, and what `own` adds to the scores; *ref is the caller's
 * to close. NULL: no memory. */
static double *attend(const struct layer_case *c, double *q, double *k, double *v, int64_t keys,
                      const attn_layer_call *own, struct reference *ref)
{
    const int64_t B = c->call.hidden.shape[0], H = c->layer.heads, d = c->layer.dim_head;
    attn_op_call a;
    memset(&a, 0, sizeof a);
    a.q = heads_view(q, c, c->tokens);
    a.k = heads_view(k, c, keys);
    a.v = heads_view(v, c, keys);
    if (own) {
        a.bias = own->bias;
        a.mask = own->mask;
    }
    a.scale = c->layer.scale;
    double *o = malloc(sizeof(double) * (size_t)(B * c->tokens * H * d + 1));
    if (!o || reference_open(ref, &a)) {
        free(o);
        return NULL;
    }
    for (int64_t i = 0; i < B * H * c->tokens * d; i++) {
        int64_t b = i / (H * c->tokens * d), h = i / (c->tokens * d) % H, t = i / d % c->tokens;
        o[((b * c->tokens + t) * H + h) * d + i % d] = ref->out[i];
    }
    return o;
}

static int attend_own(struct layer_case *c, struct parts *p)
{
    const int64_t B = c->call.hidden.shape[0], lines = B * c->layer.heads * c->tokens;
    struct reference ref;
    p->o = attend(c, p->q, p->k, p->v, c->keys, &c->call, &ref);
    if (!p->o)
        return -1;
    memcpy(c->want_lse, ref.lse, sizeof(double) * (size_t)lines);
    memcpy(c->want_mass, ref.key_mass, sizeof(double) * (size_t)(B * c->keys));
    memcpy(c->want_probs, ref.probs, sizeof(double) * (size_t)(lines * c->keys));
    reference_close(&ref);
    return 0;
}

/* The image prompt's attention, added to the layer's own. */
static int attend_image(const struct layer_case *c, struct parts *p)
{
    const int64_t B = c->call.hidden.shape[0], inner = c->layer.heads * c->layer.dim_head;
    attn_tensor flat = c->image;
    const attn_linear k = {.weight = c->ip_k}, v = {.weight = c->ip_v};
    struct reference ref;
    int64_t rows;
    flat.rank = 3;
    flat.shape[1] = c->image.shape[1] * c->image.shape[2];
    flat.shape[2] = c->image.shape[3];
    flat.stride[1] = c->image.stride[2];
    flat.stride[2] = 1;
    if (!(p->image = widen(&flat, &rows)) || !(p->ip_k = project(p->image, rows, &k)) ||
        !(p->ip_v = project(p->image, rows, &v)) ||
        !(p->ip_o = attend(c, p->q, p->ip_k, p->ip_v, flat.shape[1], NULL, &ref)))
        return -1;
    for (int64_t i = 0; i < B * c->tokens * inner; i++)
        p->o[i] += p->ip_o[i];
    reference_close(&ref);
    return 0;
}

/* Keys or values of a layer with added projections: the text's, then the picture's own. */
static double *added(const struct layer_case *c, const struct parts *p, const attn_linear *text,
                     const attn_linear *own)
{
    const int64_t B = c->call.hidden.shape[0], M = c->call.encoder.shape[1];
    const int64_t inner = text->weight.shape[0];
    double *first = project(p->e, B * M, text), *all = NULL;
    if (c->layer.flags & ATTN_LAYER_ONLY_CROSS)
        return first;
    double *second = project(p->x, B * c->tokens, own);
    if (first && second)
        all = malloc(sizeof(double) * (size_t)(B * c->keys * inner + 1));
    for (int64_t b = 0; all && b < B; b++) {
        double *to = all + b * c->keys * inner;
        memcpy(to, first + b * M * inner, sizeof(double) * (size_t)(M * inner));
        memcpy(to + M * inner, second + b * c->tokens * inner,
               sizeof(double) * (size_t)(c->tokens * inner));
    }
    free(first);
    free(second);
    return all;
}

static int projections(const struct layer_case *c, struct parts *p, int64_t rows, int64_t key_rows)
{
    const attn_layer *l = &c->layer;
    p->q = project(p->x, rows, &l->to_q);
    if (c->form == FORM_ADDED) {
        p->k = added(c, p, &l->add_k, &l->to_k);
        p->v = added(c, p, &l->add_v, &l->to_v);
    } else {
        p->k = project(p->e ? p->e : p->x, p->e ? key_rows : rows, &l->to_k);
        p->v = project(p->e ? p->e : p->x, p->e ? key_rows : rows, &l->to_v);
    }
    return p->q && p->k && p->v ? 0 : -1;
}

/* A layer with added projections always has its residual and no rescale. */
static void finish(struct layer_case *c, const struct parts *p)
{
    int64_t n = c->call.hidden.shape[0] * c->tokens * c->layer.query_dim;
    int always = c->form == FORM_ADDED, residual = always || c->layer.flags & ATTN_LAYER_RESIDUAL;
    for (int64_t i = 0; i < n; i++)
        c->want[i] =
            (p->y[i] + (residual ? p->residual[i] : 0)) / (always ? 1 : (double)c->layer.rescale);
}

static int compute(struct layer_case *c, struct parts *p)
{
    const attn_layer *l = &c->layer;
    const int64_t B = c->call.hidden.shape[0];
    int64_t rows, key_rows = 0;
    p->residual = widen(&c->call.hidden, &rows);
    p->x = widen(&c->call.hidden, &rows);
    p->e = c->call.encoder.rank ? widen(&c->call.encoder, &key_rows) : NULL;
    if (!p->residual || !p->x || (!p->e && c->call.encoder.rank))
        return -1;
    if (l->spatial_norm.kind)
        apply_spatial(p->x, c);
    apply_norm(p->x, B, c->tokens, l->query_dim, &l->group_norm);
    if (p->e)
        apply_norm(p->e, B, c->call.encoder.shape[1], c->call.encoder.shape[2], &l->norm_cross);
    if (projections(c, p, rows, key_rows) || attend_own(c, p) ||
        (c->form == FORM_IMAGES && attend_image(c, p)) || !(p->y = project(p->o, rows, &l->to_out)))
        return -1;
    finish(c, p);
    return 0;
}

int layer_reference(struct layer_case *c)
{
    struct parts p = {0};
    int status = compute(c, &p);
    double *const all[] = {p.residual, p.x, p.e,     p.q,    p.k,    p.v,
                           p.o,        p.y, p.image, p.ip_k, p.ip_v, p.ip_o};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    return status;
}
