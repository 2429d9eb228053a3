#include "text_encoder.h"

#include "clip_layers.h"
#include "forward.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ADDED = 1 << 16 };

struct text_config {
    struct clip_layers_config layers;
    int64_t vocabulary, tokens;
};

struct text_encoder {
    struct text_config config;
    struct weights *weights;
    attn_tensor token_table, position_table; /* of the file's element type */
    struct clip_layer *layers;
    attn_norm final_norm;
    char *op;
    struct pass *pass;
    float *added; /* [n_added, width]: tokens beyond the vocabulary */
    int64_t n_added;
    float scales[LORA_MOST_FILES];
    uint32_t n_scales;
};

/* -- building -------------------------------------------------------------------------------- */

static attn_status config_read(const struct model_source *source, struct text_config *t,
                               attn_error *err)
{
    struct config *c;
    attn_status status = config_open_source(source, &c, err);
    if (status != ATTN_OK) {
        return status;
    }
    config_only(c, "model_type", "\"clip_text_model\"");
    t->vocabulary = config_int(c, "vocab_size", 49408, 1, 1 << 24);
    t->tokens = config_int(c, "max_position_embeddings", 77, 1, 1 << 16);
    t->layers = (struct clip_layers_config){.width = 512, .inner = 2048, .layers = 12, .heads = 8};
    clip_layers_config_read(c, &t->layers);
    /* not strict: these files hold every default of transformers' text generation */
    status = config_done(c, 0, NULL);
    config_close(c);
    return status;
}

static void build(struct text_encoder *t)
{
    struct weights *w = t->weights;
    const struct text_config *c = &t->config;
    const int64_t width = c->layers.width;
    const int64_t token_shape[] = {c->vocabulary, width};
    const int64_t position_shape[] = {c->tokens, width};
    const char *prefix = weights_has(w, "text_model.final_layer_norm.weight") ? "text_model." : "";
    t->token_table =
        weights_table(w, 2, token_shape, "%sembeddings.token_embedding.weight", prefix);
    t->position_table =
        weights_table(w, 2, position_shape, "%sembeddings.position_embedding.weight", prefix);
    t->layers = clip_layers_build(w, &c->layers, prefix);
    weights_norm(w, &t->final_norm, ATTN_NORM_LAYER, width, 0, c->layers.eps, "%sfinal_layer_norm",
                 prefix);
}

attn_status text_encoder_open_adapted(struct compute *c, const struct model_source *source,
                                      const char *op, struct lora_set *loras,
                                      struct text_encoder **out, attn_error *err)
{
    /* an integer table of 0, 1, 2, ... that older versions of transformers wrote; what compares
     * texts with pictures, in OpenCLIP's files */
    static const char *const known[] = {"text_model.embeddings.position_ids",
                                        "embeddings.position_ids", "text_projection.",
                                        "logit_scale", NULL};
    attn_status status = ATTN_OK;
    struct text_encoder *t = calloc(1, sizeof(*t));
    if (!t) {
        return attn_fail(err, ATTN_NOMEM, "no memory for a text encoder");
    }
    if (op && !(t->op = strdup(op))) {
        status = attn_fail(err, ATTN_NOMEM, "no memory for a text encoder");
    }
    if (status == ATTN_OK) {
        status = config_read(source, &t->config, err);
    }
    if (status == ATTN_OK) {
        status = lora_set_family(loras, t->config.layers.width, err);
    }
    if (status == ATTN_OK) {
        status = weights_open(c, source, "model", &t->weights, err);
    }
    if (status == ATTN_OK) {
        weights_adapt(t->weights, loras, LORA_TEXT_ENCODER);
        build(t);
        status = weights_done(t->weights, known);
    }
    if (status == ATTN_OK) {
        status = pass_create(c, &t->pass, err);
    }
    if (status != ATTN_OK) {
        text_encoder_close(t);
        return status;
    }
    *out = t;
    return ATTN_OK;
}

attn_status text_encoder_open_source(struct compute *c, const struct model_source *source,
                                     const char *op, struct text_encoder **out, attn_error *err)
{
    return text_encoder_open_adapted(c, source, op, NULL, out, err);
}

attn_status text_encoder_open(struct compute *c, const char *folder, const char *op,
                              struct text_encoder **out, attn_error *err)
{
    const struct model_source source = {.folder = folder};
    return text_encoder_open_source(c, &source, op, out, err);
}

void text_encoder_rest(const struct text_encoder *t)
{
    weights_rest(t->weights);
}

void text_encoder_close(struct text_encoder *t)
{
    if (!t) {
        return;
    }
    pass_destroy(t->pass);
    weights_close(t->weights);
    free(t->added);
    free(t->op);
    free(t);
}

void text_encoder_set_scales(struct text_encoder *t, const float *scales, uint32_t n)
{
    t->n_scales = n;
    for (uint32_t i = 0; i < n; i++) {
        t->scales[i] = scales[i];
    }
}

attn_status text_encoder_extend(struct text_encoder *t, const float *vectors, int64_t n,
                                int32_t *first, attn_error *err)
{
    const size_t width = (size_t)t->config.layers.width;
    const int64_t total = t->n_added + n;
    float *longer;
    if (n < 1 || total > MAX_ADDED) {
        return attn_fail(err, ATTN_INVALID, "%lld added tokens, expected 1 to %d", (long long)total,
                         MAX_ADDED);
    }
    longer = realloc(t->added, (size_t)total * width * sizeof(*longer));
    if (!longer) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %lld added tokens", (long long)total);
    }
    memcpy(longer + (size_t)t->n_added * width, vectors, (size_t)n * width * sizeof(*longer));
    *first = (int32_t)text_encoder_vocabulary(t);
    t->added = longer;
    t->n_added = total;
    return ATTN_OK;
}

int64_t text_encoder_vocabulary(const struct text_encoder *t)
{
    return t->config.vocabulary + t->n_added;
}

int64_t text_encoder_width(const struct text_encoder *t)
{
    return t->config.layers.width;
}

int64_t text_encoder_tokens(const struct text_encoder *t)
{
    return t->config.tokens;
}

int32_t text_encoder_openclip(const struct text_encoder *t)
{
    return t->config.layers.activation == ACT_GELU;
}

/* -- the forward pass ------------------------------------------------------------------------ */

/* Row `row` of a matrix. */
static attn_tensor row_of(const attn_tensor *matrix, int64_t row)
{
    attn_tensor t = *matrix;
    t.shape[0] = 1;
    t.align = 0;
    if (t.data) {
        t.data = (char *)t.data + row * t.stride[0] * (t.bits / 8);
    }
    return t;
}

/* x[row] = the vector of an added token + its position's. */
static void embed_added(attn_work *w, const struct text_encoder *t, int64_t added, int64_t position,
                        const attn_tensor *row)
{
    const int64_t width = t->config.layers.width;
    const uint64_t mark = work_mark(w);
    const int64_t shape[] = {1, width};
    const attn_tensor host = host_f32(t->added + added * width, 2, shape);
    const attn_tensor vector = work_take(w, NULL, 2, host.shape);
    const attn_tensor place = row_of(&t->position_table, position);
    work_api(w)->write(w, &host, &vector);
    work_math(w)->combine(w, 1.0f, &vector, 1.0f, &place, row);
    work_reset(w, mark);
}

/* Ids beyond the vocabulary stand at 0 in `plain` and get their vectors afterwards. */
static void embed(attn_work *w, const struct text_encoder *t, const attn_tensor *host_ids,
                  const attn_tensor *plain, const attn_tensor *x)
{
    const struct compute_api *api = work_api(w);
    const int32_t *ids = host_ids->data;
    const int64_t tokens = t->config.tokens;
    const int64_t n = host_ids->shape[0] * tokens;
    const uint64_t mark = work_mark(w);
    const attn_tensor device_ids = work_take(w, plain, 2, plain->shape);
    attn_tensor rows = *x;
    api->write(w, plain, &device_ids);
    api->embed(w, &device_ids, &t->token_table, &t->position_table, x);
    work_reset(w, mark);
    rows.rank = 2;
    rows.shape[0] = n;
    rows.shape[1] = rows.stride[0] = t->config.layers.width;
    rows.stride[1] = 1;
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] >= t->config.vocabulary) {
            const attn_tensor row = row_of(&rows, i);
            embed_added(w, t, ids[i] - t->config.vocabulary, i % tokens, &row);
        }
    }
}

static attn_status forward(attn_work *w, const struct text_encoder *t, int64_t n_layers,
                           const attn_tensor *host_ids, const attn_tensor *plain,
                           const attn_tensor *out)
{
    const struct compute_api *api = work_api(w);
    const attn_tensor x = work_take(w, NULL, 3, out->shape);
    w->scales = t->scales;
    w->n_scales = t->n_scales;
    embed(w, t, host_ids, plain, &x);
    for (int64_t i = 0; i < n_layers; i++) {
        clip_layer_forward(w, &t->config.layers, &t->layers[i], t->op, 1, &x);
    }
    api->norm(w, &t->final_norm, ACT_NONE, &x, NULL, NULL, NULL, NULL, &x);
    api->read(w, &x, out);
    api->synchronize(w);
    return w->status;
}

/* -- running --------------------------------------------------------------------------------- */

static attn_status ids_check(const struct text_encoder *t, int64_t batch, const int32_t *ids,
                             attn_error *err)
{
    const int64_t n = batch * t->config.tokens;
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= text_encoder_vocabulary(t)) {
            return attn_fail(err, ATTN_INVALID, "token id %d, expected 0 to %lld", (int)ids[i],
                             (long long)text_encoder_vocabulary(t) - 1);
        }
    }
    return ATTN_OK;
}

/* A copy with 0 in place of added tokens, for the caller to free; NULL without memory. */
static int32_t *ids_within(const struct text_encoder *t, const int32_t *ids, int64_t n)
{
    int32_t *copy = malloc((size_t)n * sizeof(*copy));
    for (int64_t i = 0; copy && i < n; i++) {
        copy[i] = ids[i] < t->config.vocabulary ? ids[i] : 0;
    }
    return copy;
}

attn_status text_encoder_run(struct text_encoder *t, int64_t batch, const int32_t *ids,
                             uint32_t clip_skip, float *out, attn_error *err)
{
    const struct text_config *c = &t->config;
    const int64_t shape[] = {batch, c->tokens, c->layers.width};
    const attn_tensor host_out = host_f32(out, 3, shape);
    const attn_tensor host_ids = host_tensor(ids, ATTN_CODE_INT, 32, 2, shape);
    const int64_t n_layers = c->layers.layers - clip_skip;
    attn_tensor plain = host_ids;
    attn_work *w;
    attn_status status;
    plain.data = NULL;
    if (batch < 1) {
        return attn_fail(err, ATTN_INVALID, "%lld prompts, expected 1 or more", (long long)batch);
    }
    if (n_layers < 0) {
        return attn_fail(err, ATTN_INVALID, "clip_skip is %u, the text encoder has %lld layers",
                         clip_skip, (long long)c->layers.layers);
    }
    status = ids_check(t, batch, ids, err);
    if (status == ATTN_OK) {
        plain.data = ids_within(t, ids, batch * c->tokens);
        status = plain.data
                     ? ATTN_OK
                     : attn_fail(err, ATTN_NOMEM, "no memory for %lld prompts", (long long)batch);
    }
    if (status == ATTN_OK) {
        status = forward(pass_dry(t->pass, err), t, n_layers, &host_ids, &plain, &host_out);
    }
    if (status == ATTN_OK) {
        w = pass_real(t->pass, NULL, err);
        status = w ? forward(w, t, n_layers, &host_ids, &plain, &host_out) : ATTN_NOMEM;
    }
    free(plain.data);
    return status;
}
