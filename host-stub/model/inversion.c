#include "inversion.h"

#include "adapter_file.h"
#include "attn_host.h"
#include "stored_number.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_VECTORS = 1024, MOST_WIDTH = 1 << 16 };

static const char old_name[] = "string_to_param.*";

static int is_name(const char *name, const char *const *names)
{
    while (*names && strcmp(*names, name) != 0) {
        names++;
    }
    return *names != NULL;
}

/* The one tensor that has the vectors. */
static attn_status vectors_find(const safetensors *file, const safetensors_tensor **found,
                                attn_error *err)
{
    /* what Automatic1111's form has beside */
    static const char *const besides[] = {"string_to_token.*", "step", "sd_checkpoint",
                                          "sd_checkpoint_name", NULL};
    const char *path = safetensors_path(file);
    *found = safetensors_find(file, old_name);
    if (safetensors_find(file, "clip_l") && safetensors_find(file, "clip_g")) {
        return attn_fail(err, ATTN_UNSUPPORTED,
                         "%s: a textual inversion for Stable Diffusion XL (it has clip_l and"
                         " clip_g), expected one for 1.x or 2.x",
                         path);
    }
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const safetensors_tensor *t = safetensors_at(file, i);
        if (t == *found || is_name(t->name, besides)) {
            continue;
        }
        if (*found) {
            return attn_fail(err, ATTN_INVALID,
                             "%s: has both %s and %s, expected one tensor of vectors, which a"
                             " textual inversion has",
                             path, (*found)->name, t->name);
        }
        *found = t;
    }
    return *found
               ? ATTN_OK
               : attn_fail(err, ATTN_INVALID, "%s: has no tensor, expected one of vectors", path);
}

static attn_status shape_read(const safetensors *file, const safetensors_tensor *t,
                              struct inversion *out, attn_error *err)
{
    if (!stored_is_float(t)) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: %s has elements of %s, expected F32, F16, BF16 or F64",
                         safetensors_path(file), t->name, safetensors_dtype_name(t->dtype));
    }
    out->n = t->rank == 2 ? t->shape[0] : 1;
    out->width = t->rank ? t->shape[t->rank - 1] : 0;
    if (t->rank < 1 || t->rank > 2 || out->n < 1 || out->n > MOST_VECTORS || out->width < 1 ||
        out->width > MOST_WIDTH) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: %s has rank %" PRIu32 ", %" PRId64 " vectors of %" PRId64
                         ", expected [width] or [vectors, width] with at most %d vectors",
                         safetensors_path(file), t->name, t->rank, out->n, out->width,
                         MOST_VECTORS);
    }
    return ATTN_OK;
}

/* "folder/new-style.safetensors" as "new-style", for the caller to free. */
static char *name_of_file(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    return strndup(name, dot && dot > name ? (size_t)(dot - name) : strlen(name));
}

static char *token_of(const safetensors *file, const safetensors_tensor *t, const char *given)
{
    const char *named = safetensors_metadata(file, "name");
    if (given) {
        return strdup(given);
    }
    if (strcmp(t->name, old_name) == 0 || strcmp(t->name, "*") == 0) {
        return named && *named ? strdup(named) : name_of_file(safetensors_path(file));
    }
    return strcmp(t->name, "emb_params") == 0 ? name_of_file(safetensors_path(file))
                                              : strdup(t->name);
}

static attn_status token_check(const safetensors *file, const char *token, attn_error *err)
{
    for (const char *c = token; *c; c++) {
        if ((unsigned char)*c <= ' ') {
            return attn_fail(err, ATTN_INVALID,
                             "%s: the token \"%s\" has a space or a control character; another can"
                             " be given",
                             safetensors_path(file), token);
        }
    }
    return *token ? ATTN_OK
                  : attn_fail(err, ATTN_INVALID, "%s: its token has no name; one can be given",
                              safetensors_path(file));
}

static attn_status fill(const safetensors *file, const safetensors_tensor *t, const char *token,
                        struct inversion *out, attn_error *err)
{
    const uint64_t count = (uint64_t)(out->n * out->width);
    out->token = token_of(file, t, token);
    out->vectors = malloc(count * sizeof(*out->vectors));
    if (!out->token || !out->vectors) {
        return attn_fail(err, ATTN_NOMEM, "%s: no memory for its vectors", safetensors_path(file));
    }
    for (uint64_t i = 0; i < count; i++) {
        out->vectors[i] = stored_number(t, i);
        if (!isfinite(out->vectors[i])) {
            return attn_fail(err, ATTN_INVALID, "%s: %s has a number that is not finite",
                             safetensors_path(file), t->name);
        }
    }
    return token_check(file, out->token, err);
}

attn_status inversion_read(const char *path, const char *token, struct inversion *out,
                           attn_error *err)
{
    safetensors *file;
    const safetensors_tensor *t;
    attn_status status;
    *out = (struct inversion){0};
    status = adapter_open(path, "learned_embeds.safetensors", &file, err);
    if (status != ATTN_OK) {
        return status;
    }
    status = vectors_find(file, &t, err);
    if (status == ATTN_OK) {
        status = shape_read(file, t, out, err);
    }
    if (status == ATTN_OK) {
        status = fill(file, t, token, out, err);
    }
    safetensors_close(file);
    if (status != ATTN_OK) {
        inversion_clear(out);
    }
    return status;
}

void inversion_clear(struct inversion *inversion)
{
    free(inversion->token);
    free(inversion->vectors);
    *inversion = (struct inversion){0};
}
