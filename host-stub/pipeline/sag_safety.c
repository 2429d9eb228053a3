#include "sag_safety.h"

#include "image_processor.h"
#include "json_file.h"
#include "safety_checker.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct safety {
    struct safety_checker *checker;
    struct image_processor processor;
};

/* -- loading ----------------------------------------------------------------------------------- */

static attn_status path_make(const struct sag_components *m, const char *name, char **path,
                             attn_error *err)
{
    if (asprintf(path, "%s/%s", m->files.model, name) < 0) {
        *path = NULL;
        return attn_fail(err, ATTN_NOMEM, "%s: no memory to load it", m->files.model);
    }
    return ATTN_OK;
}

/* What model_index.json says; without one nothing is asked for. */
static attn_status index_read(const struct sag_components *m, int *requires, int *left_out,
                              attn_error *err)
{
    char *path;
    json_t *index = NULL;
    attn_status status = path_make(m, "model_index.json", &path, err);
    *requires = *left_out = 0;
    if (!status && access(path, F_OK) == 0) {
        status = json_file_read(path, &index, err);
        /* True is what diffusers' pipelines take where it is not said. */
        *requires = !json_is_false(json_object_get(index, "requires_safety_checker"));
        *left_out = json_is_null(json_array_get(json_object_get(index, "safety_checker"), 1));
    }
    json_decref(index);
    free(path);
    return status;
}

static attn_status processor_load(const struct sag_components *m, struct safety *s, attn_error *err)
{
    char *path;
    attn_status status = path_make(m, "feature_extractor/preprocessor_config.json", &path, err);
    if (status) {
        return status;
    }
    if (access(path, F_OK) != 0) {
        status = attn_fail(err, ATTN_NOT_FOUND,
                           "%s: no such file, which the model's safety checker needs", path);
    }
    if (!status) {
        status = image_processor_read(path, &s->processor, err);
    }
    if (!status) {
        status = image_processor_fits(&s->processor, path, safety_checker_size(s->checker),
                                      "the safety checker", err);
    }
    free(path);
    return status;
}

static attn_status safety_load(struct sag_components *m, const char *folder, attn_error *err)
{
    const struct model_source source = {.folder = folder, .variant = m->files.variant};
    m->safety = calloc(1, sizeof *m->safety);
    if (!m->safety) {
        return attn_fail(err, ATTN_NOMEM, "no memory for a safety checker");
    }
    char text[1024] = "";
    attn_error inner = {sizeof inner, sizeof text, text, 0};
    attn_status status =
        safety_checker_open(m->compute, &source, m->op, &m->safety->checker, &inner);
    if (!status) {
        status = processor_load(m, m->safety, &inner);
    }
    return status ? attn_fail(err, status,
                              "%s; ATTN_SAG_NO_SAFETY_CHECKER (--no-safety-checker) uses the model"
                              " without its safety checker",
                              text)
                  : ATTN_OK;
}

static void warn(const struct sag_components *m, const attn_sag_open_options *o)
{
    char text[1024];
    (void)snprintf(text, sizeof text,
                   "%s: the model asks for a safety checker (requires_safety_checker) and runs"
                   " without one: pictures are not looked at, so showing them to others is on"
                   " whoever runs it; the model's licence may say more",
                   m->files.model);
    if (o->log) {
        o->log(o->log_ctx, 1, text);
    }
}

attn_status safety_open(struct sag_components *m, const attn_sag_open_options *o, attn_error *err)
{
    char *folder = NULL;
    int requires = 0;
    int left_out = 0;
    attn_status status;
    if (m->files.checkpoint) {
        return ATTN_OK;
    }
    status = index_read(m, &requires, &left_out, err);
    if (!status) {
        status = path_make(m, "safety_checker", &folder, err);
    }
    if (!status) {
        const int wanted = !left_out && !(o->flags & ATTN_SAG_NO_SAFETY_CHECKER);
        if (wanted && access(folder, F_OK) == 0) {
            status = safety_load(m, folder, err);
        } else if (requires) {
            warn(m, o);
        }
    }
    free(folder);
    return status;
}

void safety_close(struct safety *s)
{
    if (s) {
        safety_checker_close(s->checker);
        free(s);
    }
}

/* -- checking ---------------------------------------------------------------------------------- */

/* numpy's round, halves to even, as diffusers' numpy_to_pil has it. */
static attn_status picture_of(const struct sag_job *job, const float *pixels, struct picture *out)
{
    attn_status status = picture_take("a picture to check", (uint64_t)job->height,
                                      (uint64_t)job->width, out, job->err);
    for (size_t i = 0; !status && i < 3 * out->height * out->width; i++) {
        out->pixels[i] = (uint8_t)rintf(pixels[i] * 255.0f);
    }
    return status;
}

static attn_status one_check(struct sag_job *job, float *pixels, uint8_t *said)
{
    struct sag_components *m = job->sag->components;
    struct picture picture = {0};
    float *planes = NULL;
    size_t height;
    size_t width;
    uint8_t flagged = 0;
    attn_status status = picture_of(job, pixels, &picture);
    if (!status) {
        status = image_process(&m->safety->processor, &picture, &planes, &height, &width, job->err);
    }
    if (!status) {
        pthread_mutex_lock(&m->encoders_lock);
        status = safety_checker_run(m->safety->checker, 1, planes, &flagged, NULL, job->err);
        pthread_mutex_unlock(&m->encoders_lock);
    }
    if (!status && flagged) {
        memset(pixels, 0, 3 * picture.height * picture.width * sizeof *pixels);
    }
    *said = flagged ? ATTN_SAG_FLAGGED : ATTN_SAG_CLEAN;
    picture_clear(&picture);
    free(planes);
    return status;
}

attn_status job_check(struct sag_job *job)
{
    const size_t each = (size_t)(job->height * job->width * 3);
    attn_status status = ATTN_OK;
    for (int64_t i = 0; job->sag->components->safety && i < job->images && !status; i++) {
        status = one_check(job, (float *)job->pixels + (size_t)i * each, &job->nsfw[i]);
    }
    return status;
}
