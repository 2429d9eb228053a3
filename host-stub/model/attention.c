#include "attention.h"

#include <math.h>
#include <string.h>

/* Names of the four linears now, and in files from before diffusers v0.15 (AttentionBlock). */
struct names {
    const char *q, *k, *v, *out;
};
static const struct names names_now = {"to_q", "to_k", "to_v", "to_out.0"};
static const struct names names_old = {"query", "key", "value", "proj_attn"};

struct layer *attention_open(struct weights *w, const struct attention_desc *desc, const char *name,
                             const attn_layer_spec *spec)
{
    attn_layer *layer = weights_alloc(w, 1, sizeof(*layer));
    const struct names *n = weights_has(w, "%s.proj_attn.weight", name) ? &names_old : &names_now;
    const int64_t inner = desc->heads * desc->dim_head;
    const int64_t cross = desc->cross_dim ? desc->cross_dim : desc->query_dim;
    if (!layer) {
        return NULL;
    }
    layer->size = sizeof(*layer);
    layer->flags = desc->flags;
    layer->name = weights_name(w, "%s", name);
    layer->heads = desc->heads;
    layer->dim_head = desc->dim_head;
    layer->query_dim = desc->query_dim;
    layer->cross_dim = cross;
    layer->scale = (float)(1.0 / sqrt((double)desc->dim_head));
    layer->rescale = 1.0f;
    weights_linear(w, &layer->to_q, inner, desc->query_dim, desc->bias, "%s.%s", name, n->q);
    weights_linear(w, &layer->to_k, inner, cross, desc->bias, "%s.%s", name, n->k);
    weights_linear(w, &layer->to_v, inner, cross, desc->bias, "%s.%s", name, n->v);
    weights_linear(w, &layer->to_out, desc->query_dim, inner, 1, "%s.%s", name, n->out);
    if (desc->norm_groups) {
        weights_norm(w, &layer->group_norm, ATTN_NORM_GROUP, desc->query_dim, desc->norm_groups,
                     desc->norm_eps, "%s.group_norm", name);
    }
    return weights_layer(w, layer, spec);
}
