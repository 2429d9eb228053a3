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

/* Every flag and every norm that diffusers' Attention has. */
static void draw_flags(struct layer_case *c, struct random *r)
{
    attn_layer *l = &c->layer;
    l->scale = random_percent(r, 20) ? 1 : (float)(1 / sqrt((double)l->dim_head));
    l->rescale = random_percent(r, 30) ? 1.5f : 1;
    if (random_percent(r, 40))
        l->flags |= ATTN_LAYER_RESIDUAL;
    if (random_percent(r, 20))
        l->flags |= ATTN_LAYER_UPCAST_ATTENTION;
    if (random_percent(r, 20))
        l->flags |= ATTN_LAYER_UPCAST_SOFTMAX;
    if (c->form == FORM_ADDED && random_percent(r, 40))
        l->flags |= ATTN_LAYER_ONLY_CROSS;
}

static void draw_spatial(struct layer_case *c, struct random *r)
{
    attn_norm *n = &c->layer.spatial_norm;
    int64_t channels = random_between(r, 1, 6);
    *n = norm(c, r, ATTN_NORM_SPATIAL, 4, c->layer.query_dim);
    n->conv_y = linear(c, r, c->layer.query_dim, channels, 1);
    n->conv_b = linear(c, r, c->layer.query_dim, channels, 1);
}

static void draw_norms(struct layer_case *c, struct random *r, int cross)
{
    attn_layer *l = &c->layer;
    if (c->form == FORM_ADDED || random_percent(r, 20))
        l->group_norm = norm(c, r, ATTN_NORM_GROUP, 4, l->query_dim);
    if (random_percent(r, 15))
        draw_spatial(c, r);
    if (cross && c->form != FORM_ADDED && random_percent(r, 30)) {
        int grouped = random_percent(r, 50) && l->cross_dim % 4 == 0;
        l->norm_cross =
            norm(c, r, grouped ? ATTN_NORM_GROUP : ATTN_NORM_LAYER, grouped ? 4 : 0, l->cross_dim);
    }
}

static void draw_images(struct layer_case *c, struct random *r)
{
    const int64_t inner = c->layer.heads * c->layer.dim_head;
    c->ip_k = linear(c, r, inner, c->layer.cross_dim, 0).weight;
    c->ip_v = linear(c, r, inner, c->layer.cross_dim, 0).weight;
    c->params[0] = (attn_param){"to_k_ip.0.weight", ATTN_PARAM_TENSOR, 0, 0, 0, NULL, &c->ip_k};
    c->params[1] = (attn_param){"to_v_ip.0.weight", ATTN_PARAM_TENSOR, 0, 0, 0, NULL, &c->ip_v};
    c->n_params = 2;
}

static void draw_layer(struct layer_case *c, struct random *r)
{
    attn_layer *l = &c->layer;
    int biases = random_percent(r, 40);
    l->size = sizeof *l;
    l->name = "check.layer";
    l->heads = random_between(r, 1, 4);
    l->dim_head = 4 * random_between(r, 1, 6);
    l->query_dim = 8 * random_between(r, 1, 5);
    int cross = c->form != FORM_PLAIN || random_percent(r, 50);
    l->cross_dim = cross && c->form != FORM_ADDED && random_percent(r, 70)
                       ? random_between(r, 5, 40)
                       : l->query_dim;
    draw_flags(c, r);
    int64_t inner = l->heads * l->dim_head;
    l->to_q = linear(c, r, inner, l->query_dim, biases);
    if (!(l->flags & ATTN_LAYER_ONLY_CROSS)) {
        l->to_k = linear(c, r, inner, l->cross_dim, biases);
        l->to_v = linear(c, r, inner, l->cross_dim, biases);
    }
    l->to_out = linear(c, r, l->query_dim, inner, random_percent(r, 80));
    if (c->form == FORM_ADDED) {
        int64_t added = random_between(r, 4, 24);
        l->add_k = linear(c, r, inner, added, 1);
        l->add_v = linear(c, r, inner, added, 1);
    }
    if (c->form == FORM_IMAGES)
        draw_images(c, r);
    draw_norms(c, r, cross);
    c->keys = cross ? random_between(r, 1, 20) : 0; /* 0: self */
}

static void describe(struct layer_case *c)
{
    static const char *const forms[] = {"", " added", " image"};
    static const char *const cross_norms[] = {"", " norm_cross", " norm_cross(groups)"};
    const attn_layer_call *o = &c->call;
    const attn_layer *l = &c->layer;
    (void)snprintf(
        c->text, sizeof c->text,
        "B%lld tokens %lld keys %lld (%s%s) heads %lld x %lld channels %lld/%lld rank %u "
        "flags %#x%s%s%s%s%s%s%s",
        (long long)o->hidden.shape[0], (long long)c->tokens, (long long)c->keys,
        o->encoder.rank ? "cross" : "self", forms[c->form], (long long)l->heads,
        (long long)l->dim_head, (long long)l->query_dim, (long long)l->cross_dim, o->hidden.rank,
        l->flags, l->group_norm.kind ? " group_norm" : "",
        l->spatial_norm.kind ? " spatial_norm" : "", cross_norms[l->norm_cross.kind],
        o->bias.rank ? " bias" : "", o->lse.rank ? " lse" : "", o->key_mass.rank ? " key_mass" : "",
        o->probs.rank ? " probs" : "");
}

static void draw_hidden(struct layer_case *c, struct random *r, int64_t B)
{
    attn_layer_call *o = &c->call;
    const int64_t channels = c->layer.query_dim;
    int64_t height = random_between(r, 1, 5), width = random_between(r, 1, 6);
    c->tokens = height * width;
    if (c->layer.spatial_norm.kind || random_percent(r, 40)) {
        o->hidden = make(c, 4, B, channels, height, width);
        o->out = make(c, 4, B, channels, height, width);
    } else {
        o->hidden = make(c, 3, B, c->tokens, channels, 0);
        o->out = make(c, 3, B, c->tokens, channels, 0);
    }
    if (c->layer.spatial_norm.kind)
        o->temb = make(c, 4, B, c->layer.spatial_norm.conv_y.weight.shape[1],
                       random_between(r, 1, 5), random_between(r, 1, 5));
}

static void draw_call(struct layer_case *c, struct random *r)
{
    attn_layer_call *o = &c->call;
    const attn_layer *l = &c->layer;
    int64_t B = random_between(r, 1, 3);
    o->size = sizeof *o;
    draw_hidden(c, r, B);
    if (c->keys)
        o->encoder = make(c, 3, B, c->keys,
                          c->form == FORM_ADDED ? l->add_k.weight.shape[1] : l->cross_dim, 0);
    else
        c->keys = c->tokens;
    if (c->form == FORM_ADDED && !(l->flags & ATTN_LAYER_ONLY_CROSS))
        c->keys += c->tokens;
    if (c->form == FORM_IMAGES) {
        c->image = make(c, 4, B, random_between(r, 1, 2), random_between(r, 1, 5), l->cross_dim);
        o->images = &c->image;
        o->n_images = 1;
    }
    if (random_percent(r, 25))
        o->bias = make(c, 4, B, l->heads, c->tokens, c->keys);
    if (random_percent(r, 30))
        o->lse = make(c, 3, B, l->heads, c->tokens, 0);
    if (random_percent(r, 40))
        o->key_mass = make(c, 2, B, c->keys, 0, 0);
    if (random_percent(r, 20))
        o->probs = make(c, 4, B, l->heads, c->tokens, c->keys);
    describe(c);
}

static double *wanted(int64_t n)
{
    return malloc(((size_t)n + 1) * sizeof(double));
}

int layer_case_open(struct layer_case *c, enum layer_form form, uint64_t seed, uint64_t index)
{
    struct random r = random_for(seed + 77777 + (uint64_t)form, index);
    memset(c, 0, sizeof *c);
    c->form = form;
    c->seed = seed;
    c->index = index;
    draw_layer(c, &r);
    draw_call(c, &r);
    for (int i = 0; i < c->n_blocks; i++)
        if (!c->blocks[i])
            return -1;
    const int64_t B = c->call.hidden.shape[0], lines = B * c->tokens;
    c->want = wanted(lines * c->layer.query_dim);
    c->want_lse = wanted(lines * c->layer.heads);
    c->want_mass = wanted(B * c->keys);
    c->want_probs = wanted(lines * c->layer.heads * c->keys);
    return c->want && c->want_lse && c->want_mass && c->want_probs ? layer_case_refresh(c, 1) : -1;
}

int layer_case_refresh(struct layer_case *c, uint64_t data_seed)
{
    struct random r = random_for(data_seed ^ c->seed, c->index);
    fill(&c->call.hidden, &r, 0, 1);
    if (data_seed == 1) { /* what a prompt decides stays */
        fill(&c->call.encoder, &r, 0, 1);
        fill(&c->call.bias, &r, 0, 1);
        fill(&c->call.temb, &r, 0, 1);
        fill(&c->image, &r, 0, 1);
    }
    layer_case_poison(c);
    return layer_reference(c);
}

void layer_case_poison(struct layer_case *c)
{
    attn_tensor *outputs[] = {&c->call.out, &c->call.lse, &c->call.key_mass, &c->call.probs};
    for (int i = 0; i < 4; i++) {
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
    free(c->want_probs);
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
