/* opapi.h: what the stand-in's operators share. */
#ifndef FAKECANN_OPAPI_H
#define FAKECANN_OPAPI_H

#include "core.h"

#define EXPORT __attribute__((visibility("default")))

/* The arguments of aclnnFlashAttentionScore that all variants have. */
struct score {
    const aclTensor *query, *key, *value, *pse, *mask, *max, *sum, *softmax_out, *out;
    double scale, keep_prob;
    int64_t pre_tokens, next_tokens, heads, inner_precise, sparse_mode;
    const char *layout;
    int pse_after_scale;
};

/* A query, key or value by batch, head, token and channel, whatever the layout. */
struct heads {
    int64_t batch, heads, tokens, dim;
    int64_t stride[4];
};

/* score_rules.c: 0, or the code that the first phase gives; `late` gets one that may come in the
 * second. */
int32_t score_check(const struct score *s, uint64_t *workspace, aclOpExecutor **executor,
                    int32_t *late);
int score_is_empty(const struct score *s);
/* 0 where the layout is none, or the rank is not the layout's. */
int score_heads(const aclTensor *t, const char *layout, int64_t n_heads, struct heads *h);

/* score_compute.c */
void score_fill(struct aclOpExecutor *e, const struct score *s);
int32_t score_compute(struct aclOpExecutor *e);

/* elements.c: an element as a double; a double rounded to an element. */
double element_get(const char *at, int32_t type);
void element_set(char *at, int32_t type, double value);

#endif
