#include "transformer.h"

#include "forward.h"

enum { NAME_BYTES = 200 };

/* LayerNorm's and Transformer2DModel's own defaults, which no config sets. */
static const double layer_norm_eps = 1e-5;
static const double group_norm_eps = 1e-6;

static struct layer *layer_open(struct weights *w, const struct transformer_desc *desc,
                                const struct transformer_hooks *hooks, int32_t cross,
                                const char *name)
{
    const struct attention_desc attention = {
        .heads = desc->heads,
        .dim_head = desc->channels / desc->heads,
        .query_dim = desc->channels,
        .cross_dim = cross ? desc->cross_dim : 0,
        .flags = desc->upcast ? ATTN_LAYER_UPCAST_ATTENTION : 0,
    };
    attn_layer_spec spec = {.size = sizeof(spec)};
    struct layer *layer;
    hooks->choose(hooks->ctx, name, &spec);
    layer = attention_open(w, &attention, name, &spec);
    hooks->bound(hooks->ctx, name, layer);
    return layer;
}

static void block_build(struct weights *w, struct transformer_block *b,
                        const struct transformer_desc *desc, const struct transformer_hooks *hooks,
                        const char *name)
{
    char attn[NAME_BYTES];
    const int64_t c = desc->channels;
    weights_norm(w, &b->norm1, ATTN_NORM_LAYER, c, 0, layer_norm_eps, "%s.norm1", name);
    (void)snprintf(attn, sizeof(attn), "%s.attn1", name);
    b->attn1 = layer_open(w, desc, hooks, desc->only_cross, attn);
    weights_norm(w, &b->norm2, ATTN_NORM_LAYER, c, 0, layer_norm_eps, "%s.norm2", name);
    (void)snprintf(attn, sizeof(attn), "%s.attn2", name);
    b->attn2 = layer_open(w, desc, hooks, 1, attn);
    weights_norm(w, &b->norm3, ATTN_NORM_LAYER, c, 0, layer_norm_eps, "%s.norm3", name);
    weights_linear(w, &b->ff_in, 8 * c, c, 1, "%s.ff.net.0.proj", name);
    weights_linear(w, &b->ff_out, c, 4 * c, 1, "%s.ff.net.2", name);
}

void transformer_build(struct weights *w, struct transformer *t,
                       const struct transformer_desc *desc, const struct transformer_hooks *hooks,
                       const char *name)
{
    const int64_t c = desc->channels;
    if (c % desc->heads != 0) {
        weights_fail(w, ATTN_INVALID, "%s: %lld channels do not divide into %lld heads", name,
                     (long long)c, (long long)desc->heads);
        return;
    }
    t->channels = c;
    t->only_cross = desc->only_cross;
    weights_norm(w, &t->norm, ATTN_NORM_GROUP, c, desc->groups, group_norm_eps, "%s.norm", name);
    if (desc->linear_projection) {
        weights_linear(w, &t->proj_in, c, c, 1, "%s.proj_in", name);
        weights_linear(w, &t->proj_out, c, c, 1, "%s.proj_out", name);
    } else {
        weights_pointwise(w, &t->proj_in, c, c, "%s.proj_in", name);
        weights_pointwise(w, &t->proj_out, c, c, "%s.proj_out", name);
    }
    t->n_blocks = desc->n_blocks;
    t->blocks = weights_alloc(w, (size_t)desc->n_blocks, sizeof(*t->blocks));
    for (int64_t i = 0; t->blocks && i < desc->n_blocks; i++) {
        char block[NAME_BYTES - 8];
        (void)snprintf(block, sizeof(block), "%s.transformer_blocks.%lld", name, (long long)i);
        block_build(w, &t->blocks[i], desc, hooks, block);
    }
}

/* x += attention(norm(x)). */
static void add_attention(attn_work *w, const attn_norm *norm, struct layer *layer,
                          const struct transformer_call *call, int32_t cross, int32_t images,
                          const attn_tensor *key_mass, const attn_tensor *x)
{
    const uint64_t mark = work_mark(w);
    const attn_tensor normed = take_like(w, x, x->shape[2]);
    attn_layer_call run = {.size = sizeof(run),
                           .hidden = normed,
                           .out = normed,
                           .params = call->params,
                           .n_params = call->n_params};
    if (cross) {
        run.encoder = *call->encoder;
        run.flags = call->same_encoder ? ATTN_LAYER_CALL_SAME : 0;
    }
    if (images) {
        run.images = call->images;
        run.n_images = call->n_images;
    }
    if (key_mass) {
        run.key_mass = *key_mass;
    }
    work_api(w)->norm(w, norm, ACT_NONE, x, NULL, NULL, NULL, NULL, &normed);
    layer_run(w, layer, &run);
    work_math(w)->combine(w, 1.0f, &normed, 1.0f, x, x);
    work_reset(w, mark);
}

/* x += ff_out(geglu(norm(x))). */
static void add_feed_forward(attn_work *w, const struct transformer_block *b, const attn_tensor *x)
{
    const uint64_t mark = work_mark(w);
    const struct epilogue add = {ACT_NONE, x};
    const attn_tensor normed = take_like(w, x, x->shape[2]);
    const attn_tensor inner = take_like(w, x, 4 * x->shape[2]);
    work_api(w)->norm(w, &b->norm3, ACT_NONE, x, NULL, NULL, NULL, NULL, &normed);
    work_api(w)->geglu(w, &normed, &b->ff_in, &inner);
    work_api(w)->linear(w, &inner, &b->ff_out, &add, x);
    work_reset(w, mark);
}

void transformer_forward(attn_work *w, const struct transformer *t,
                         const struct transformer_call *call, const attn_tensor *x)
{
    const uint64_t mark = work_mark(w);
    const attn_tensor tokens = as_tokens(x);
    const struct epilogue add = {ACT_NONE, &tokens};
    const attn_tensor hidden = take_like(w, &tokens, t->channels);
    const uint64_t inner = work_mark(w);
    const attn_tensor normed = take_like(w, &tokens, t->channels);

    work_api(w)->norm(w, &t->norm, ACT_NONE, &tokens, NULL, NULL, NULL, NULL, &normed);
    work_api(w)->linear(w, &normed, &t->proj_in, NULL, &hidden);
    work_reset(w, inner);
    for (int64_t i = 0; i < t->n_blocks; i++) {
        const struct transformer_block *b = &t->blocks[i];
        const attn_tensor *key_mass = i == 0 ? call->key_mass : NULL;
        add_attention(w, &b->norm1, b->attn1, call, t->only_cross, 0, key_mass, &hidden);
        add_attention(w, &b->norm2, b->attn2, call, 1, 1, NULL, &hidden);
        add_feed_forward(w, b, &hidden);
    }
    work_api(w)->linear(w, &hidden, &t->proj_out, &add, &tokens);
    work_reset(w, mark);
}
