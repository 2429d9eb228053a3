#include "layer_file.h"

#include "attention_config.h"
#include "host_tensor.h"
#include "stored_number.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* One block of a tensor's values. */
struct layer_memory {
    struct layer_memory *next;
    float *values;
};

/* -- tensors ----------------------------------------------------------------------------------- */

static attn_status stored_check(const char *path, const safetensors_tensor *t, attn_error *err)
{
    if (!stored_is_float(t))
        return attn_fail(err, ATTN_INVALID, "%s: %s is of type %s, expected F32, F16, BF16 or F64",
                         path, t->name, safetensors_dtype_name(t->dtype));
    if (t->rank > 4)
        return attn_fail(err, ATTN_INVALID, "%s: %s has rank %" PRIu32 ", expected 0 to 4", path,
                         t->name, t->rank);
    if (t->bytes == 0) /* its other sides may be such that their product overflows */
        return attn_fail(err, ATTN_INVALID, "%s: %s has a side of 0", path, t->name);
    return ATTN_OK;
}

/* A contiguous fp32 copy that belongs to the file. */
static attn_status layer_file_widen(struct layer_file *f, const char *path,
                                    const safetensors_tensor *stored, attn_tensor *t,
                                    attn_error *err)
{
    attn_status status = stored_check(path, stored, err);
    if (status != ATTN_OK)
        return status;
    uint64_t count = stored->bytes / (stored->dtype.bits / 8);
    struct layer_memory *block = malloc(sizeof *block);
    float *values = aligned_alloc(64, ((count * sizeof *values) | 63) + 1);
    if (!block || !values) {
        free(block);
        free(values);
        return attn_fail(err, ATTN_NOMEM, "%s: no memory for %s", path, stored->name);
    }
    for (uint64_t i = 0; i < count; i++)
        values[i] = stored_number(stored, i);
    *block = (struct layer_memory){.next = f->memory, .values = values};
    f->memory = block;
    *t = host_f32(values, stored->rank, stored->shape);
    t->align = 64;
    return ATTN_OK;
}

/* -- weights of the layer ---------------------------------------------------------------------- */

struct reading {
    struct layer_file *file;
    const safetensors *stored;
    const char *path;
    uint8_t *taken; /* one for each tensor of the file */
};

static size_t stored_index(const safetensors *stored, const safetensors_tensor *t)
{
    size_t i = 0;
    while (i < safetensors_count(stored) && safetensors_at(stored, i) != t)
        i++;
    return i;
}

/* Takes the tensor of that name; *t has rank 0 where there is none. */
static attn_status reading_take(struct reading *r, const char *name, attn_tensor *t,
                                attn_error *err)
{
    const safetensors_tensor *stored = safetensors_find(r->stored, name);
    *t = (attn_tensor){0};
    if (!stored)
        return ATTN_OK;
    r->taken[stored_index(r->stored, stored)] = 1;
    if (stored->rank == 0)
        return attn_fail(err, ATTN_INVALID, "%s: %s is a single number, expected a tensor", r->path,
                         name);
    return layer_file_widen(r->file, r->path, stored, t, err);
}

static attn_status reading_weight(void *ctx, const char *name, attn_tensor *t, attn_error *err)
{
    char full[160];
    (void)snprintf(full, sizeof full, "attn.%s", name);
    return reading_take(ctx, full, t, err);
}

static attn_status reading_layer(struct reading *r, attn_error *err)
{
    const struct tensor_source source = {.find = reading_weight, .ctx = r};
    const char *json = safetensors_metadata(r->stored, "config");
    struct attention_config config;
    if (!json)
        return attn_fail(err, ATTN_INVALID,
                         "%s: metadata has no \"config\", the JSON arguments of Attention",
                         r->path);
    char text[384] = "";
    attn_error inner = {sizeof inner, sizeof text, text, 0};
    attn_status status = attention_config_parse(json, &config, &inner);
    if (status == ATTN_OK)
        status = attention_layer(&config, "attn", &source, &r->file->layer, &inner);
    return status == ATTN_OK ? ATTN_OK : attn_fail(err, status, "%s: %s", r->path, text);
}

/* -- inputs and parameters --------------------------------------------------------------------- */

static attn_status reading_images(struct reading *r, attn_error *err)
{
    struct layer_file *f = r->file;
    for (;;) {
        char name[64];
        attn_tensor t;
        (void)snprintf(name, sizeof name, "ip_hidden_states.%" PRIu32, f->n_images);
        attn_status status = reading_take(r, name, &t, err);
        if (status != ATTN_OK || t.rank == 0)
            return status;
        if (f->n_images == LAYER_FILE_IMAGES)
            return attn_fail(err, ATTN_INVALID, "%s: more than %d ip_hidden_states", r->path,
                             LAYER_FILE_IMAGES);
        if (t.rank != 3 && t.rank != 4)
            return attn_fail(err, ATTN_INVALID, "%s: %s has rank %" PRIu32 ", expected 3 or 4",
                             r->path, name, t.rank);
        if (t.rank == 3) {
            t.shape[3] = t.shape[2];
            t.stride[3] = t.stride[2];
            t.shape[2] = t.shape[1];
            t.stride[2] = t.stride[1];
            t.shape[1] = 1;
            t.stride[1] = t.stride[0];
            t.rank = 4;
        }
        f->images[f->n_images++] = t;
    }
}

static attn_status reading_inputs(struct reading *r, attn_error *err)
{
    struct layer_file *f = r->file;
    attn_status status = reading_take(r, "hidden_states", &f->hidden, err);
    if (status == ATTN_OK && f->hidden.rank == 0)
        status = attn_fail(err, ATTN_INVALID, "%s: hidden_states is missing", r->path);
    if (status == ATTN_OK)
        status = reading_take(r, "encoder_hidden_states", &f->encoder, err);
    if (status == ATTN_OK)
        status = reading_take(r, "attention_mask", &f->mask, err);
    if (status == ATTN_OK)
        status = reading_take(r, "temb", &f->temb, err);
    if (status == ATTN_OK)
        status = reading_take(r, "out", &f->expected, err);
    if (status == ATTN_OK)
        status = reading_images(r, err);
    return status;
}

/* Copies of a parameter's name and tensor, kept like the values. */
static attn_status reading_param(struct reading *r, const safetensors_tensor *stored,
                                 const char *name, attn_error *err)
{
    struct layer_file *f = r->file;
    attn_param *p = &f->params[f->n_params];
    attn_tensor *t = calloc(1, sizeof *t);
    p->name = strdup(name);
    p->tensor = t;
    f->n_params++; /* counted at once, so that close frees what there is */
    if (!t || !p->name)
        return attn_fail(err, ATTN_NOMEM, "%s: no memory for %s", r->path, name);
    attn_status status = layer_file_widen(f, r->path, stored, t, err);
    p->kind = ATTN_PARAM_TENSOR;
    if (status == ATTN_OK && stored->rank == 0) {
        p->kind = ATTN_PARAM_FLOAT;
        p->f = (double)*(const float *)t->data;
    }
    return status;
}

static attn_status reading_params(struct reading *r, attn_error *err)
{
    static const char prefix[] = "attn.processor.";
    const size_t count = safetensors_count(r->stored), skip = sizeof prefix - 1;
    attn_status status = ATTN_OK;
    r->file->params = calloc(count + 1, sizeof *r->file->params);
    if (!r->file->params)
        return attn_fail(err, ATTN_NOMEM, "%s: no memory for parameters", r->path);
    for (size_t i = 0; i < count && status == ATTN_OK; i++) {
        const safetensors_tensor *stored = safetensors_at(r->stored, i);
        if (strncmp(stored->name, prefix, skip) == 0) {
            r->taken[i] = 1;
            status = reading_param(r, stored, stored->name + skip, err);
        }
    }
    for (size_t i = 0; i < count && status == ATTN_OK; i++)
        if (!r->taken[i])
            status = attn_fail(err, ATTN_INVALID,
                               "%s: nothing takes the tensor \"%s\" of a layer with this config",
                               r->path, safetensors_at(r->stored, i)->name);
    return status;
}

attn_status layer_file_open(const char *path, struct layer_file **out, attn_error *err)
{
    safetensors *stored = NULL;
    attn_status status = safetensors_open(path, &stored, err);
    if (status != ATTN_OK)
        return status;
    struct layer_file *f = calloc(1, sizeof *f);
    uint8_t *taken = calloc(safetensors_count(stored) + 1, 1);
    struct reading r = {.file = f, .stored = stored, .path = path, .taken = taken};
    if (!f || !taken)
        status = attn_fail(err, ATTN_NOMEM, "%s: no memory", path);
    if (status == ATTN_OK)
        status = reading_layer(&r, err);
    if (status == ATTN_OK)
        status = reading_inputs(&r, err);
    if (status == ATTN_OK)
        status = reading_params(&r, err);
    free(taken);
    safetensors_close(stored);
    if (status != ATTN_OK) {
        layer_file_close(f);
        return status;
    }
    *out = f;
    return ATTN_OK;
}

void layer_file_close(struct layer_file *f)
{
    if (!f)
        return;
    for (uint32_t i = 0; i < f->n_params; i++) {
        free((char *)f->params[i].name);
        free((attn_tensor *)f->params[i].tensor);
    }
    free(f->params);
    while (f->memory) {
        struct layer_memory *next = f->memory->next;
        free(f->memory->values);
        free(f->memory);
        f->memory = next;
    }
    free(f);
}

int64_t layer_file_keys(const struct layer_file *f, const char *processor, int64_t image_tokens)
{
    int64_t tokens =
        f->hidden.rank == 4 ? f->hidden.shape[2] * f->hidden.shape[3] : f->hidden.shape[1];
    int64_t context = f->encoder.rank ? f->encoder.shape[1] : tokens;
    if (strcmp(processor, "added_kv") == 0)
        return f->layer.flags & ATTN_LAYER_ONLY_CROSS ? context : context + tokens;
    if (strcmp(processor, "ip_adapter") == 0 && f->encoder.rank && f->n_images == 0)
        return context - image_tokens;
    return context;
}
