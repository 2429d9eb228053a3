#include "sag_image_prompts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Parameters of one layer, kept until the UNet is closed. */
struct layer_params {
    struct layer_params *next;
    attn_param params[];
};

/* -- loading ----------------------------------------------------------------------------------- */

static attn_status adapter_load(struct sag_components *m, const attn_sag_ip_adapter *given,
                                attn_error *err)
{
    struct image_prompts *p = m->pictures;
    const unsigned i = p->n;
    if (!given->file) {
        return attn_fail(err, ATTN_INVALID, "IP-Adapter %u: no file given", i);
    }
    if (!isfinite(given->scale)) {
        return attn_fail(err, ATTN_INVALID, "%s: scale %g, expected a finite number", given->file,
                         given->scale);
    }
    attn_status status = ip_adapter_open(m->compute, given->file, m->op, &p->adapters[i], err);
    if (!status) {
        p->scales[i] = given->scale;
        (void)snprintf(p->scale_names[i], sizeof p->scale_names[i], "scale.%u", i);
        (void)snprintf(p->k_names[i], sizeof p->k_names[i], "to_k_ip.%u.weight", i);
        (void)snprintf(p->v_names[i], sizeof p->v_names[i], "to_v_ip.%u.weight", i);
        p->n++;
    }
    return status;
}

/* "<folder><name>" for the caller to free; NULL without memory. */
static char *join(const char *folder, size_t bytes, const char *name)
{
    char *path = NULL;
    return asprintf(&path, "%.*s%s", (int)bytes, folder, name) < 0 ? NULL : path;
}

/* The folder that was named, the model's, or the one beside the first adapter; *folder stays NULL
 * where there is none. */
static attn_status encoder_find(const struct sag_components *m, const attn_sag_open_options *o,
                                char **folder, attn_error *err)
{
    const char *file = o->ip_adapters[0].file;
    const char *slash = strrchr(file, '/');
    char *places[] = {
        o->image_encoder ? strdup(o->image_encoder) : NULL,
        join(m->files.model, strlen(m->files.model), "/image_encoder"),
        join(file, slash ? (size_t)(slash - file) + 1 : 0, "image_encoder"),
    };
    attn_status status = (o->image_encoder && !places[0]) || !places[1] || !places[2]
                             ? attn_fail(err, ATTN_NOMEM, "no memory for an image encoder")
                             : ATTN_OK;
    *folder = NULL;
    for (size_t i = 0; i < 3; i++) {
        const int here = places[i] && (i == 0 || access(places[i], F_OK) == 0);
        if (!status && !*folder && here) {
            *folder = places[i];
        } else {
            free(places[i]);
        }
    }
    return status;
}

/* The model's feature_extractor, else what lies with the encoder, else CLIP's own. */
static attn_status processor_load(const struct sag_components *m, const char *encoder,
                                  struct image_prompts *p, attn_error *err)
{
    char *places[] = {
        join(m->files.model, strlen(m->files.model), "/feature_extractor/preprocessor_config.json"),
        join(encoder, strlen(encoder), "/preprocessor_config.json")};
    const char *used = "CLIPImageProcessor's defaults";
    attn_status status = places[0] && places[1]
                             ? ATTN_OK
                             : attn_fail(err, ATTN_NOMEM, "no memory for an image processor");
    p->processor = image_processor_default();
    for (size_t i = 0; i < 2 && !status; i++) {
        if (access(places[i], F_OK) == 0) {
            status = image_processor_read(places[i], &p->processor, err);
            used = places[i];
            break;
        }
    }
    if (!status) {
        status =
            image_processor_fits(&p->processor, used, image_encoder_size(p->encoder), encoder, err);
    }
    free(places[0]);
    free(places[1]);
    return status;
}

static attn_status encoder_load(struct sag_components *m, const attn_sag_open_options *o,
                                attn_error *err)
{
    struct image_prompts *p = m->pictures;
    char *folder;
    attn_status status = encoder_find(m, o, &folder, err);
    if (!status && folder) {
        const struct model_source source = {.folder = folder, .variant = m->files.variant};
        status = image_encoder_open_source(m->compute, &source, m->op, &p->encoder, err);
    }
    if (!status && folder) {
        status = processor_load(m, folder, p, err);
    }
    for (uint32_t i = 0; i < p->n && !status && p->encoder; i++) {
        const int states = ip_adapter_wants_states(p->adapters[i]);
        const int64_t want = ip_adapter_width(p->adapters[i]);
        const int64_t have =
            states ? image_encoder_width(p->encoder) : image_encoder_embeds(p->encoder);
        if (want != have) {
            status = attn_fail(
                err, ATTN_INVALID, "%s: reads %s of %lld, but the image encoder %s gives %lld",
                ip_adapter_path(p->adapters[i]), states ? "hidden states" : "image embeddings",
                (long long)want, folder, (long long)have);
        }
    }
    free(folder);
    return status;
}

attn_status image_prompts_open(struct sag_components *m, const attn_sag_open_options *o,
                               attn_error *err)
{
    attn_status status = ATTN_OK;
    if (!o->n_ip_adapters) {
        return ATTN_OK;
    }
    if (!o->ip_adapters || o->n_ip_adapters > IMAGE_PROMPTS) {
        return attn_fail(err, ATTN_INVALID, "ip_adapters: %u, expected an array of at most %d",
                         o->n_ip_adapters, IMAGE_PROMPTS);
    }
    m->pictures = calloc(1, sizeof *m->pictures);
    if (!m->pictures) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %u IP-Adapters", o->n_ip_adapters);
    }
    for (uint32_t i = 0; i < o->n_ip_adapters && !status; i++) {
        status = adapter_load(m, &o->ip_adapters[i], err);
    }
    return status ? status : encoder_load(m, o, err);
}

void image_prompts_close(struct image_prompts *p)
{
    if (!p) {
        return;
    }
    for (struct layer_params *next, *at = p->params; at; at = next) {
        next = at->next;
        free(at);
    }
    image_encoder_close(p->encoder);
    for (uint32_t i = 0; i < p->n; i++) {
        ip_adapter_close(p->adapters[i]);
    }
    free(p);
}

/* -- layers ------------------------------------------------------------------------------------ */

attn_status image_prompts_family(const struct image_prompts *p, int64_t cross, attn_error *err)
{
    attn_status status = ATTN_OK;
    for (uint32_t i = 0; p && i < p->n && !status; i++) {
        status = ip_adapter_family(p->adapters[i], cross, err);
    }
    return status;
}

/* The processor that sees pictures in place of the one that was named; the op stays that one's. */
static attn_status processor_replace(attn_registry *registry, const char *layer,
                                     attn_layer_spec *spec, attn_error *err)
{
    static const struct {
        const char *from, *to;
    } known[] = {{"standard", "ip_adapter"},
                 {"ip_adapter", "ip_adapter"},
                 {"lora", "lora+ip_adapter"},
                 {"lora+standard", "lora+ip_adapter"},
                 {"lora+ip_adapter", "lora+ip_adapter"}};
    attn_name name = {.size = sizeof name};
    attn_status status =
        attn_name_find_in(registry, spec->processor, ATTN_NAME_PROCESSORS, &name, err);
    if (status) {
        return status;
    }
    for (size_t i = 0; name.processor && i < sizeof known / sizeof *known; i++) {
        if (strcmp(name.processor, known[i].from) == 0) {
            if (!spec->op) {
                spec->op = name.flags & ATTN_NAME_F32_AUTO ? name.name : name.op;
            }
            spec->flags |= name.flags;
            spec->processor = known[i].to;
            return ATTN_OK;
        }
    }
    return attn_fail(err, ATTN_INVALID,
                     "%s: processor %s sees no pictures, so an IP-Adapter would be left out there:"
                     " expected standard or ip_adapter, or lora+ one of them",
                     layer, spec->processor);
}

static int has_param(const attn_layer_spec *spec, const char *name)
{
    int found = 0;
    for (uint32_t i = 0; i < spec->n_params; i++) {
        found |= spec->params[i].name && strcmp(spec->params[i].name, name) == 0;
    }
    return found;
}

/* Those of the spec, then weights and scale of each adapter; a scale that the spec has stays. */
static attn_status params_fill(const struct image_prompts *p, const char *layer,
                               const attn_layer_spec *spec, attn_param *params, uint32_t *n,
                               attn_error *err)
{
    attn_status status = ATTN_OK;
    for (*n = 0; *n < spec->n_params; ++*n) {
        params[*n] = spec->params[*n];
    }
    for (uint32_t i = 0; i < p->n && !status; i++) {
        const attn_tensor *k = NULL;
        const attn_tensor *v = NULL;
        status = ip_adapter_layer(p->adapters[i], p->layers, layer, &k, &v, err);
        params[(*n)++] =
            (attn_param){.name = p->k_names[i], .kind = ATTN_PARAM_TENSOR, .tensor = k};
        params[(*n)++] =
            (attn_param){.name = p->v_names[i], .kind = ATTN_PARAM_TENSOR, .tensor = v};
        if (!has_param(spec, "scale") && !has_param(spec, p->scale_names[i])) {
            params[(*n)++] = (attn_param){
                .name = p->scale_names[i], .kind = ATTN_PARAM_FLOAT, .f = p->scales[i]};
        }
    }
    return status;
}

attn_status image_prompts_choose(struct image_prompts *p, attn_registry *registry,
                                 const char *layer, attn_layer_spec *spec, attn_error *err)
{
    static const char ending[] = ".attn2";
    const size_t bytes = strlen(layer);
    if (!p || bytes < sizeof ending || strcmp(layer + bytes - sizeof ending + 1, ending) != 0) {
        return ATTN_OK;
    }
    attn_status status = processor_replace(registry, layer, spec, err);
    if (status) {
        return status;
    }
    struct layer_params *made =
        calloc(1, sizeof *made + (spec->n_params + 3 * p->n) * sizeof *made->params);
    if (!made) {
        return attn_fail(err, ATTN_NOMEM, "%s: no memory for its parameters", layer);
    }
    made->next = p->params;
    p->params = made;
    uint32_t n = 0;
    status = params_fill(p, layer, spec, made->params, &n, err);
    spec->params = made->params;
    spec->n_params = n;
    p->layers++;
    return status;
}

attn_status image_prompts_done(const struct image_prompts *p, attn_error *err)
{
    attn_status status = ATTN_OK;
    for (uint32_t i = 0; p && i < p->n && !status; i++) {
        status = ip_adapter_check(p->adapters[i], p->layers, err);
    }
    return status;
}
