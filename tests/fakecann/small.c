/* small.c: aclnnLogicalNot, aclnnLog, aclnnAdd, aclnnMuls. */
#include "opapi.h"

#include <math.h>
#include <string.h>

enum { NOT, LOG, ADD, MULS };

static double apply(int what, double x, double y, double factor)
{
    switch (what) {
    case NOT:
        return x == 0.0;
    case LOG:
        return log(x);
    case ADD:
        return x + factor * y;
    default:
        return x * factor;
    }
}

static char *element_at(const struct operand *o, int64_t index)
{
    const aclTensor *t = &o->tensor;
    int64_t offset = 0;
    for (uint32_t i = t->rank; i-- > 0;) {
        offset += index % t->shape[i] * t->stride[i];
        index /= t->shape[i];
    }
    return o->host + offset * (int64_t)fake_type_bytes(t->type);
}

static int32_t compute(struct aclOpExecutor *e)
{
    struct operand *x = &e->operand[0], *out = &e->operand[e->count - 1];
    struct operand *y = e->count == 3 ? &e->operand[1] : x;
    int64_t n = 1;
    for (uint32_t i = 0; i < out->tensor.rank; i++)
        n *= out->tensor.shape[i];
    for (int i = 0; i < e->count; i++)
        if (e->operand[i].tensor.data % 32 != 0) {
            fake_violation("%s: operand %d is not aligned to 32 bytes", e->name, i);
            return ACL_ERROR_RT_AICORE_EXCEPTION;
        }
    for (int64_t i = 0; i < n; i++)
        element_set(element_at(out, i), out->tensor.type,
                    apply((int)e->number[0], element_get(element_at(x, i), x->tensor.type),
                          element_get(element_at(y, i), y->tensor.type), e->factor));
    return 0;
}

static int same_shape(const aclTensor *a, const aclTensor *b)
{
    return a->rank == b->rank && memcmp(a->shape, b->shape, a->rank * sizeof *a->shape) == 0;
}

static int is_float(const aclTensor *t)
{
    return t->type == ACL_FLOAT || t->type == ACL_FLOAT16 || t->type == ACL_BF16;
}

static int is_contiguous(const aclTensor *t)
{
    int64_t step = 1;
    for (uint32_t i = t->rank; i-- > 0;) {
        if (t->shape[i] > 1 && t->stride[i] != step)
            return 0;
        step *= t->shape[i];
    }
    return 1;
}

/* Views want room for a contiguous copy. */
static uint64_t workspace_of(const struct aclOpExecutor *e)
{
    for (int i = 0; i < e->count; i++)
        if (!is_contiguous(&e->operand[i].tensor))
            return 2048;
    return 0;
}

static int32_t size_of(int what, const char *name, const char *launch, const aclTensor *x,
                       const aclTensor *y, const aclScalar *scalar, aclTensor *out,
                       uint64_t *workspace, aclOpExecutor **executor)
{
    int32_t code = fake_enter(name);
    if (code)
        return code;
    if (!fake_context())
        return fake_error(ACLNN_ERR_RUNTIME_ERROR, "EE1001: %s: this thread has no context", name);
    if (!x || !out || !workspace || !executor || (what == ADD && !y) || (what >= ADD && !scalar))
        return fake_error(ACLNN_ERR_PARAM_NULLPTR, "EZ1001: %s: an argument is NULL", name);
    int types = what == NOT ? out->type == ACL_BOOL : is_float(x) && out->type == x->type;
    if (!types || !same_shape(x, out) || (y && (y->type != x->type || !same_shape(x, y))))
        return fake_error(ACLNN_ERR_PARAM_INVALID, "EZ1001: %s: types or shapes differ", name);
    struct aclOpExecutor *e = fake_executor_new(launch);
    if (!e)
        return ACLNN_ERR_INNER;
    fake_executor_add(e, x, 0);
    if (y)
        fake_executor_add(e, y, 0);
    fake_executor_add(e, out, 1);
    e->number[0] = what;
    e->factor = scalar ? scalar->value : 0.0;
    e->compute = compute;
    *workspace = e->workspace = workspace_of(e);
    *executor = e;
    return 0;
}

EXPORT aclnnStatus aclnnLogicalNotGetWorkspaceSize(const aclTensor *self, aclTensor *out,
                                                   uint64_t *workspace, aclOpExecutor **executor)
{
    return size_of(NOT, "aclnnLogicalNotGetWorkspaceSize", "aclnnLogicalNot", self, NULL, NULL, out,
                   workspace, executor);
}

EXPORT aclnnStatus aclnnLogicalNot(void *workspace, uint64_t bytes, aclOpExecutor *executor,
                                   aclrtStream stream)
{
    return fake_launch("aclnnLogicalNot", workspace, bytes, executor, stream);
}

EXPORT aclnnStatus aclnnLogGetWorkspaceSize(const aclTensor *self, aclTensor *out,
                                            uint64_t *workspace, aclOpExecutor **executor)
{
    return size_of(LOG, "aclnnLogGetWorkspaceSize", "aclnnLog", self, NULL, NULL, out, workspace,
                   executor);
}

EXPORT aclnnStatus aclnnLog(void *workspace, uint64_t bytes, aclOpExecutor *executor,
                            aclrtStream stream)
{
    return fake_launch("aclnnLog", workspace, bytes, executor, stream);
}

EXPORT aclnnStatus aclnnAddGetWorkspaceSize(const aclTensor *self, const aclTensor *other,
                                            const aclScalar *alpha, aclTensor *out,
                                            uint64_t *workspace, aclOpExecutor **executor)
{
    return size_of(ADD, "aclnnAddGetWorkspaceSize", "aclnnAdd", self, other, alpha, out, workspace,
                   executor);
}

EXPORT aclnnStatus aclnnAdd(void *workspace, uint64_t bytes, aclOpExecutor *executor,
                            aclrtStream stream)
{
    return fake_launch("aclnnAdd", workspace, bytes, executor, stream);
}

EXPORT aclnnStatus aclnnMulsGetWorkspaceSize(const aclTensor *self, const aclScalar *other,
                                             aclTensor *out, uint64_t *workspace,
                                             aclOpExecutor **executor)
{
    return size_of(MULS, "aclnnMulsGetWorkspaceSize", "aclnnMuls", self, NULL, other, out,
                   workspace, executor);
}

EXPORT aclnnStatus aclnnMuls(void *workspace, uint64_t bytes, aclOpExecutor *executor,
                             aclrtStream stream)
{
    return fake_launch("aclnnMuls", workspace, bytes, executor, stream);
}
