/* score.c: aclnnFlashAttentionScore and its later variants. */
#include "opapi.h"

static int32_t size_of(const char *name, const char *launch, const struct score *s,
                       uint64_t *workspace, aclOpExecutor **executor)
{
    int32_t late = 0;
    int32_t code = fake_enter(name);
    if (!code && !fake_context())
        code = fake_error(ACLNN_ERR_RUNTIME_ERROR, "EE1001: %s: this thread has no context", name);
    if (!code)
        code = score_check(s, workspace, executor, &late);
    if (!code && late && !fake_tells_late())
        code = late;
    if (code)
        return code;
    struct aclOpExecutor *e = fake_executor_new(launch);
    if (!e)
        return ACLNN_ERR_INNER;
    e->late = late;
    if (!score_is_empty(s)) {
        score_fill(e, s);
        e->workspace = 1024 + 64 * (uint64_t)s->max->shape[2];
    }
    *workspace = e->workspace;
    *executor = e;
    return 0;
}

#define SCORE(...)                                                                                 \
    {                                                                                              \
        .query = query, .key = key, .value = value, .pse = pse, .mask = attention_mask,            \
        .max = softmax_max, .sum = softmax_sum, .softmax_out = softmax_out, .out = attention_out,  \
        .scale = scale, .keep_prob = keep_prob, .pre_tokens = pre_tokens,                          \
        .next_tokens = next_tokens, .heads = heads, .inner_precise = inner_precise,                \
        .sparse_mode = sparse_mode, .layout = layout, __VA_ARGS__                                  \
    }

EXPORT aclnnStatus aclnnFlashAttentionScoreGetWorkspaceSize(
    const aclTensor *query, const aclTensor *key, const aclTensor *value, const aclTensor *pse,
    const aclTensor *drop_mask, const aclTensor *padding_mask, const aclTensor *attention_mask,
    const aclIntArray *prefix, double scale, double keep_prob, int64_t pre_tokens,
    int64_t next_tokens, int64_t heads, char *layout, int64_t inner_precise, int64_t sparse_mode,
    const aclTensor *softmax_max, const aclTensor *softmax_sum, const aclTensor *softmax_out,
    const aclTensor *attention_out, uint64_t *workspace, aclOpExecutor **executor)
{
    const struct score s = SCORE(.pse_after_scale = 0);
    (void)drop_mask, (void)padding_mask, (void)prefix;
    return size_of("aclnnFlashAttentionScoreGetWorkspaceSize", "aclnnFlashAttentionScore", &s,
                   workspace, executor);
}

EXPORT aclnnStatus aclnnFlashAttentionScore(void *workspace, uint64_t bytes,
                                            aclOpExecutor *executor, aclrtStream stream)
{
    return fake_launch("aclnnFlashAttentionScore", workspace, bytes, executor, stream);
}

EXPORT aclnnStatus aclnnFlashAttentionScoreV2GetWorkspaceSize(
    const aclTensor *query, const aclTensor *key, const aclTensor *value, const aclTensor *pse,
    const aclTensor *drop_mask, const aclTensor *padding_mask, const aclTensor *attention_mask,
    const aclIntArray *prefix, const aclIntArray *q_start, const aclIntArray *kv_start,
    double scale, double keep_prob, int64_t pre_tokens, int64_t next_tokens, int64_t heads,
    char *layout, int64_t inner_precise, int64_t sparse_mode, int64_t pse_type,
    const aclTensor *softmax_max, const aclTensor *softmax_sum, const aclTensor *softmax_out,
    const aclTensor *attention_out, uint64_t *workspace, aclOpExecutor **executor)
{
    const struct score s = SCORE(.pse_after_scale = pse_type != 1);
    (void)drop_mask, (void)padding_mask, (void)prefix, (void)q_start, (void)kv_start;
    return size_of("aclnnFlashAttentionScoreV2GetWorkspaceSize", "aclnnFlashAttentionScoreV2", &s,
                   workspace, executor);
}

EXPORT aclnnStatus aclnnFlashAttentionScoreV2(void *workspace, uint64_t bytes,
                                              aclOpExecutor *executor, aclrtStream stream)
{
    return fake_launch("aclnnFlashAttentionScoreV2", workspace, bytes, executor, stream);
}

EXPORT aclnnStatus aclnnFlashAttentionScoreV3GetWorkspaceSize(
    const aclTensor *query, const aclTensor *key, const aclTensor *value, const aclTensor *pse,
    const aclTensor *drop_mask, const aclTensor *padding_mask, const aclTensor *attention_mask,
    const aclTensor *sink, const aclIntArray *prefix, const aclIntArray *q_start,
    const aclIntArray *kv_start, double scale, double keep_prob, int64_t pre_tokens,
    int64_t next_tokens, int64_t heads, char *layout, int64_t inner_precise, int64_t sparse_mode,
    int64_t pse_type, const aclTensor *softmax_max, const aclTensor *softmax_sum,
    const aclTensor *softmax_out, const aclTensor *attention_out, uint64_t *workspace,
    aclOpExecutor **executor)
{
    const struct score s = SCORE(.pse_after_scale = pse_type != 1);
    (void)drop_mask, (void)padding_mask, (void)prefix, (void)q_start, (void)kv_start, (void)sink;
    return size_of("aclnnFlashAttentionScoreV3GetWorkspaceSize", "aclnnFlashAttentionScoreV3", &s,
                   workspace, executor);
}

EXPORT aclnnStatus aclnnFlashAttentionScoreV3(void *workspace, uint64_t bytes,
                                              aclOpExecutor *executor, aclrtStream stream)
{
    return fake_launch("aclnnFlashAttentionScoreV3", workspace, bytes, executor, stream);
}

EXPORT aclnnStatus aclnnFlashAttentionScoreV4GetWorkspaceSize(
    const aclTensor *query, const aclTensor *key, const aclTensor *value, const aclTensor *pse,
    const aclTensor *drop_mask, const aclTensor *padding_mask, const aclTensor *attention_mask,
    const aclTensor *query_rope, const aclTensor *key_rope, const aclTensor *d_scale_q,
    const aclTensor *d_scale_k, const aclTensor *d_scale_v, const aclTensor *sink,
    const aclIntArray *prefix, const aclIntArray *q_lengths, const aclIntArray *kv_lengths,
    const aclIntArray *q_start, const aclIntArray *kv_start, double scale, double keep_prob,
    int64_t pre_tokens, int64_t next_tokens, int64_t heads, char *layout, int64_t inner_precise,
    int64_t sparse_mode, int64_t out_type, int64_t pse_type, char *softmax_out_layout, int64_t seed,
    int64_t offset, const aclTensor *softmax_max, const aclTensor *softmax_sum,
    const aclTensor *softmax_out, const aclTensor *attention_out, uint64_t *workspace,
    aclOpExecutor **executor)
{
    const struct score s = SCORE(.pse_after_scale = pse_type != 1);
    (void)drop_mask, (void)padding_mask, (void)prefix, (void)q_start, (void)kv_start, (void)sink;
    (void)query_rope, (void)key_rope, (void)d_scale_q, (void)d_scale_k, (void)d_scale_v;
    (void)q_lengths, (void)kv_lengths, (void)out_type, (void)softmax_out_layout;
    (void)seed, (void)offset;
    return size_of("aclnnFlashAttentionScoreV4GetWorkspaceSize", "aclnnFlashAttentionScoreV4", &s,
                   workspace, executor);
}

EXPORT aclnnStatus aclnnFlashAttentionScoreV4(void *workspace, uint64_t bytes,
                                              aclOpExecutor *executor, aclrtStream stream)
{
    return fake_launch("aclnnFlashAttentionScoreV4", workspace, bytes, executor, stream);
}
