#include "composition.h"

#include "../../plugins/common/lora.h"
#include "../../plugins/common/params.h"

#include <stdlib.h>
#include <string.h>

_Static_assert((int)COMPOSITION_SLOTS == (int)LORA_SLOTS, "one scale for each adapter");

struct composition {
    struct lora lora;
    struct compute *compute;
    void *merged; /* weights with the terms in them */
    char who[160];
};

const char *composition_base(const char *processor)
{
    if (strcmp(processor, "lora") == 0)
        return "standard";
    return strncmp(processor, "lora+", 5) == 0 ? processor + 5 : NULL;
}

bool composition_takes(const char *name)
{
    for (uint32_t i = 0; i < lora_params.count; i++)
        if (params_match(lora_params.params[i].name, name))
            return true;
    return false;
}

attn_status composition_check(bool composed, const attn_param_list *processor,
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
    const uint32_t lora = composed ? lora_params.count : 0;
    attn_param_info *all = calloc(OP + lora + processor->count, sizeof *all);
    if (!all)
        return attn_fail(err, ATTN_NOMEM, "%s: no memory for parameters", who);
    memcpy(all, op, sizeof op);
    if (lora)
        memcpy(all + OP, lora_params.params, lora * sizeof *all);
    if (processor->count)
        memcpy(all + OP + lora, processor->params, processor->count * sizeof *all);
    const attn_param_list list = {sizeof list, OP + lora + processor->count, all};
    attn_status status = ATTN_OK;
    for (uint32_t i = 0; i < n_params && status == ATTN_OK; i++)
        status = params_check_name(&list, params[i].name, who, err);
    free(all);
    return status;
}

/* Those of the params that are LoRA's, checked for kinds and for being given twice. */
static attn_status params_own(const struct composition *c, const attn_param *params,
                              uint32_t n_params, attn_param **own, uint32_t *n_own, attn_error *err)
{
    *n_own = 0;
    *own = calloc(n_params + 1, sizeof **own);
    if (!*own)
        return attn_fail(err, ATTN_NOMEM, "%s: no memory for parameters", c->who);
    for (uint32_t i = 0; i < n_params; i++)
        if (params[i].name && composition_takes(params[i].name))
            (*own)[(*n_own)++] = params[i];
    return params_check(&lora_params, *own, *n_own, c->who, err);
}

attn_status composition_open(struct compute *compute, const attn_layer *layer,
                             const attn_param *params, uint32_t n_params, const attn_head *base,
                             attn_work *work, struct composition **out, attn_error *err)
{
    attn_param *own = NULL;
    uint32_t n_own = 0;
    struct composition *c = calloc(1, sizeof *c);
    if (!c)
        return attn_fail(err, ATTN_NOMEM, "no memory for LoRA's terms");
    c->compute = compute;
    (void)snprintf(c->who, sizeof c->who, "lora: layer %s",
                   layer->name && *layer->name ? layer->name : "(unnamed)");
    attn_status status = params_own(c, params, n_params, &own, &n_own, err);
    if (status == ATTN_OK)
        status = lora_read(&c->lora, layer, own, n_own, c->who, err);
    if (status == ATTN_OK && c->lora.merged)
        status = lora_merge(&c->lora, &compute->plugin, work, &c->merged, err);
    else if (status == ATTN_OK && c->lora.n_adapters && !(base->flags & ATTN_HEAD_TERMS))
        status = attn_fail(err, ATTN_UNSUPPORTED,
                           "%s: processor %s does not take low-rank terms; merged=1 adds them to "
                           "the weights that it gets",
                           c->who, base->id);
    free(own);
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
    lora_free(&c->lora);
    free(c);
}

const attn_layer *composition_layer(const struct composition *c)
{
    return &c->lora.layer;
}

attn_status composition_scales(const struct composition *c, const attn_layer_call *call,
                               float *scales, attn_work *work)
{
    if (work->status != ATTN_OK)
        return work->status;
    work->status = lora_scales(&c->lora, call->params, call->n_params, scales, c->who, work->err);
    if (work->status == ATTN_OK && c->merged)
        work->status = lora_merged_check(&c->lora, call->params, call->n_params, c->who, work->err);
    work->scales = scales;
    work->n_scales = c->lora.n_adapters;
    return work->status;
}
