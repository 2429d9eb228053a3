#include "layer_case.h"

#include "random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static attn_tensor make(struct layer_case *c, const char *name, uint32_t rank, int64_t a, int64_t b,
                        int64_t d, int64_t e)
{
    return layer_tensor_open(c, name, layer_tensor(rank, a, b, d, e), 0);
}

static attn_tensor make_output(struct layer_case *c, const char *name, uint32_t rank, int64_t a,
                               int64_t b, int64_t d, int64_t e)
{
    return layer_tensor_open(c, name, layer_tensor(rank, a, b, d, e), 1);
}

static attn_linear linear(struct layer_case *c, struct random *r, int64_t out, int64_t in, int bias)
{
    attn_linear l = {0};
    l.weight = make(c, "a weight", 2, out, in, 0, 0);
    layer_fill(&l.weight, r, 0, 1 / sqrt((double)in));
    if (bias) {
        l.bias = make(c, "a bias of a linear", 1, out, 0, 0, 0);
        layer_fill(&l.bias, r, 0, 0.3);
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
    n.weight = make(c, "a norm", 1, channels, 0, 0, 0);
    n.bias = make(c, "a norm", 1, channels, 0, 0, 0);
    layer_fill(&n.weight, r, 1, 0.2);
    layer_fill(&n.bias, r, 0, 0.2);
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
    const int64_t *h = o->hidden.stride, *out = o->out.stride;
    const int rank = (int)o->hidden.rank;
    int n = snprintf(c->text, sizeof c->text,
                     "B%lld tokens %lld keys %lld (%s%s) heads %lld x %lld channels %lld/%lld "
                     "flags %#x%s%s%s%s%s%s%s%s hidden",
                     (long long)o->hidden.shape[0], (long long)c->tokens, (long long)c->keys,
                     o->encoder.rank ? "cross" : "self", forms[c->form], (long long)l->heads,
                     (long long)l->dim_head, (long long)l->query_dim, (long long)l->cross_dim,
                     l->flags, l->group_norm.kind ? " group_norm" : "",
                     l->spatial_norm.kind ? " spatial_norm" : "", cross_norms[l->norm_cross.kind],
                     o->bias.rank ? " bias" : "", o->mask.rank ? " mask" : "",
                     o->lse.rank ? " lse" : "", o->key_mass.rank ? " key_mass" : "",
                     o->probs.rank ? " probs" : "");
    for (int i = 0; i < 2 * rank && n < (int)sizeof c->text; i++)
        n +=
            snprintf(c->text + n, sizeof c->text - (size_t)n, "%s%s%lld%s", i == rank ? " out" : "",
                     i % rank ? "," : "(", (long long)(i < rank ? h[i] : out[i - rank]),
                     i % rank == rank - 1 ? ")" : "");
}

/* Hidden states and out, alike for most: then a run may be in place. */
static void draw_hidden(struct layer_case *c, struct random *r, int64_t B)
{
    attn_layer_call *o = &c->call;
    const int64_t channels = c->layer.query_dim;
    const int64_t height = random_between(r, 1, 5), width = random_between(r, 1, 6);
    const int picture = c->layer.spatial_norm.kind || random_percent(r, 40);
    c->tokens = height * width;
    attn_tensor hidden = picture ? layer_tensor(4, B, channels, height, width)
                                 : layer_tensor(3, B, c->tokens, channels, 0);
    attn_tensor out = hidden;
    if (random_percent(r, 25))
        layer_lay_out(&hidden, random_percent(r, 50) ? LAY_GAPS : LAY_CHANNELS_LAST);
    if (random_percent(r, 10)) {
        hidden.stride[0] = -hidden.stride[0];
        if (!picture)
            hidden.stride[1] = -hidden.stride[1];
    }
    if (random_percent(r, 80))
        memcpy(out.stride, hidden.stride, sizeof out.stride);
    o->hidden = layer_tensor_open(c, "hidden", hidden, 0);
    o->out = layer_tensor_open(c, "out", out, 1);
    if (c->layer.spatial_norm.kind)
        o->temb = make(c, "temb", 4, B, c->layer.spatial_norm.conv_y.weight.shape[1],
                       random_between(r, 1, 5), random_between(r, 1, 5));
}

static void draw_encoder(struct layer_case *c, struct random *r, int64_t B)
{
    const attn_layer *l = &c->layer;
    attn_tensor encoder = layer_tensor(
        3, B, c->keys, c->form == FORM_ADDED ? l->add_k.weight.shape[1] : l->cross_dim, 0);
    if (random_percent(r, 15))
        layer_lay_out(&encoder, LAY_GAPS);
    if (random_percent(r, 10))
        encoder.stride[1] = -encoder.stride[1];
    c->call.encoder = layer_tensor_open(c, "encoder", encoder, 0);
}

/* What the layer's own attention gets and gives besides. */
static void draw_attention(struct layer_case *c, struct random *r, int64_t B)
{
    attn_layer_call *o = &c->call;
    const int64_t heads = c->layer.heads;
    if (random_percent(r, 25))
        o->bias = make(c, "bias", 4, B, heads, c->tokens, c->keys);
    if (random_percent(r, 15)) {
        attn_tensor mask = layer_tensor(4, B, heads, c->tokens, c->keys);
        mask.code = ATTN_CODE_UINT;
        mask.bits = 8;
        o->mask = layer_tensor_open(c, "mask", mask, 0);
    }
    if (random_percent(r, 30))
        o->lse = make_output(c, "lse", 3, B, heads, c->tokens, 0);
    if (random_percent(r, 40))
        o->key_mass = make_output(c, "key_mass", 2, B, c->keys, 0, 0);
    if (random_percent(r, 20))
        o->probs = make_output(c, "probs", 4, B, heads, c->tokens, c->keys);
}

static void draw_call(struct layer_case *c, struct random *r)
{
    attn_layer_call *o = &c->call;
    const attn_layer *l = &c->layer;
    const int64_t B = random_between(r, 1, 3);
    o->size = sizeof *o;
    draw_hidden(c, r, B);
    if (c->keys)
        draw_encoder(c, r, B);
    else
        c->keys = c->tokens;
    if (c->form == FORM_ADDED && !(l->flags & ATTN_LAYER_ONLY_CROSS))
        c->keys += c->tokens;
    if (c->form == FORM_IMAGES) {
        c->image =
            make(c, "image", 4, B, random_between(r, 1, 2), random_between(r, 1, 5), l->cross_dim);
        o->images = &c->image;
        o->n_images = 1;
    }
    draw_attention(c, r, B);
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
    if (c->short_of_memory)
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
    layer_fill(&c->call.hidden, &r, 0, 1);
    if (data_seed == 1) { /* what a prompt decides stays */
        layer_fill(&c->call.encoder, &r, 0, 1);
        layer_fill(&c->call.bias, &r, 0, 1);
        layer_fill(&c->call.temb, &r, 0, 1);
        layer_fill(&c->image, &r, 0, 1);
        layer_fill_mask(&c->call.mask, &r);
    }
    for (int i = 0; i < c->n_blocks; i++)
        c->blocks[i].filled = guard_bits(&c->blocks[i].guard);
    layer_case_poison(c);
    return layer_reference(c);
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
