#include "composition.h"

#include "param_names.h"

#include <stdlib.h>
#include <string.h>

struct composition {
    const attn_terms_api *api;
    attn_terms *terms;
    struct compute *compute;
    void *merged; /* weights with the terms in them */
};

const char *composition_base(const char *processor)
{
    if (strcmp(processor, "lora") == 0)
        return "standard";
    return strncmp(processor, "lora+", 5) == 0 ? processor + 5 : NULL;
}

attn_status composition_api(const void *queried, const char *id, const attn_terms_api **api,
                            attn_error *err)
{
    *api = queried;
    if (!*api || (*api)->size < sizeof **api)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         "%s does not read terms for other processors (" ATTN_TERMS_V1 ")", id);
    if ((*api)->slots > COMPOSITION_SLOTS)
        return attn_fail(err, ATTN_UNSUPPORTED, "%s has %u scales for a layer, expected at most %d",
                         id, (*api)->slots, COMPOSITION_SLOTS);
    return ATTN_OK;
}

attn_status composition_check(const attn_param_list *terms, const attn_param_list *processor,
                              const attn_param *params, uint32_t n_params, const char *who,
                              attn_error *err)
{
    static const attn_param_info op[] = {
        {"attention_op", ATTN_PARAM_TEXT, 0, "the op that computes the layer's attention"},
        {"slice_size", 0, 0, "of the op sliced"},
    };
    enum { OP = sizeof op / sizeof *op };
    if (!processor || processor->size < sizeof *processor)
        return ATTN_OK;
    const uint32_t n_terms = terms ? terms->count : 0;
    attn_param_info *all = calloc(OP + n_terms + processor->count, sizeof *all);
    if (!all)
        return attn_fail(err, ATTN_NOMEM, "%s: no memory for parameters", who);
    memcpy(all, op, sizeof op);
    if (n_terms)
        memcpy(all + OP, terms->params, n_terms * sizeof *all);
    if (processor->count)
        memcpy(all + OP + n_terms, processor->params, processor->count * sizeof *all);
    const attn_param_list list = {sizeof list, OP + n_terms + processor->count, all};
    attn_status status = ATTN_OK;
    for (uint32_t i = 0; i < n_params && status == ATTN_OK; i++)
        status = param_name_check(&list, params[i].name, who, err);
    free(all);
    return status;
}

/* Those of the params that are the terms'. */
static attn_status read_own(struct composition *c, const attn_layer *layer,
                            const attn_param *params, uint32_t n_params, attn_error *err)
{
    char who[160];
    uint32_t n = 0;
    (void)snprintf(who, sizeof who, "lora: layer %s",
                   layer->name && *layer->name ? layer->name : "(unnamed)");
    attn_param *own = calloc(n_params + 1, sizeof *own);
    if (!own)
        return attn_fail(err, ATTN_NOMEM, "%s: no memory for parameters", who);
    for (uint32_t i = 0; i < n_params; i++)
        if (params[i].name && param_name_known(c->api->params, params[i].name))
            own[n++] = params[i];
    attn_status status = c->api->read(layer, own, n, who, &c->terms, err);
    free(own);
    return status;
}

attn_status composition_open(struct compute *compute, const attn_terms_api *api,
                             const attn_layer *layer, const attn_param *params, uint32_t n_params,
                             const attn_head *base, attn_work *work, struct composition **out,
                             attn_error *err)
{
    struct composition *c = calloc(1, sizeof *c);
    if (!c)
        return attn_fail(err, ATTN_NOMEM, "no memory for LoRA's terms");
    c->compute = compute;
    c->api = api;
    attn_status status = read_own(c, layer, params, n_params, err);
    if (status == ATTN_OK && api->wants_merging(c->terms))
        status = api->merge(c->terms, &compute->plugin, work, &c->merged, err);
    else if (status == ATTN_OK && api->n_scales(c->terms) && !(base->flags & ATTN_HEAD_TERMS))
        status = attn_fail(err, ATTN_UNSUPPORTED,
                           "lora: layer %s: processor %s does not take low-rank terms; merged=1 "
                           "adds them to the weights that it gets",
                           layer->name && *layer->name ? layer->name : "(unnamed)", base->id);
    if (status != ATTN_OK) {
        composition_close(c);
        return status;
    }
    *out = c;
    return ATTN_OK;
}

void composition_close(struct composition *c)
{
    if (!c)
        return;
    const attn_compute *plugin = &c->compute->plugin;
    if (c->merged)
        plugin->free(plugin->ctx, c->merged);
    c->api->release(c->terms);
    free(c);
}

const attn_layer *composition_layer(const struct composition *c)
{
    return c->api->layer(c->terms);
}

attn_status composition_scales(const struct composition *c, const attn_layer_call *call,
                               float *scales, attn_work *work)
{
    if (work->status != ATTN_OK)
        return work->status;
    work->status = c->api->scales(c->terms, call->params, call->n_params, scales, work->err);
    work->scales = scales;
    work->n_scales = c->api->n_scales(c->terms);
    return work->status;
}
