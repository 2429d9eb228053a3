#include "ip_adapter.h"

#include "adapter_file.h"
#include "forward.h"
#include "image_projection.h"
#include "pickle.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_LAYERS = 1024 };

struct ip_layer {
    attn_tensor to_k, to_v;
};

struct ip_adapter {
    char *path, *op;
    struct weights *weights;
    struct image_projection projection;
    struct ip_layer *layers;
    uint32_t n_layers;
    struct pass *pass;
};

/* -- opening ----------------------------------------------------------------------------------- */

/* Keys are numbered over all attention layers, of which every second one is cross-attention. */
static void layer_build(struct ip_adapter *a, uint32_t index)
{
    struct weights *w = a->weights;
    struct ip_layer *l = &a->layers[index];
    const unsigned number = 2 * index + 1;
    int64_t shape[2] = {0};
    if (!weights_shape(w, 2, shape, "ip_adapter.%u.to_k_ip.weight", number) ||
        shape[1] != a->projection.cross) {
        weights_fail(w, ATTN_INVALID,
                     "%s: ip_adapter.%u.to_k_ip.weight: expected a matrix of %lld columns, as"
                     " image_proj gives them",
                     a->path, number, (long long)a->projection.cross);
    }
    l->to_k = weights_tensor(w, 2, shape, "ip_adapter.%u.to_k_ip.weight", number);
    l->to_v = weights_tensor(w, 2, shape, "ip_adapter.%u.to_v_ip.weight", number);
}

static attn_status build(struct ip_adapter *a)
{
    struct weights *w = a->weights;
    image_projection_build(w, &a->projection);
    while (a->n_layers < MOST_LAYERS &&
           weights_has(w, "ip_adapter.%u.to_k_ip.weight", 2 * a->n_layers + 1)) {
        a->n_layers++;
    }
    if (!a->n_layers) {
        weights_fail(w, ATTN_INVALID, "%s: no IP-Adapter: no tensor ip_adapter.1.to_k_ip.weight",
                     a->path);
    }
    a->layers = weights_alloc(w, a->n_layers, sizeof *a->layers);
    for (uint32_t i = 0; a->layers && i < a->n_layers; i++) {
        layer_build(a, i);
    }
    return weights_done(w, NULL);
}

static attn_status file_open(struct ip_adapter *a, struct compute *c, attn_error *err)
{
    const struct model_source source = {.file = a->path};
    char text[512] = "";
    attn_error inner = {sizeof inner, sizeof text, text, 0};
    if (pickle_is(a->path)) {
        return pickle_refuse(a->path, err);
    }
    attn_status status = weights_open(c, &source, "ip_adapter", &a->weights, &inner);
    if (status == ATTN_OK) {
        status = build(a);
    }
    /* What the projection says of its tensors does not begin with the file. */
    return status == ATTN_OK       ? ATTN_OK
           : strstr(text, a->path) ? attn_fail(err, status, "%s", text)
                                   : attn_fail(err, status, "%s: %s", a->path, text);
}

attn_status ip_adapter_open(struct compute *c, const char *path, const char *op,
                            struct ip_adapter **out, attn_error *err)
{
    struct ip_adapter *a = calloc(1, sizeof *a);
    if (a) {
        a->path = strdup(path);
        a->op = op ? strdup(op) : NULL;
    }
    attn_status status = !a || !a->path || (op && !a->op)
                             ? attn_fail(err, ATTN_NOMEM, "%s: no memory to open it", path)
                             : file_open(a, c, err);
    if (status == ATTN_OK) {
        status = pass_create(c, &a->pass, err);
    }
    if (status != ATTN_OK) {
        ip_adapter_close(a);
        return status;
    }
    *out = a;
    return ATTN_OK;
}

void ip_adapter_close(struct ip_adapter *a)
{
    if (!a) {
        return;
    }
    pass_destroy(a->pass);
    weights_close(a->weights);
    free(a->path);
    free(a->op);
    free(a);
}

/* -- questions --------------------------------------------------------------------------------- */

const char *ip_adapter_path(const struct ip_adapter *a)
{
    return a->path;
}

int32_t ip_adapter_wants_states(const struct ip_adapter *a)
{
    return a->projection.kind != PROJECTION_PLAIN;
}

int64_t ip_adapter_width(const struct ip_adapter *a)
{
    return a->projection.width;
}

int64_t ip_adapter_cross(const struct ip_adapter *a)
{
    return a->projection.cross;
}

int64_t ip_adapter_tokens(const struct ip_adapter *a, int64_t seen)
{
    return a->projection.kind == PROJECTION_FULL ? seen : a->projection.tokens;
}

attn_status ip_adapter_layer(const struct ip_adapter *a, uint32_t index, const char *layer,
                             const attn_tensor **to_k, const attn_tensor **to_v, attn_error *err)
{
    if (index >= a->n_layers) {
        return attn_fail(err, ATTN_UNSUPPORTED,
                         "%s: an IP-Adapter of %u cross-attention layers, but the model has more:"
                         " nothing is there for %s",
                         a->path, a->n_layers, layer);
    }
    *to_k = &a->layers[index].to_k;
    *to_v = &a->layers[index].to_v;
    return ATTN_OK;
}

attn_status ip_adapter_check(const struct ip_adapter *a, uint32_t layers, attn_error *err)
{
    return layers == a->n_layers
               ? ATTN_OK
               : attn_fail(err, ATTN_UNSUPPORTED,
                           "%s: an IP-Adapter of %u cross-attention layers, but the model has %u",
                           a->path, a->n_layers, layers);
}

attn_status ip_adapter_family(const struct ip_adapter *a, int64_t cross, attn_error *err)
{
    const int64_t own = a->projection.cross;
    return own == cross ? ATTN_OK : family_refuse(a->path, own, cross, err);
}

/* -- running ----------------------------------------------------------------------------------- */

attn_status ip_adapter_project(struct ip_adapter *a, int64_t batch, int64_t seen, const float *in,
                               float *out, attn_error *err)
{
    const struct image_projection *p = &a->projection;
    const int64_t from[] = {batch, seen, p->width};
    const int64_t to[] = {batch, ip_adapter_tokens(a, seen), p->cross};
    const attn_tensor x = host_f32(in, 3, from);
    const attn_tensor y = host_f32(out, 3, to);
    attn_work *w = pass_dry(a->pass, err);
    image_projection_forward(w, p, a->op, &x, &y);
    if (w->status != ATTN_OK) {
        return w->status;
    }
    w = pass_real(a->pass, NULL, err);
    if (!w) {
        return ATTN_NOMEM;
    }
    image_projection_forward(w, p, a->op, &x, &y);
    return w->status;
}
