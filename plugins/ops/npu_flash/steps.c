/* steps.c: one attention as a sequence of CANN's operators on the caller's stream.
 *
 *   bias   aclnnMuls           bias / scale, since theirs is added before the scale
 *   mask   aclnnLogicalNot     theirs hides where ours shows
 *   score  aclnnFlashAttentionScore
 *   lse    aclnnLog, aclnnAdd  max + log(sum)
 *
 * Descriptors may go once phase two has returned; nothing here waits. */
#include "npu_flash.h"

static const float one = 1.0f;

static attn_status fail_descriptors(struct walk *w)
{
    const struct cann *c = w->plan->op->cann;
    return cann_fail(c, w->err, ACL_ERROR_RT_MEMORY_ALLOCATION,
                     "aclCreateTensor or aclCreateScalar");
}

static int32_t acl_type(const attn_tensor *t)
{
    return t->code == ATTN_CODE_BFLOAT                   ? ACL_BF16
           : t->code == ATTN_CODE_FLOAT && t->bits == 16 ? ACL_FLOAT16
           : t->code == ATTN_CODE_FLOAT                  ? ACL_FLOAT
                                                         : ACL_UINT8;
}

/* to = factor * from */
static attn_status step_scale(struct walk *w, const attn_tensor *from, float factor,
                              const attn_tensor *to)
{
    const struct cann *c = w->plan->op->cann;
    struct tensors s = {.cann = c};
    uint64_t bytes = 0;
    aclOpExecutor *executor = NULL;
    aclTensor *self = tensors_add(&s, w->plan->op, from, NULL, acl_type(from));
    aclTensor *out = tensors_add(&s, w->plan->op, to, NULL, acl_type(to));
    aclScalar *other = tensors_scalar(&s, factor);
    attn_status status = ATTN_OK;
    if (s.failed) {
        status = fail_descriptors(w);
    } else {
        aclnnStatus code = c->aclnnMulsGetWorkspaceSize(self, other, out, &bytes, &executor);
        status = walk_launch(w, "aclnnMuls", code, c->aclnnMuls, bytes, executor);
    }
    tensors_destroy(&s);
    return status;
}

static attn_status step_bias(struct walk *w, attn_tensor *scaled)
{
    const struct npu_call *n = &w->plan->call;
    const struct op_shape *s = &n->shape;
    const int64_t shape[4] = {n->bias_batch, s->heads, s->nq, s->nk};
    attn_tensor from = w->call->bias;
    from.shape[0] = n->bias_batch;
    *scaled = region_tensor(w, w->plan->regions.bias, shape, from.code, from.bits);
    return step_scale(w, &from, one / s->scale, scaled);
}

static attn_status step_mask(struct walk *w, attn_tensor *hidden)
{
    const struct cann *c = w->plan->op->cann;
    const struct npu_call *n = &w->plan->call;
    const int64_t shape[4] = {n->mask_batch, n->mask_heads, n->shape.nq, n->shape.nk};
    struct tensors s = {.cann = c};
    uint64_t bytes = 0;
    aclOpExecutor *executor = NULL;
    attn_status status = ATTN_OK;
    attn_tensor from = w->call->mask;
    from.shape[0] = n->mask_batch;
    from.shape[1] = n->mask_heads;
    *hidden = region_tensor(w, w->plan->regions.mask, shape, from.code, from.bits);
    aclTensor *self = tensors_add(&s, w->plan->op, &from, NULL, ACL_UINT8);
    aclTensor *out = tensors_add(&s, w->plan->op, hidden, NULL, ACL_BOOL);
    if (s.failed) {
        status = fail_descriptors(w);
    } else {
        aclnnStatus code = c->aclnnLogicalNotGetWorkspaceSize(self, out, &bytes, &executor);
        status = walk_launch(w, "aclnnLogicalNot", code, c->aclnnLogicalNot, bytes, executor);
    }
    tensors_destroy(&s);
    return status;
}

/* Whether heads follow one another within a token, as [B, N, H * D] seen by heads does. */
static int is_token_major(const attn_tensor *t)
{
    return t->shape[1] > 1 && t->stride[1] < t->stride[2];
}

static attn_status step_score(struct walk *w, const attn_tensor *bias, const attn_tensor *hidden,
                              const attn_tensor *max, const attn_tensor *sum)
{
    static char head_major[] = "BNSD", token_major[] = "BSND";
    static const int tokens_first[4] = {0, 2, 1, 3};
    const struct attn_op *op = w->plan->op;
    const struct npu_call *n = &w->plan->call;
    const attn_op_call *c = w->call;
    struct tensors s = {.cann = op->cann};
    int by_token = is_token_major(&c->q) && is_token_major(&c->out);
    const int *axes = by_token ? tokens_first : NULL;
    const int32_t type = acl_type(&c->q);
    struct score_args args = {
        .query = tensors_add(&s, op, &c->q, axes, type),
        .key = tensors_add(&s, op, &c->k, axes, type),
        .value = tensors_add(&s, op, &c->v, axes, type),
        .out = tensors_add(&s, op, &c->out, axes, type),
        .max = tensors_add(&s, op, max, NULL, ACL_FLOAT),
        .sum = tensors_add(&s, op, sum, NULL, ACL_FLOAT),
        .bias = bias->rank ? tensors_add(&s, op, bias, NULL, type) : NULL,
        .mask = hidden->rank ? tensors_add(&s, op, hidden, NULL, ACL_BOOL) : NULL,
        .scale = (double)n->shape.scale,
        .pre_tokens = n->band ? n->pre_tokens : INT32_MAX,
        .next_tokens = n->band ? n->next_tokens : INT32_MAX,
        .heads = n->shape.heads,
        .inner_precise = n->hidden_rows ? 2 : 0, /* 2: rows that see nothing give 0 */
        .sparse_mode = n->band        ? 4
                       : hidden->rank ? 1
                                      : 0, /* 1: the mask says it all */
        .layout = by_token ? token_major : head_major,
    };
    attn_status status = s.failed ? fail_descriptors(w) : walk_score(w, &args);
    tensors_destroy(&s);
    return status;
}

/* to = log(from) */
static attn_status step_log(struct walk *w, const attn_tensor *from, const attn_tensor *to)
{
    const struct cann *c = w->plan->op->cann;
    struct tensors s = {.cann = c};
    uint64_t bytes = 0;
    aclOpExecutor *executor = NULL;
    attn_status status = ATTN_OK;
    aclTensor *self = tensors_add(&s, w->plan->op, from, NULL, ACL_FLOAT);
    aclTensor *out = tensors_add(&s, w->plan->op, to, NULL, ACL_FLOAT);
    if (s.failed) {
        status = fail_descriptors(w);
    } else {
        aclnnStatus code = c->aclnnLogGetWorkspaceSize(self, out, &bytes, &executor);
        status = walk_launch(w, "aclnnLog", code, c->aclnnLog, bytes, executor);
    }
    tensors_destroy(&s);
    return status;
}

/* to = a + b */
static attn_status step_add(struct walk *w, const attn_tensor *a, const attn_tensor *b,
                            const attn_tensor *to)
{
    const struct cann *c = w->plan->op->cann;
    struct tensors s = {.cann = c};
    uint64_t bytes = 0;
    aclOpExecutor *executor = NULL;
    attn_status status = ATTN_OK;
    aclTensor *self = tensors_add(&s, w->plan->op, a, NULL, ACL_FLOAT);
    aclTensor *other = tensors_add(&s, w->plan->op, b, NULL, ACL_FLOAT);
    aclTensor *out = tensors_add(&s, w->plan->op, to, NULL, ACL_FLOAT);
    aclScalar *alpha = tensors_scalar(&s, one);
    if (s.failed) {
        status = fail_descriptors(w);
    } else {
        aclnnStatus code = c->aclnnAddGetWorkspaceSize(self, other, alpha, out, &bytes, &executor);
        status = walk_launch(w, "aclnnAdd", code, c->aclnnAdd, bytes, executor);
    }
    tensors_destroy(&s);
    return status;
}

/* The first of the equal columns, as [B, H, Nq]. */
static attn_tensor first_column(attn_tensor t)
{
    t.rank = 3;
    return t;
}

/* Of a row that sees no key CANN leaves the lowest finite number as its maximum: four times that is
 * minus infinity, while every other lse comes back from times four and times a quarter unchanged.
 */
static attn_status step_lse(struct walk *w, attn_tensor max, attn_tensor sum)
{
    const struct op_shape *s = &w->plan->call.shape;
    const int64_t shape[4] = {s->batch, s->heads, s->nq, 1};
    attn_tensor log =
        first_column(region_tensor(w, w->plan->regions.log, shape, ATTN_CODE_FLOAT, 32));
    attn_tensor tmp =
        first_column(region_tensor(w, w->plan->regions.tmp, shape, ATTN_CODE_FLOAT, 32));
    max = first_column(max);
    sum = first_column(sum);
    int may_hide = w->plan->call.hidden_rows;
    attn_status status = step_log(w, &sum, &log);
    if (status == ATTN_OK)
        status = step_add(w, &max, &log, may_hide ? &tmp : &w->call->lse);
    if (status == ATTN_OK && may_hide)
        status = step_scale(w, &tmp, 4.0f, &log);
    if (status == ATTN_OK && may_hide)
        status = step_scale(w, &log, 0.25f, &w->call->lse);
    return status;
}

/* The mask that sparse mode 4 wants: the op's, which stays. */
static attn_tensor band_mask(const struct attn_op *op)
{
    return (attn_tensor){.data = op->band_mask,
                         .shape = {BAND_MASK, BAND_MASK},
                         .stride = {BAND_MASK, 1},
                         .code = ATTN_CODE_UINT,
                         .bits = 8,
                         .lanes = 1,
                         .rank = 2};
}

attn_status walk_steps(struct walk *w)
{
    const struct npu_call *n = &w->plan->call;
    const struct regions *r = &w->plan->regions;
    const int64_t shape[4] = {n->shape.batch, n->shape.heads, n->shape.nq, SOFTMAX_COLUMNS};
    attn_tensor max = region_tensor(w, r->max, shape, ATTN_CODE_FLOAT, 32);
    attn_tensor sum = region_tensor(w, r->sum, shape, ATTN_CODE_FLOAT, 32);
    attn_tensor bias = {0}, hidden = {0};
    attn_status status = ATTN_OK;
    if (n->band)
        hidden = band_mask(w->plan->op);
    if (w->call->bias.rank)
        status = step_bias(w, &bias);
    if (status == ATTN_OK && w->call->mask.rank)
        status = step_mask(w, &hidden);
    if (status == ATTN_OK)
        status = step_score(w, &bias, &hidden, &max, &sum);
    if (status == ATTN_OK && w->call->lse.rank)
        status = step_lse(w, max, sum);
    return status;
}
