/* sag_output.c: pictures, arrays and latents into files. */
#include "sag.h"

#include <stdlib.h>
#include <string.h>

#include "atomic_file.h"
#include "picture.h"
#include "safetensors.h"

/* Can a file be put there?  Asked before minutes of work. */
static int place_check(const char *path)
{
    ATTN_ERROR_ON(err, 4608);
    atomic_file file;
    if (atomic_file_open(&file, path, &err)) {
        return cli_fail("%s", err.text);
    }
    atomic_file_discard(&file);
    return 0;
}

int output_check(const struct sag_arguments *a, uint32_t n_images)
{
    const struct output_options *o = &a->output;
    bool png = strcmp(o->type, "png") == 0;
    int status = pattern_check("output", o->pattern, png && n_images > 1);
    if (status) {
        return status;
    }
    char *first = pattern_path(o->pattern, 0, picture_seed(a, 0));
    status = first ? place_check(first) : cli_fail("out of memory");
    free(first);
    return status || !o->latents_file ? status : place_check(o->latents_file);
}

/* `t` without all of its first dimension but [first, first + n). */
static attn_tensor slice(const attn_tensor *t, uint32_t first, uint32_t n)
{
    attn_tensor part = *t;
    part.data = (char *)t->data + first * t->stride[0] * (t->bits / 8);
    part.shape[0] = n;
    return part;
}

static attn_status picture_write(const struct sag_arguments *a, const struct made *m,
                                 const char *path, uint32_t index, attn_error *err)
{
    const attn_tensor picture = slice(&m->result->images, index, 1);
    char *parameters = parameters_text(a, m, index);
    attn_status status = parameters
                             ? picture_write_png(path, picture.data, (size_t)picture.shape[1],
                                                 (size_t)picture.shape[2], parameters, err)
                             : attn_fail(err, ATTN_NOMEM, "%s: no memory to write it", path);
    free(parameters);
    return status;
}

/* NumPy's format, version 1.0 (numpy/lib/format.py): magic, header length, a Python dictionary
 * padded to a multiple of 64, then the values. */
static attn_status array_write(const char *path, const attn_tensor *t, attn_error *err)
{
    /* The magic, version 1.0, and the length of what follows: 118. */
    static const uint8_t magic[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, 118, 0};
    char header[128];
    size_t count = (size_t)(t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3]);
    atomic_file file;
    int n = snprintf(header + 10, sizeof header - 10,
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (%lld, %lld, %lld, %lld),"
                     " }",
                     (long long)t->shape[0], (long long)t->shape[1], (long long)t->shape[2],
                     (long long)t->shape[3]);
    memset(header + 10 + n, ' ', sizeof header - 10 - (size_t)n);
    header[sizeof header - 1] = '\n';
    memcpy(header, magic, sizeof magic);
    attn_status status = atomic_file_open(&file, path, err);
    if (status) {
        return status;
    }
    /* A failure stays with the stream, and the commit reports it. */
    (void)!fwrite(header, 1, sizeof header, file.stream);
    (void)!fwrite(t->data, sizeof(float), count, file.stream);
    return atomic_file_commit(&file, err);
}

static attn_status latents_write(const char *path, const attn_tensor *t,
                                 const safetensors_text *texts, size_t n_texts, attn_error *err)
{
    safetensors_tensor stored = {
        .name = "latents", .dtype = {t->code, t->bits}, .rank = t->rank, .data = t->data};
    memcpy(stored.shape, t->shape, t->rank * sizeof t->shape[0]);
    return safetensors_write(path, &stored, 1, texts, n_texts, err);
}

attn_status step_write(const struct sag_arguments *a, uint32_t step, float timestep,
                       const attn_tensor *latents, attn_error *err)
{
    char numbers[2][32];
    const safetensors_text texts[] = {{"step", numbers[0]}, {"timestep", numbers[1]}};
    char *path = pattern_path(a->output.steps_pattern, step, picture_seed(a, 0));
    if (!path) {
        return attn_fail(err, ATTN_NOMEM, "%s: no memory to write it", a->output.steps_pattern);
    }
    (void)snprintf(numbers[0], sizeof numbers[0], "%u", step);
    (void)snprintf(numbers[1], sizeof numbers[1], "%.9g", (double)timestep);
    attn_status status = latents_write(path, latents, texts, 2, err);
    free(path);
    return status;
}

/* Pictures [first, first + n) into one file. */
static int part_write(const struct sag_arguments *a, const struct made *m, uint32_t first,
                      uint32_t n)
{
    ATTN_ERROR_ON(err, 4608);
    const struct output_options *o = &a->output;
    char *path = pattern_path(o->pattern, first, picture_seed(a, first));
    attn_status status = ATTN_NOMEM;
    if (!path) {
        return cli_fail("%s: no memory to write it", o->pattern);
    }
    if (strcmp(o->type, "latent") == 0) {
        const attn_tensor part = slice(&m->result->latents, first, n);
        status = latents_write(path, &part, NULL, 0, &err);
    } else if (strcmp(o->type, "npy") == 0) {
        const attn_tensor part = slice(&m->result->images, first, n);
        status = array_write(path, &part, &err);
    } else {
        status = picture_write(a, m, path, first, &err);
    }
    if (!status) {
        puts(path);
    }
    free(path);
    return status ? cli_fail("%s", err.text) : 0;
}

/* One line a picture, where there was a checker or everything is to be said. */
static void safety_tell(const attn_sag_result *r)
{
    static const char *const said[] = {[ATTN_SAG_NOT_CHECKED] = "not checked",
                                       [ATTN_SAG_CLEAN] = "no",
                                       [ATTN_SAG_FLAGGED] = "yes, so it is black; another prompt or"
                                                            " seed may give one that is not"};
    for (uint32_t i = 0; i < r->n_images; i++) {
        if (r->nsfw[i] != ATTN_SAG_NOT_CHECKED || cli_global.verbose) {
            (void)fprintf(stderr, "attnplug: picture %u flagged by the safety checker: %s\n", i,
                          said[r->nsfw[i]]);
        }
    }
}

int output_write(const struct sag_arguments *a, const struct made *m)
{
    ATTN_ERROR_ON(err, 4608);
    const struct output_options *o = &a->output;
    const attn_sag_result *r = m->result;
    bool each = strcmp(o->type, "png") == 0 || pattern_numbered(o->pattern);
    uint32_t n = each ? 1 : r->n_images;
    int status = 0;
    safety_tell(r);
    for (uint32_t i = 0; i < r->n_images && !status; i += n) {
        status = part_write(a, m, i, n);
    }
    if (!status && o->latents_file) {
        if (latents_write(o->latents_file, &r->latents, NULL, 0, &err)) {
            return cli_fail("%s", err.text);
        }
        puts(o->latents_file);
    }
    return status;
}
