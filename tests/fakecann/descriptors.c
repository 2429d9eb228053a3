/* descriptors.c: libnnopbase.so: tensors, scalars, and executors that were not used. */
#include "core.h"

#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

static int tensor_is_sound(const int64_t *shape, uint64_t rank, int32_t type, const int64_t *stride,
                           int64_t offset, int32_t format, int64_t storage)
{
    int64_t last = offset;
    int empty = 0;
    if (!shape || rank < 1 || rank > MAX_RANK || !fake_type_bytes(type) ||
        format != ACL_FORMAT_ND || offset < 0)
        return 0;
    for (uint64_t i = 0; i < rank; i++) {
        if (shape[i] < 0 || (stride && stride[i] < 0))
            return 0;
        empty |= shape[i] == 0;
        last += stride ? (shape[i] - 1) * stride[i] : 0;
    }
    return empty || !stride || last < storage;
}

EXPORT aclTensor *aclCreateTensor(const int64_t *shape, uint64_t rank, int32_t type,
                                  const int64_t *stride, int64_t offset, int32_t format,
                                  const int64_t *storage_shape, uint64_t storage_rank, void *data)
{
    int64_t storage = 1, step = 1;
    if (fake_enter("aclCreateTensor"))
        return NULL;
    for (uint64_t i = 0; storage_shape && i < storage_rank; i++)
        storage *= storage_shape[i];
    if (!tensor_is_sound(shape, rank, type, stride, offset, format, storage)) {
        (void)fake_error(ACLNN_ERR_PARAM_INVALID,
                         "EZ1001: aclCreateTensor: rank %llu, type %d, "
                         "offset %lld, storage %lld",
                         (unsigned long long)rank, type, (long long)offset, (long long)storage);
        return NULL;
    }
    aclTensor *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    *t = (aclTensor){.magic = TENSOR_ALIVE,
                     .type = type,
                     .rank = (uint32_t)rank,
                     .offset = offset,
                     .storage = storage,
                     .data = (uint64_t)(uintptr_t)data};
    for (uint64_t i = rank; i-- > 0;) {
        t->shape[i] = shape[i];
        t->stride[i] = stride ? stride[i] : step;
        step *= shape[i];
    }
    fake_live_add("tensors", 1);
    return t;
}

EXPORT aclnnStatus aclDestroyTensor(const aclTensor *tensor)
{
    int32_t code = fake_enter_release("aclDestroyTensor");
    aclTensor *t = (aclTensor *)(uintptr_t)tensor;
    if (!t)
        return ACLNN_ERR_PARAM_NULLPTR;
    t->magic = DEAD;
    free(t);
    fake_live_add("tensors", -1);
    return code;
}

EXPORT aclScalar *aclCreateScalar(void *value, int32_t type)
{
    if (fake_enter("aclCreateScalar") || !value || type != ACL_FLOAT)
        return NULL;
    aclScalar *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->magic = SCALAR_ALIVE;
    s->value = (double)*(const float *)value;
    fake_live_add("scalars", 1);
    return s;
}

EXPORT aclnnStatus aclDestroyScalar(const aclScalar *scalar)
{
    int32_t code = fake_enter_release("aclDestroyScalar");
    if (!scalar)
        return ACLNN_ERR_PARAM_NULLPTR;
    free((aclScalar *)(uintptr_t)scalar);
    fake_live_add("scalars", -1);
    return code;
}

EXPORT aclnnStatus aclDestroyAclOpExecutor(aclOpExecutor *executor)
{
    int32_t code = fake_enter_release("aclDestroyAclOpExecutor");
    if (!executor)
        return ACLNN_ERR_PARAM_NULLPTR;
    if (executor->magic != EXECUTOR_ALIVE) {
        fake_violation("aclDestroyAclOpExecutor of an executor that phase two had");
        return ACLNN_ERR_INNER;
    }
    fake_executor_free(executor);
    return code;
}
