#include "layer_case.h"

#include "guard.h"
#include "random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- tensors
 * ------------------------------------------------------------------------------------------ */

static attn_tensor make(struct layer_case *c, uint32_t rank, int64_t a, int64_t b, int64_t d,
                        int64_t e)
{
    const int64_t shape[4] = {a, b, d, e};
    attn_tensor t = {0};
    int64_t step = 1;
    t.device_type = ATTN_DEVICE_CPU;
    t.code = ATTN_CODE_FLOAT;
    t.bits = 32;
    t.lanes = 1;
    t.rank = rank;
    for (uint32_t i = rank; i-- > 0;) {
        t.shape[i] = shape[i];
        t.stride[i] = step;
        step *= shape[i];
    }
    t.data = c->n_blocks < LAYER_BLOCKS ? calloc((size_t)step + 1, sizeof(float)) : NULL;
    if (t.data)
        c->blocks[c->n_blocks++] = t.data;
    else
        t.rank = 0;
    return t;
}

static void fill(attn_tensor *t, struct random *r, double center, double spread)
{
    int64_t n = t->rank ? 1 : 0;
    for (uint32_t i = 0; i < t->rank; i++)
        n *= t->shape[i];
    for (int64_t i = 0; i < n; i++)
        ((float *)t->data)[i] = (float)(center + spread * random_normal(r));
}

static attn_linear linear(struct layer_case *c, struct random *r, int64_t out, int64_t in, int bias)
{
    attn_linear l = {0};
    l.weight = make(c, 2, out, in, 0, 0);
    fill(&l.weight, r, 0, 1 / sqrt((double)in));
    if (bias) {
        l.bias = make(c, 1, out, 0, 0, 0);
        fill(&l.bias, r, 0, 0.3);
    }
    return l;
}

static attn_norm norm(struct layer_case *c, struct random *r, uint32_t kind, uint32_t groups,
                      int64_t channels)
{
    attn_norm n = {0};
    n.kind = kind;
    n.groups = groups;
    n.eps = 1e-5f;
    n.weight = make(c, 1, channels, 0, 0, 0);
    n.bias = make(c, 1, channels, 0, 0, 0);
    fill(&n.weight, r, 1, 0.2);
    fill(&n.bias, r, 0, 0.2);
    return n;
}

/* -- the layer
 * ------------------------------------------------------------------------------------------- */

static void draw_layer(struct layer_case *c, struct random *r)
{
    attn_layer *l = &c->layer;
    int biases = random_percent(r, 40);
    l->size = sizeof *l;
    l->name = "check.layer";
    l->heads = random_between(r, 1, 4);
    l->dim_head = 4 * random_between(r, 1, 6);
    l->query_dim = 8 * random_between(r, 1, 5);
    int cross = random_percent(r, 50);
    l->cross_dim = cross && random_percent(r, 70) ? random_between(r, 5, 40) : l->query_dim;
    l->scale = (float)(1 / sqrt((double)l->dim_head));
    if (random_percent(r, 20))
        l->scale = 1;
    l->rescale = random_percent(r, 30) ? 1.5f : 1;
    if (random_percent(r, 40))
        l->flags |= ATTN_LAYER_RESIDUAL;
    if (random_percent(r, 20))
        l->flags |= ATTN_LAYER_UPCAST_ATTENTION;
    if (random_percent(r, 20))
        l->flags |= ATTN_LAYER_UPCAST_SOFTMAX;
    int64_t inner = l->heads * l->dim_head;
    l->to_q = linear(c, r, inner, l->query_dim, biases);
    l->to_k = linear(c, r, inner, l->cross_dim, biases);
    l->to_v = linear(c, r, inner, l->cross_dim, biases);
    l->to_out = linear(c, r, l->query_dim, inner, random_percent(r, 80));
    if (random_percent(r, 20))
        l->group_norm = norm(c, r, ATTN_NORM_GROUP, 4, l->query_dim);
    if (cross && random_percent(r, 20))
        l->norm_cross = norm(c, r, ATTN_NORM_LAYER, 0, l->cross_dim);
    c->keys = cross ? random_between(r, 1, 20) : 0; /* 0: self */
}

static void draw_call(struct layer_case *c, struct random *r)
{
    attn_layer_call *o = &c->call;
    const attn_layer *l = &c->layer;
    int64_t B = random_between(r, 1, 3), height = random_between(r, 1, 5),
            width = random_between(r, 1, 6);
    c->tokens = height * width;
    o->size = sizeof *o;
    if (random_percent(r, 40)) {
        o->hidden = make(c, 4, B, l->query_dim, height, width);
        o->out = make(c, 4, B, l->query_dim, height, width);
    } else {
        o->hidden = make(c, 3, B, c->tokens, l->query_dim, 0);
        o->out = make(c, 3, B, c->tokens, l->query_dim, 0);
    }
    if (c->keys)
        o->encoder = make(c, 3, B, c->keys, l->cross_dim, 0);
    else
        c->keys = c->tokens;
    if (random_percent(r, 25))
        o->bias = make(c, 4, B, l->heads, c->tokens, c->keys);
    if (random_percent(r, 30))
        o->lse = make(c, 3, B, l->heads, c->tokens, 0);
    if (random_percent(r, 40))
        o->key_mass = make(c, 2, B, c->keys, 0, 0);
    (void)snprintf(c->text, sizeof c->text,
                   "B%lld tokens %lld keys %lld (%s) heads %lld x %lld channels %lld/%lld rank %u "
                   "flags %#x%s%s%s%s%s",
                   (long long)B, (long long)c->tokens, (long long)c->keys,
                   o->encoder.rank ? "cross" : "self", (long long)l->heads, (long long)l->dim_head,
                   (long long)l->query_dim, (long long)l->cross_dim, o->hidden.rank, l->flags,
                   l->group_norm.kind ? " group_norm" : "", l->norm_cross.kind ? " norm_cross" : "",
                   o->bias.rank ? " bias" : "", o->lse.rank ? " lse" : "",
                   o->key_mass.rank ? " key_mass" : "");
}

int layer_case_open(struct layer_case *c, uint64_t seed, uint64_t index)
{
    struct random r = random_for(seed + 77777, index);
    memset(c, 0, sizeof *c);
    c->seed = seed;
    c->index = index;
    draw_layer(c, &r);
    draw_call(c, &r);
    for (int i = 0; i < c->n_blocks; i++)
        if (!c->blocks[i])
            return -1;
    size_t lines = (size_t)(c->call.hidden.shape[0] * c->tokens);
    c->want = malloc((lines * (size_t)c->layer.query_dim + 1) * sizeof(double));
    c->want_lse = malloc((lines * (size_t)c->layer.heads + 1) * sizeof(double));
    c->want_mass = malloc(((size_t)(c->call.hidden.shape[0] * c->keys) + 1) * sizeof(double));
    return c->want && c->want_lse && c->want_mass ? layer_case_refresh(c, 1) : -1;
}

int layer_case_refresh(struct layer_case *c, uint64_t data_seed)
{
    struct random r = random_for(data_seed ^ c->seed, c->index);
    fill(&c->call.hidden, &r, 0, 1);
    if (data_seed == 1) { /* what a prompt decides stays */
        fill(&c->call.encoder, &r, 0, 1);
        fill(&c->call.bias, &r, 0, 1);
    }
    layer_case_poison(c);
    return layer_reference(c);
}

void layer_case_poison(struct layer_case *c)
{
    attn_tensor *outputs[] = {&c->call.out, &c->call.lse, &c->call.key_mass};
    for (int i = 0; i < 3; i++) {
        int64_t n = outputs[i]->rank ? 1 : 0;
        for (uint32_t a = 0; a < outputs[i]->rank; a++)
            n *= outputs[i]->shape[a];
        if (n)
            memset(outputs[i]->data, 0xFF, (size_t)n * sizeof(float));
    }
}

void layer_case_close(struct layer_case *c)
{
    for (int i = 0; i < c->n_blocks; i++)
        free(c->blocks[i]);
    free(c->want);
    free(c->want_lse);
    free(c->want_mass);
    memset(c, 0, sizeof *c);
}

attn_tensor layer_tokens(const attn_tensor *t)
{
    attn_tensor x = *t;
    if (t->rank != 4)
        return x;
    x.rank = 3;
    x.shape[1] = t->shape[2] * t->shape[3];
    x.stride[1] = t->stride[3];
    x.shape[2] = t->shape[1];
    x.stride[2] = t->stride[1];
    return x;
}
