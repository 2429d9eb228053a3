/* score.c: aclnnFlashAttentionScore in its four variants.
 *
 * Which of them a chip has is not written anywhere that could be trusted for the next chip:
 * planning takes the first whose symbols are there and whose first phase accepts the shapes. */
#include "npu_flash.h"

enum { VARIANTS = 4, BIAS_BEFORE_SCALE = 1 };

struct variant {
    const char *name;
    cann_launch *launch;
};

static struct variant variant_get(const struct cann *c, int i)
{
    const struct variant all[VARIANTS] = {
        {"aclnnFlashAttentionScore", c->aclnnFlashAttentionScore},
        {"aclnnFlashAttentionScoreV2", c->aclnnFlashAttentionScoreV2},
        {"aclnnFlashAttentionScoreV3", c->aclnnFlashAttentionScoreV3},
        {"aclnnFlashAttentionScoreV4", c->aclnnFlashAttentionScoreV4},
    };
    return all[i];
}

static aclnnStatus variant_size(const struct cann *c, int variant, const struct score_args *a,
                                uint64_t *bytes, aclOpExecutor **executor)
{
    static char no_layout[] = "";
    switch (variant) {
    case 0:
        return c->aclnnFlashAttentionScoreGetWorkspaceSize(
            a->query, a->key, a->value, a->bias, NULL, NULL, a->mask, NULL, a->scale, 1.0,
            a->pre_tokens, a->next_tokens, a->heads, a->layout, a->inner_precise, a->sparse_mode,
            a->max, a->sum, NULL, a->out, bytes, executor);
    case 1:
        return c->aclnnFlashAttentionScoreV2GetWorkspaceSize(
            a->query, a->key, a->value, a->bias, NULL, NULL, a->mask, NULL, NULL, NULL, a->scale,
            1.0, a->pre_tokens, a->next_tokens, a->heads, a->layout, a->inner_precise,
            a->sparse_mode, BIAS_BEFORE_SCALE, a->max, a->sum, NULL, a->out, bytes, executor);
    case 2:
        return c->aclnnFlashAttentionScoreV3GetWorkspaceSize(
            a->query, a->key, a->value, a->bias, NULL, NULL, a->mask, NULL, NULL, NULL, NULL,
            a->scale, 1.0, a->pre_tokens, a->next_tokens, a->heads, a->layout, a->inner_precise,
            a->sparse_mode, BIAS_BEFORE_SCALE, a->max, a->sum, NULL, a->out, bytes, executor);
    default:
        return c->aclnnFlashAttentionScoreV4GetWorkspaceSize(
            a->query, a->key, a->value, a->bias, NULL, NULL, a->mask, NULL, NULL, NULL, NULL, NULL,
            NULL, NULL, NULL, NULL, NULL, NULL, a->scale, 1.0, a->pre_tokens, a->next_tokens,
            a->heads, a->layout, a->inner_precise, a->sparse_mode, 0, BIAS_BEFORE_SCALE, no_layout,
            0, 0, a->max, a->sum, NULL, a->out, bytes, executor);
    }
}

/* Codes that say "not this operator on this chip"; others would be said by every variant. */
static int is_refusal(aclnnStatus code)
{
    return code == ACLNN_ERR_PARAM_INVALID || cann_status(code) == ATTN_UNSUPPORTED;
}

static attn_status variant_walk(struct walk *w, int i, const struct score_args *args, int *refused)
{
    const struct cann *cann = w->plan->op->cann;
    struct variant v = variant_get(cann, i);
    uint64_t bytes = 0;
    aclOpExecutor *executor = NULL;
    aclnnStatus code = variant_size(cann, i, args, &bytes, &executor);
    *refused = is_refusal(code);
    return walk_launch(w, v.name, code, v.launch, bytes, executor);
}

attn_status walk_score(struct walk *w, const struct score_args *args)
{
    int refused = 0;
    if (!w->dry)
        return variant_walk(w, w->plan->variant, args, &refused);
    attn_status status = ATTN_UNSUPPORTED;
    for (int i = 0; i < VARIANTS; i++) {
        if (!variant_get(w->plan->op->cann, i).launch)
            continue;
        status = variant_walk(w, i, args, &refused);
        w->plan->variant = i;
        if (status == ATTN_OK || !refused)
            return status;
    }
    /* Every one that there is refused: the last one's words stand. */
    return ATTN_UNSUPPORTED;
}
