#include "image_encoder.h"

#include "clip_vision.h"
#include "forward.h"

#include <stdlib.h>
#include <string.h>

struct image_encoder {
    struct clip_vision_config config;
    struct weights *weights;
    struct clip_vision *vision;
    attn_linear projection;
    char *op;
    struct pass *pass;
};

static attn_status config_read(const struct model_source *source, struct clip_vision_config *v,
                               attn_error *err)
{
    struct config *c;
    attn_status status = config_open_source(source, &c, err);
    if (status != ATTN_OK) {
        return status;
    }
    clip_vision_config_read(c, v);
    /* not strict: these files hold every default of transformers' text generation */
    status = config_done(c, 0, NULL);
    config_close(c);
    return status;
}

attn_status image_encoder_open_source(struct compute *c, const struct model_source *source,
                                      const char *op, struct image_encoder **out, attn_error *err)
{
    static const char *const known[] = {"vision_model.embeddings.position_ids", NULL};
    struct image_encoder *e = calloc(1, sizeof *e);
    if (!e) {
        return attn_fail(err, ATTN_NOMEM, "no memory for an image encoder");
    }
    e->op = op ? strdup(op) : NULL;
    attn_status status = op && !e->op ? attn_fail(err, ATTN_NOMEM, "no memory for an image encoder")
                                      : config_read(source, &e->config, err);
    if (status == ATTN_OK) {
        status = weights_open(c, source, "model", &e->weights, err);
    }
    if (status == ATTN_OK) {
        e->vision = clip_vision_build(e->weights, &e->config, "vision_model.");
        weights_linear(e->weights, &e->projection, e->config.projection, e->config.layers.width, 0,
                       "visual_projection");
        status = weights_done(e->weights, known);
    }
    if (status == ATTN_OK) {
        status = pass_create(c, &e->pass, err);
    }
    if (status != ATTN_OK) {
        image_encoder_close(e);
        return status;
    }
    *out = e;
    return ATTN_OK;
}

attn_status image_encoder_open(struct compute *c, const char *folder, const char *op,
                               struct image_encoder **out, attn_error *err)
{
    const struct model_source source = {.folder = folder};
    return image_encoder_open_source(c, &source, op, out, err);
}

void image_encoder_close(struct image_encoder *e)
{
    if (!e) {
        return;
    }
    pass_destroy(e->pass);
    weights_close(e->weights);
    free(e->op);
    free(e);
}

int64_t image_encoder_size(const struct image_encoder *e)
{
    return e->config.size;
}

int64_t image_encoder_width(const struct image_encoder *e)
{
    return e->config.layers.width;
}

int64_t image_encoder_tokens(const struct image_encoder *e)
{
    return e->config.tokens;
}

int64_t image_encoder_embeds(const struct image_encoder *e)
{
    return e->config.projection;
}

attn_status image_encoder_run(struct image_encoder *e, int64_t batch, const float *pixels,
                              float *embeds, float *penultimate, attn_error *err)
{
    const struct clip_vision_config *c = &e->config;
    const int64_t cut[] = {batch, c->tokens - 1, 3 * c->patch * c->patch};
    const int64_t pooled[] = {batch, c->projection};
    const int64_t states[] = {batch, c->tokens, c->layers.width};
    if (batch < 1) {
        return attn_fail(err, ATTN_INVALID, "%lld pictures, expected 1 or more", (long long)batch);
    }
    float *patches = malloc((size_t)(cut[0] * cut[1] * cut[2]) * sizeof *patches);
    if (!patches) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %lld pictures", (long long)batch);
    }
    clip_vision_cut(c, batch, pixels, patches);
    const attn_tensor rows = host_f32(patches, 3, cut);
    struct clip_vision_call call = {.op = e->op, .patches = &rows};
    if (embeds) {
        call.projection = &e->projection.weight;
        call.pooled = host_f32(embeds, 2, pooled);
    }
    if (penultimate) {
        call.penultimate = host_f32(penultimate, 3, states);
    }
    attn_work *w = pass_dry(e->pass, err);
    clip_vision_forward(w, e->vision, &call);
    attn_status status = w->status;
    if (status == ATTN_OK) {
        w = pass_real(e->pass, NULL, err);
        status = w ? ATTN_OK : ATTN_NOMEM;
    }
    if (status == ATTN_OK) {
        clip_vision_forward(w, e->vision, &call);
        status = w->status;
    }
    free(patches);
    return status;
}
