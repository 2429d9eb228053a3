/* rule.h: one correct use of aclnnFlashAttentionScore, for tests that break one thing of it. */
#ifndef NPU_RULE_H
#define NPU_RULE_H

#include "table.h"

enum { SLOTS = 9 }; /* query key value pse mask max sum softmax_out out */
enum slot { QUERY, KEY, VALUE, PSE, MASK, MAX, SUM, SOFTMAX_OUT, OUT };

struct operand_spec {
    int64_t shape[4];
    uint64_t rank; /* 0: NULL is passed */
    int32_t type;
    int64_t shift; /* bytes that the address is beside a multiple of 32 */
};

struct use {
    struct operand_spec spec[SLOTS];
    double scale, keep_prob;
    int64_t pre_tokens, next_tokens, heads, inner_precise, sparse_mode;
    char layout[8];
    int no_layout, no_workspace_size, no_executor;
    /* made by use_begin */
    aclTensor *tensor[SLOTS];
    void *data[SLOTS];
    void *workspace;
    uint64_t workspace_bytes;
    aclOpExecutor *executor;
};

/* B 2, N 4, Sq 6, Skv 5, D 8 in fp16, BNSD, no mask. */
void use_default(struct use *u);
void use_shape(struct use *u, enum slot slot, uint64_t rank, int64_t a, int64_t b, int64_t c,
               int64_t d);
void use_type(struct use *u, int32_t type); /* of query, key, value and out */
/* A mask of zeroes, or for modes 2 to 4 the triangle that they want. */
void use_mask(struct use *u, uint64_t rank, int64_t a, int64_t b, int64_t c, int64_t d);

/* Memory and descriptors. */
void use_begin(struct use *u);
/* Phase one; takes the workspace's memory. */
int32_t use_size(struct use *u);
/* Phase two; the executor is gone afterwards. */
int32_t use_launch(struct use *u, aclrtStream stream);
int32_t use_wait(aclrtStream stream);
void use_end(struct use *u);
/* All of it: the first code that is not 0, of phase one, two, or the wait. */
int32_t use_all(struct use *u);

#endif
