#include "custom_diffusion.h"

#include "adapter_file.h"
#include "attn_host.h"
#include "host_tensor.h"
#include "stored_number.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PARTS = 5 };

/* The weights of one layer. */
struct group {
    char *layer;
    attn_param params[MOST_PARTS];
    attn_tensor tensors[MOST_PARTS]; /* at the device */
    void *copies[MOST_PARTS];        /* of tensors that lay unaligned in the file */
    uint32_t n;
    attn_param *all; /* those of the caller's spec, then these */
    int taken;
};

struct custom_diffusion {
    struct compute *compute;
    safetensors *file;
    struct group *groups;
    size_t n;
};

/* -- reading ----------------------------------------------------------------------------------- */

/* Parameters of the processor, by diffusers' names. */
static const struct {
    const char *name;
    uint32_t rank;
} parts[MOST_PARTS] = {
    {"to_k_custom_diffusion.weight", 2},   {"to_v_custom_diffusion.weight", 2},
    {"to_q_custom_diffusion.weight", 2},   {"to_out_custom_diffusion.0.weight", 2},
    {"to_out_custom_diffusion.0.bias", 1},
};

/* Which part a tensor is, and how much of its name the layer's is; -1: none. */
static int part_of(const char *name, size_t *layer_bytes)
{
    static const char word[] = ".processor.";
    const char *at = strstr(name, word);
    const char *rest = at ? at + sizeof(word) - 1 : NULL;
    for (int i = 0; at && at > name && i < MOST_PARTS; i++) {
        if (strcmp(rest, parts[i].name) == 0) {
            *layer_bytes = (size_t)(at - name);
            return i;
        }
    }
    return -1;
}

static attn_status no_memory(const struct custom_diffusion *cd, attn_error *err)
{
    return attn_fail(err, ATTN_NOMEM, "%s: no memory for its weights", safetensors_path(cd->file));
}

static attn_status tensor_check(const struct custom_diffusion *cd, const safetensors_tensor *t,
                                uint32_t rank, attn_error *err)
{
    if (!stored_is_float(t) || t->dtype.bits > 32) {
        return attn_fail(err, ATTN_INVALID, "%s: %s has elements of %s, expected F32, F16 or BF16",
                         safetensors_path(cd->file), t->name, safetensors_dtype_name(t->dtype));
    }
    if (t->rank != rank || t->bytes == 0) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: %s has rank %" PRIu32 " and %" PRIu64 " bytes, expected rank %" PRIu32
                         " and at least one element",
                         safetensors_path(cd->file), t->name, t->rank, t->bytes, rank);
    }
    return ATTN_OK;
}

/* One tensor to the device, as a parameter of its group. */
static attn_status part_add(struct custom_diffusion *cd, struct group *g,
                            const safetensors_tensor *t, int part, attn_error *err)
{
    const uint32_t i = g->n;
    attn_tensor host;
    attn_status status = tensor_check(cd, t, parts[part].rank, err);
    if (status != ATTN_OK) {
        return status;
    }
    host = host_tensor(t->data, t->dtype.code, t->dtype.bits, t->rank, t->shape);
    if ((uintptr_t)t->data % (t->dtype.bits / 8u) != 0) {
        host.data = g->copies[i] = malloc(t->bytes);
        if (!host.data) {
            return no_memory(cd, err);
        }
        memcpy(host.data, t->data, t->bytes);
    }
    status = cd->compute->api->upload(cd->compute, &host, NULL, &g->tensors[i], err);
    if (status == ATTN_OK) {
        g->params[i] = (attn_param){
            .name = parts[part].name, .kind = ATTN_PARAM_TENSOR, .tensor = &g->tensors[i]};
        g->n++;
    }
    return status;
}

static attn_status tensor_add(struct custom_diffusion *cd, const safetensors_tensor *t,
                              attn_error *err)
{
    size_t bytes;
    const int part = part_of(t->name, &bytes);
    struct group *g;
    if (part < 0) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: %s is no weight of Custom Diffusion, expected names like"
                         " <layer>.processor.to_k_custom_diffusion.weight%s",
                         safetensors_path(cd->file), t->name,
                         strstr(t->name, "lora") ? "; it may be a LoRA" : "");
    }
    /* Tensors come in the order of their names, so a layer's stand together. */
    g = cd->n ? &cd->groups[cd->n - 1] : NULL;
    if (!g || strlen(g->layer) != bytes || memcmp(g->layer, t->name, bytes) != 0) {
        g = &cd->groups[cd->n];
        g->layer = strndup(t->name, bytes);
        if (!g->layer) {
            return no_memory(cd, err);
        }
        cd->n++;
    }
    return part_add(cd, g, t, part, err);
}

static int group_has(const struct group *g, int part)
{
    for (uint32_t i = 0; i < g->n; i++) {
        if (g->params[i].name == parts[part].name) {
            return 1;
        }
    }
    return 0;
}

/* Keys and values were trained together, queries and output likewise. */
static attn_status group_check(const struct custom_diffusion *cd, const struct group *g,
                               attn_error *err)
{
    static const int together[][2] = {{0, 1}, {1, 0}, {2, 3}, {3, 2}, {4, 3}};
    for (size_t i = 0; i < sizeof(together) / sizeof(*together); i++) {
        if (group_has(g, together[i][0]) && !group_has(g, together[i][1])) {
            return attn_fail(err, ATTN_INVALID, "%s: %s.processor.%s is there without %s",
                             safetensors_path(cd->file), g->layer, parts[together[i][0]].name,
                             parts[together[i][1]].name);
        }
    }
    return ATTN_OK;
}

attn_status custom_diffusion_open(struct compute *c, const char *path,
                                  struct custom_diffusion **out, attn_error *err)
{
    attn_status status;
    struct custom_diffusion *cd = calloc(1, sizeof(*cd));
    *out = NULL;
    if (!cd) {
        return attn_fail(err, ATTN_NOMEM, "%s: no memory to open it", path);
    }
    cd->compute = c;
    status = adapter_open(path, "pytorch_custom_diffusion_weights.safetensors", &cd->file, err);
    if (status == ATTN_OK) {
        cd->groups = calloc(safetensors_count(cd->file) + 1, sizeof(*cd->groups));
        status = cd->groups ? ATTN_OK : no_memory(cd, err);
    }
    for (size_t i = 0; status == ATTN_OK && i < safetensors_count(cd->file); i++) {
        status = tensor_add(cd, safetensors_at(cd->file, i), err);
    }
    for (size_t i = 0; status == ATTN_OK && i < cd->n; i++) {
        status = group_check(cd, &cd->groups[i], err);
    }
    if (status == ATTN_OK && cd->n == 0) {
        status = attn_fail(err, ATTN_INVALID, "%s: has no weights", safetensors_path(cd->file));
    }
    if (status != ATTN_OK) {
        custom_diffusion_close(cd);
        return status;
    }
    *out = cd;
    return ATTN_OK;
}

void custom_diffusion_close(struct custom_diffusion *cd)
{
    if (!cd) {
        return;
    }
    for (size_t i = 0; i < cd->n; i++) {
        struct group *g = &cd->groups[i];
        for (uint32_t k = 0; k < MOST_PARTS; k++) {
            if (g->tensors[k].rank) {
                cd->compute->api->unload(cd->compute, &g->tensors[k]);
            }
            free(g->copies[k]);
        }
        free(g->all);
        free(g->layer);
    }
    free(cd->groups);
    safetensors_close(cd->file);
    free(cd);
}

/* -- choosing ---------------------------------------------------------------------------------- */

/* Does a processor of that name take the weights? */
static int takes(const char *processor)
{
    static const char base[] = "custom_diffusion";
    attn_name name = {.size = sizeof(name)};
    const char *last;
    if (attn_name_find(processor, &name, NULL) != ATTN_OK || !name.processor) {
        return 0;
    }
    last = strrchr(name.processor, '+');
    return strcmp(last ? last + 1 : name.processor, base) == 0;
}

static struct group *group_find(const struct custom_diffusion *cd, const char *layer)
{
    for (size_t i = 0; cd && i < cd->n; i++) {
        if (strcmp(cd->groups[i].layer, layer) == 0) {
            return &cd->groups[i];
        }
    }
    return NULL;
}

attn_status custom_diffusion_choose(struct custom_diffusion *cd, const char *layer, int32_t named,
                                    attn_layer_spec *spec, attn_error *err)
{
    struct group *g = group_find(cd, layer);
    if (!g) {
        return ATTN_OK;
    }
    if (!takes(spec->processor)) {
        if (named) {
            return attn_fail(err, ATTN_INVALID,
                             "%s: %s has weights for this layer, which processor %s would leave"
                             " out: expected custom_diffusion or one of its names there",
                             layer, safetensors_path(cd->file), spec->processor);
        }
        spec->processor = "custom_diffusion";
    }
    free(g->all);
    g->all = calloc(spec->n_params + g->n, sizeof(*g->all));
    if (!g->all) {
        return no_memory(cd, err);
    }
    if (spec->n_params) {
        memcpy(g->all, spec->params, spec->n_params * sizeof(*g->all));
    }
    memcpy(g->all + spec->n_params, g->params, g->n * sizeof(*g->all));
    spec->params = g->all;
    spec->n_params += g->n;
    g->taken = 1;
    return ATTN_OK;
}

attn_status custom_diffusion_done(const struct custom_diffusion *cd, attn_error *err)
{
    for (size_t i = 0; cd && i < cd->n; i++) {
        if (!cd->groups[i].taken) {
            return attn_fail(err, ATTN_INVALID,
                             "%s: has weights for %s, but this model has no such attention layer",
                             safetensors_path(cd->file), cd->groups[i].layer);
        }
    }
    return ATTN_OK;
}

attn_status custom_diffusion_family(const struct custom_diffusion *cd, int64_t cross_dim,
                                    attn_error *err)
{
    for (size_t i = 0; cd && i < cd->n; i++) {
        const struct group *g = &cd->groups[i];
        const size_t n = strlen(g->layer);
        const int cross = n > 5 && strcmp(g->layer + n - 5, "attn2") == 0;
        for (uint32_t k = 0; cross && k < g->n; k++) {
            if (g->params[k].name == parts[0].name && g->tensors[k].shape[1] != cross_dim) {
                return family_refuse(safetensors_path(cd->file), g->tensors[k].shape[1], cross_dim,
                                     err);
            }
        }
    }
    return ATTN_OK;
}
