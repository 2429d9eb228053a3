#include "safety_checker.h"

#include "clip_vision.h"
#include "forward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALL = SAFETY_SPECIAL + SAFETY_CONCEPTS };

struct safety_checker {
    struct clip_vision_config config;
    struct weights *weights;
    struct clip_vision *vision;
    attn_linear projection;
    attn_tensor special, concepts;                      /* embeddings, at the device */
    attn_tensor special_thresholds, concept_thresholds; /* likewise */
    char *op;
    struct pass *pass;
};

/* -- building ---------------------------------------------------------------------------------- */

/* The vision part's settings: CLIPConfig takes those of vision_config_dict before those of
 * vision_config where a file has both. */
static attn_status config_vision(struct config *c, const char *folder,
                                 struct clip_vision_config *out, attn_error *err)
{
    const int older = config_value(c, "vision_config_dict") != NULL;
    const char *key = older ? "vision_config_dict" : "vision_config";
    const json_t *part = config_value(c, key);
    struct config *vision;
    char *path = NULL;
    if (!json_is_object(part)) {
        config_refuse(c, ATTN_INVALID, key, "an object with the vision model's settings");
        return config_done(c, 0, NULL);
    }
    if (asprintf(&path, "%s/config.json: %s", folder, key) < 0) {
        return attn_fail(err, ATTN_NOMEM, "%s: out of memory", folder);
    }
    attn_status status = config_open_json((json_t *)(uintptr_t)part, path, &vision, err);
    if (status == ATTN_OK) {
        clip_vision_config_read(vision, out);
        status = config_done(vision, 0, NULL);
        config_close(vision);
    }
    free(path);
    return status;
}

static attn_status config_read(const struct model_source *source, struct clip_vision_config *v,
                               attn_error *err)
{
    struct config *c;
    attn_status status = config_open_source(source, &c, err);
    if (status != ATTN_OK) {
        return status;
    }
    status = config_vision(c, source->folder, v, err);
    if (status == ATTN_OK) {
        v->projection = config_int(c, "projection_dim", 512, 1, 1 << 16);
        status = config_done(c, 0, NULL);
    }
    config_close(c);
    return status;
}

static void build(struct safety_checker *s)
{
    struct weights *w = s->weights;
    const int64_t n = s->config.projection;
    const int64_t special[] = {SAFETY_SPECIAL, n};
    const int64_t concepts[] = {SAFETY_CONCEPTS, n};
    s->vision = clip_vision_build(w, &s->config, "vision_model.vision_model.");
    weights_linear(w, &s->projection, n, s->config.layers.width, 0, "visual_projection");
    s->special = weights_tensor(w, 2, special, "special_care_embeds");
    s->concepts = weights_tensor(w, 2, concepts, "concept_embeds");
    s->special_thresholds = weights_tensor(w, 1, special, "special_care_embeds_weights");
    s->concept_thresholds = weights_tensor(w, 1, concepts, "concept_embeds_weights");
}

attn_status safety_checker_open(struct compute *c, const struct model_source *source,
                                const char *op, struct safety_checker **out, attn_error *err)
{
    static const char *const known[] = {"vision_model.vision_model.embeddings.position_ids", NULL};
    struct safety_checker *s = calloc(1, sizeof *s);
    if (!s) {
        return attn_fail(err, ATTN_NOMEM, "no memory for a safety checker");
    }
    s->op = op ? strdup(op) : NULL;
    attn_status status = op && !s->op ? attn_fail(err, ATTN_NOMEM, "no memory for a safety checker")
                                      : config_read(source, &s->config, err);
    if (status == ATTN_OK) {
        status = weights_open(c, source, "model", &s->weights, err);
    }
    if (status == ATTN_OK) {
        build(s);
        status = weights_done(s->weights, known);
    }
    if (status == ATTN_OK) {
        status = pass_create(c, &s->pass, err);
    }
    if (status != ATTN_OK) {
        safety_checker_close(s);
        return status;
    }
    *out = s;
    return ATTN_OK;
}

void safety_checker_close(struct safety_checker *s)
{
    if (!s) {
        return;
    }
    pass_destroy(s->pass);
    weights_close(s->weights);
    free(s->op);
    free(s);
}

int64_t safety_checker_size(const struct safety_checker *s)
{
    return s->config.size;
}

/* -- scores ------------------------------------------------------------------------------------ */

static double norm_of(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    return fmax(sqrt(sum), 1e-12);
}

static float cosine(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return (float)(sum / (norm_of(a, n) * norm_of(b, n)));
}

/* Above its threshold, to three decimals. */
static int passes(float cosine, float threshold, double adjustment)
{
    return rint(((double)cosine - (double)threshold + adjustment) * 1000) > 0;
}

/* A hit among the special ones lowers the bar by 0.01 for all that come after it. */
static uint8_t is_flagged(const float *cosines, const float *thresholds)
{
    double adjustment = 0;
    uint8_t flagged = 0;
    for (int i = 0; i < SAFETY_SPECIAL; i++) {
        adjustment = passes(cosines[i], thresholds[i], adjustment) ? 0.01 : adjustment;
    }
    for (int i = SAFETY_SPECIAL; i < ALL; i++) {
        flagged |= (uint8_t)passes(cosines[i], thresholds[i], adjustment);
    }
    return flagged;
}

/* What a run takes: host memory. */
struct scratch {
    float *patches, *embeds, *targets;
    float thresholds[ALL];
};

static void forward(attn_work *w, const struct safety_checker *s, int64_t batch,
                    const struct scratch *m)
{
    const struct clip_vision_config *c = &s->config;
    const int64_t cut[] = {batch, c->tokens - 1, 3 * c->patch * c->patch};
    const int64_t pooled[] = {batch, c->projection};
    const attn_tensor rows = host_f32(m->patches, 3, cut);
    const struct clip_vision_call call = {.op = s->op,
                                          .patches = &rows,
                                          .projection = &s->projection.weight,
                                          .pooled = host_f32(m->embeds, 2, pooled)};
    const struct {
        const attn_tensor *from;
        const float *to;
    } reads[] = {{&s->special, m->targets},
                 {&s->concepts, m->targets + SAFETY_SPECIAL * c->projection},
                 {&s->special_thresholds, m->thresholds},
                 {&s->concept_thresholds, m->thresholds + SAFETY_SPECIAL}};
    clip_vision_forward(w, s->vision, &call);
    for (size_t i = 0; i < sizeof reads / sizeof *reads; i++) {
        const attn_tensor to = host_f32(reads[i].to, reads[i].from->rank, reads[i].from->shape);
        work_api(w)->read(w, reads[i].from, &to);
    }
    work_api(w)->synchronize(w);
}

static attn_status run(struct safety_checker *s, int64_t batch, const struct scratch *m,
                       attn_error *err)
{
    attn_work *w = pass_dry(s->pass, err);
    forward(w, s, batch, m);
    if (w->status != ATTN_OK) {
        return w->status;
    }
    w = pass_real(s->pass, NULL, err);
    if (!w) {
        return ATTN_NOMEM;
    }
    forward(w, s, batch, m);
    return w->status;
}

attn_status safety_checker_run(struct safety_checker *s, int64_t batch, const float *pixels,
                               uint8_t *flagged, float *cosines, attn_error *err)
{
    const struct clip_vision_config *c = &s->config;
    const int64_t n = c->projection;
    const int64_t each = (c->tokens - 1) * 3 * c->patch * c->patch;
    struct scratch m = {.patches = malloc((size_t)(batch * each) * sizeof(float)),
                        .embeds = malloc((size_t)(batch * n) * sizeof(float)),
                        .targets = malloc((size_t)(ALL * n) * sizeof(float))};
    attn_status status =
        m.patches && m.embeds && m.targets
            ? ATTN_OK
            : attn_fail(err, ATTN_NOMEM, "no memory to check %lld pictures", (long long)batch);
    if (status == ATTN_OK) {
        clip_vision_cut(c, batch, pixels, m.patches);
        status = run(s, batch, &m, err);
    }
    for (int64_t b = 0; b < batch && status == ATTN_OK; b++) {
        float own[ALL];
        for (int i = 0; i < ALL; i++) {
            own[i] = cosine(m.embeds + b * n, m.targets + i * n, n);
        }
        flagged[b] = is_flagged(own, m.thresholds);
        if (cosines) {
            memcpy(cosines + b * ALL, own, sizeof own);
        }
    }
    free(m.patches);
    free(m.embeds);
    free(m.targets);
    return status;
}
