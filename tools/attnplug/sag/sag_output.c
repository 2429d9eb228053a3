/* sag_output.c: pictures, arrays and latents into files. */
#include "sag.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "atomic_file.h"
#include "picture.h"

static bool type_is(const struct sag_arguments *a, const char *type)
{
    return strcmp(a->output_type, type) == 0;
}

/* The path of picture `index`: the first %d replaced; the caller's to free. */
static char *picture_path(const char *pattern, uint32_t index)
{
    char *path = NULL;
    const char *mark = strstr(pattern, "%d");
    int done = mark ? asprintf(&path, "%.*s%u%s", (int)(mark - pattern), pattern, index, mark + 2)
                    : asprintf(&path, "%s", pattern);
    return done < 0 ? NULL : path;
}

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
    if (type_is(a, "png") && n_images > 1 && !strstr(a->output, "%d")) {
        return cli_misuse("--output: %s for %u pictures, expected %%d in it for their numbers",
                          a->output, n_images);
    }
    char *first = type_is(a, "png") ? picture_path(a->output, 0) : strdup(a->output);
    int status = first ? place_check(first) : cli_fail("out of memory");
    free(first);
    return status || !a->save_latents ? status : place_check(a->save_latents);
}

/* How the picture was made, in the form that other programs read: prompt, negative prompt, then
 * "Key: value" pairs. */
static char *parameters_text(const struct sag_arguments *a, const struct made *m, uint32_t index)
{
    char *text = NULL;
    uint32_t prompt = index / (uint32_t)a->per_prompt;
    const char *slash = strrchr(m->model, '/');
    const char *negative = a->negatives.n > 1    ? a->negatives.items[prompt]
                           : a->negatives.n == 1 ? a->negatives.items[0]
                                                 : "";
    uint64_t seed = a->seed_texts.n > 1 ? a->seeds[index] : a->seed_texts.n ? a->seeds[0] : 0;
    int done = asprintf(
        &text,
        "%s%s%s\nSteps: %u, Sampler: %s, CFG scale: %g, Seed: %llu, Size: %lldx%lld, Model: %s,"
        " SAG scale: %g, Eta: %g, Clip skip: %u, Batch index: %u, Version: attnplug %s",
        a->prompts.n ? a->prompts.items[prompt] : "", *negative ? "\nNegative prompt: " : "",
        negative, (unsigned)a->steps, m->sampler, a->guidance_scale, (unsigned long long)seed,
        (long long)m->result->images.shape[2], (long long)m->result->images.shape[1],
        slash && slash[1] ? slash + 1 : m->model, a->sag_scale, a->eta, (unsigned)a->clip_skip,
        index, attn_host_version());
    return done < 0 ? NULL : text;
}

static int picture_write(const struct sag_arguments *a, const struct made *m, uint32_t index)
{
    ATTN_ERROR_ON(err, 4608);
    const attn_sag_result *r = m->result;
    size_t height = (size_t)r->images.shape[1];
    size_t width = (size_t)r->images.shape[2];
    const float *values = (const float *)r->images.data + index * height * width * 3;
    char *path = picture_path(a->output, index);
    char *parameters = parameters_text(a, m, index);
    uint8_t *pixels = malloc(height * width * 3);
    attn_status status = ATTN_NOMEM;
    if (path && parameters && pixels) {
        /* numpy's round: halves to even. */
        for (size_t i = 0; i < height * width * 3; i++) {
            pixels[i] = (uint8_t)rintf(values[i] * 255.0f);
        }
        status = picture_write_png(path, pixels, height, width, parameters, &err);
    } else {
        attn_fail(&err, status, "%s: no memory to write it", a->output);
    }
    if (!status) {
        puts(path);
    }
    free(pixels);
    free(parameters);
    free(path);
    return status ? cli_fail("%s", err.text) : 0;
}

/* NumPy's format, version 1.0 (numpy/lib/format.py): magic, header length, a Python dictionary
 * padded to a multiple of 64, then the values. */
static int array_write(const char *path, const attn_tensor *t)
{
    ATTN_ERROR_ON(err, 4608);
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
    if (atomic_file_open(&file, path, &err)) {
        return cli_fail("%s", err.text);
    }
    /* A failure stays with the stream, and the commit reports it. */
    (void)!fwrite(header, 1, sizeof header, file.stream);
    (void)!fwrite(t->data, sizeof(float), count, file.stream);
    if (atomic_file_commit(&file, &err)) {
        return cli_fail("%s", err.text);
    }
    puts(path);
    return 0;
}

static int latents_write(const char *path, const attn_tensor *t)
{
    ATTN_ERROR_ON(err, 4608);
    safetensors_tensor stored = {
        .name = "latents", .dtype = {t->code, t->bits}, .rank = t->rank, .data = t->data};
    memcpy(stored.shape, t->shape, t->rank * sizeof t->shape[0]);
    if (safetensors_write(path, &stored, 1, NULL, 0, &err)) {
        return cli_fail("%s", err.text);
    }
    puts(path);
    return 0;
}

int output_write(const struct sag_arguments *a, const struct made *m)
{
    const attn_sag_result *r = m->result;
    int status = 0;
    if (type_is(a, "latent")) {
        status = latents_write(a->output, &r->latents);
    } else if (type_is(a, "npy")) {
        status = array_write(a->output, &r->images);
    } else {
        for (uint32_t i = 0; i < r->n_images && !status; i++) {
            status = picture_write(a, m, i);
        }
    }
    if (!status && a->save_latents) {
        status = latents_write(a->save_latents, &r->latents);
    }
    return status;
}
