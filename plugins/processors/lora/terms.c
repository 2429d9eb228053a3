/* terms.c: "org.attnplug.terms/1": LoRA's parameters as terms for a host that runs "lora+B". */
#include "terms.h"

#include "error.h"
#include "lora.h"
#include "params.h"

#include <stdlib.h>
#include <string.h>

struct attn_terms {
    struct lora lora;
    char who[160];
};

static attn_status terms_read(const attn_layer *layer, const attn_param *params, uint32_t n_params,
                              const char *who, attn_terms **terms, attn_error *err)
{
    struct attn_terms *t = calloc(1, sizeof *t);
    if (!t)
        return attn_fail(err, ATTN_NOMEM, "%s: no memory for LoRA's terms", who);
    (void)snprintf(t->who, sizeof t->who, "%s", who);
    attn_status status = params_check(&lora_params, params, n_params, t->who, err);
    if (status == ATTN_OK)
        status = lora_read(&t->lora, layer, params, n_params, t->who, err);
    if (status != ATTN_OK) {
        free(t);
        return status;
    }
    *terms = t;
    return ATTN_OK;
}

static void terms_release(attn_terms *terms)
{
    if (!terms)
        return;
    lora_free(&terms->lora);
    free(terms);
}

static const attn_layer *terms_layer(const attn_terms *terms)
{
    return &terms->lora.layer;
}

static uint32_t terms_n_scales(const attn_terms *terms)
{
    return terms->lora.n_adapters;
}

static int32_t terms_wants_merging(const attn_terms *terms)
{
    return terms->lora.merged != 0;
}

static attn_status terms_merge(attn_terms *terms, const attn_compute *compute, attn_work *work,
                               void **memory, attn_error *err)
{
    return lora_merge(&terms->lora, compute, work, memory, err);
}

static attn_status terms_scales(const attn_terms *terms, const attn_param *params,
                                uint32_t n_params, float *scales, attn_error *err)
{
    const struct lora *l = &terms->lora;
    attn_status status = lora_scales(l, params, n_params, scales, terms->who, err);
    if (status == ATTN_OK && l->merged)
        status = lora_merged_check(l, params, n_params, terms->who, err);
    return status;
}

static const attn_terms_api api = {
    .size = sizeof api,
    .slots = LORA_SLOTS,
    .params = &lora_params,
    .read = terms_read,
    .release = terms_release,
    .layer = terms_layer,
    .n_scales = terms_n_scales,
    .wants_merging = terms_wants_merging,
    .merge = terms_merge,
    .scales = terms_scales,
};

const void *terms_query(const char *id)
{
    return strcmp(id, ATTN_TERMS_V1) == 0 ? &api : NULL;
}
