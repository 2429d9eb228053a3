/* score_rules.c: what aclnnFlashAttentionScore documents of its arguments, and the codes. */
#include "opapi.h"

#include <string.h>

enum { MOST_HEADS = 256, MOST_TOKENS = 1 << 20, MOST_DIM = 768, COLUMNS = 8 };

#define TILING ACLNN_ERR_INNER_TILING_ERROR

int score_heads(const aclTensor *t, const char *layout, int64_t n, struct heads *h)
{
    const int64_t *s = t->shape, *d = t->stride;
    if (n <= 0)
        return 0;
    if (strcmp(layout, "BNSD") == 0 && t->rank == 4)
        *h = (struct heads){s[0], s[1], s[2], s[3], {d[0], d[1], d[2], d[3]}};
    else if (strcmp(layout, "BSND") == 0 && t->rank == 4)
        *h = (struct heads){s[0], s[2], s[1], s[3], {d[0], d[2], d[1], d[3]}};
    else if (strcmp(layout, "BSH") == 0 && t->rank == 3 && s[2] % n == 0)
        *h = (struct heads){s[0], n, s[1], s[2] / n, {d[0], s[2] / n * d[2], d[1], d[2]}};
    else if (strcmp(layout, "SBH") == 0 && t->rank == 3 && s[2] % n == 0)
        *h = (struct heads){s[1], n, s[0], s[2] / n, {d[1], s[2] / n * d[2], d[0], d[2]}};
    else
        return 0;
    return 1;
}

static int is_empty(const aclTensor *t)
{
    for (uint32_t i = 0; i < t->rank; i++)
        if (t->shape[i] == 0)
            return 1;
    return 0;
}

int score_is_empty(const struct score *s)
{
    return is_empty(s->max) && is_empty(s->sum) && is_empty(s->out);
}

static int is_shape(const aclTensor *t, uint32_t rank, int64_t a, int64_t b, int64_t c, int64_t d)
{
    const int64_t shape[4] = {a, b, c, d};
    return t->rank == rank && memcmp(t->shape, shape, rank * sizeof *shape) == 0;
}

static int32_t types_check(const struct score *s)
{
    int32_t type = s->query->type;
    if (type != ACL_FLOAT16 && type != ACL_BF16 && type != ACL_FLOAT)
        return fake_error(ACLNN_ERR_PARAM_INVALID, "EZ1001: query has type %d", type);
    if (s->key->type != type || s->value->type != type || s->out->type != type)
        return fake_error(ACLNN_ERR_PARAM_INVALID,
                          "EZ1001: query, key, value, out have types %d %d "
                          "%d %d",
                          type, s->key->type, s->value->type, s->out->type);
    if (s->pse && s->pse->type != type)
        return fake_error(ACLNN_ERR_PARAM_INVALID, "EZ1001: realShift has type %d, query %d",
                          s->pse->type, type);
    if (s->max->type != ACL_FLOAT || s->sum->type != ACL_FLOAT)
        return fake_error(ACLNN_ERR_PARAM_INVALID, "EZ1001: softmax max or sum is not FLOAT");
    return 0;
}

static int32_t shapes_check(const struct score *s, const struct heads *q, const struct heads *k,
                            const struct heads *v, const struct heads *o)
{
    if (q->dim != k->dim || v->dim > k->dim || q->dim > MOST_DIM || q->dim < 1)
        return fake_error(ACLNN_ERR_PARAM_INVALID, "EZ1001: head dimensions %lld %lld %lld",
                          (long long)q->dim, (long long)k->dim, (long long)v->dim);
    if (o->batch != q->batch || o->heads != q->heads || o->tokens != q->tokens || o->dim != v->dim)
        return fake_error(ACLNN_ERR_PARAM_INVALID, "EZ1001: attentionOut has another shape");
    if (!is_shape(s->max, 4, q->batch, q->heads, q->tokens, COLUMNS) ||
        !is_shape(s->sum, 4, q->batch, q->heads, q->tokens, COLUMNS))
        return fake_error(ACLNN_ERR_PARAM_INVALID, "EZ1001: softmax max or sum is not [B,N,Sq,8]");
    return 0;
}

static int32_t mask_check(const struct score *s, const struct heads *q, const struct heads *k)
{
    const aclTensor *m = s->mask;
    int64_t sq = q->tokens, sk = k->tokens;
    if (!m)
        return 0;
    if (m->type != ACL_BOOL && m->type != ACL_UINT8)
        return fake_error(TILING, "EZ9999: attenMask has type %d", m->type);
    if (s->sparse_mode >= 2 && s->sparse_mode <= 4) {
        if (!is_shape(m, 2, 2048, 2048, 0, 0))
            return fake_error(TILING, "EZ9999: sparse mode %lld wants a mask of 2048 by 2048",
                              (long long)s->sparse_mode);
    } else if (s->sparse_mode == 6) {
        if (!is_shape(m, 2, 3072, 2048, 0, 0))
            return fake_error(TILING, "EZ9999: sparse mode 6 wants a mask of 3072 by 2048");
    } else if (!is_shape(m, 4, q->batch, q->heads, sq, sk) &&
               !is_shape(m, 4, q->batch, 1, sq, sk) && !is_shape(m, 4, 1, 1, sq, sk) &&
               !is_shape(m, 2, sq, sk, 0, 0)) {
        return fake_error(TILING, "EZ9999: attenMask has a shape that is none of BNSS, B1SS, 11SS, "
                                  "SS");
    }
    if (s->sparse_mode < 0 || s->sparse_mode > 6)
        return fake_error(TILING, "EZ9999: sparse mode %lld", (long long)s->sparse_mode);
    if (s->sparse_mode >= 5)
        return fake_error(TILING, "EZ9999: sparse mode %lld wants a prefix",
                          (long long)s->sparse_mode);
    if ((s->sparse_mode == 4 || s->sparse_mode == 0) && s->pre_tokens + s->next_tokens < 0)
        return fake_error(TILING, "EZ9999: preTokens and nextTokens do not overlap");
    return 0;
}

static int32_t tiling_check(const struct score *s, const struct heads *q, const struct heads *k,
                            const struct heads *v)
{
    if (!(s->keep_prob > 0.0 && s->keep_prob <= 1.0))
        return fake_error(TILING, "EZ9999: keepProb is %g", s->keep_prob);
    if (k->batch != q->batch || v->batch != q->batch || v->tokens != k->tokens ||
        v->heads != k->heads)
        return fake_error(TILING, "EZ9999: query, key and value differ in batch or length");
    if (k->heads < 1 || q->heads % k->heads != 0 || q->heads > MOST_HEADS || q->heads != s->heads)
        return fake_error(TILING, "EZ9999: %lld query heads, %lld key heads, headNum %lld",
                          (long long)q->heads, (long long)k->heads, (long long)s->heads);
    if (q->tokens > MOST_TOKENS || k->tokens > MOST_TOKENS || k->tokens < 1)
        return fake_error(TILING, "EZ9999: lengths %lld and %lld", (long long)q->tokens,
                          (long long)k->tokens);
    if (s->pse && !is_shape(s->pse, 4, q->batch, q->heads, q->tokens, k->tokens) &&
        !is_shape(s->pse, 4, 1, q->heads, q->tokens, k->tokens) &&
        !is_shape(s->pse, 4, q->batch, q->heads, 1, k->tokens))
        return fake_error(TILING, "EZ9999: realShift is none of BNSS, 1NSS, BN1S");
    return mask_check(s, q, k);
}

int32_t score_check(const struct score *s, uint64_t *workspace, aclOpExecutor **executor,
                    int32_t *late)
{
    struct heads q, k, v, o;
    *late = 0;
    if (!s->query || !s->key || !s->value || !s->layout || !s->max || !s->sum || !s->out ||
        !workspace || !executor)
        return fake_error(ACLNN_ERR_PARAM_NULLPTR, "EZ1001: an argument is NULL");
    if (score_is_empty(s))
        return 0;
    if (s->heads <= 0)
        return fake_error(ACLNN_ERR_PARAM_INVALID, "EZ1001: headNum is %lld", (long long)s->heads);
    int64_t kv_heads = s->heads; /* 3-D layouts: by the query's head dimension */
    int found = score_heads(s->query, s->layout, s->heads, &q);
    if (found && s->key->rank == 3 && q.dim > 0)
        kv_heads = s->key->shape[2] / q.dim;
    found = found && score_heads(s->key, s->layout, kv_heads, &k) &&
            score_heads(s->value, s->layout, kv_heads, &v) &&
            score_heads(s->out, s->layout, s->heads, &o);
    if (!found)
        return fake_error(ACLNN_ERR_PARAM_INVALID, "EZ1001: inputLayout %s does not fit",
                          s->layout);
    int32_t code = types_check(s);
    if (!code)
        code = shapes_check(s, &q, &k, &v, &o);
    if (!code)
        *late = tiling_check(s, &q, &k, &v);
    return code;
}
