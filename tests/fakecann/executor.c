/* executor.c: what phase one makes and phase two consumes. */
#include "core.h"

#include <stdlib.h>
#include <string.h>

size_t fake_type_bytes(int32_t type)
{
    switch (type) {
    case ACL_FLOAT:
        return 4;
    case ACL_FLOAT16:
    case ACL_BF16:
        return 2;
    case ACL_UINT8:
    case ACL_BOOL:
        return 1;
    default:
        return 0;
    }
}

void fake_tensor_span(const struct aclTensor *t, uint64_t *address, uint64_t *bytes)
{
    int64_t elements = 1;
    *address = t->data + (uint64_t)t->offset * fake_type_bytes(t->type);
    for (uint32_t i = 0; i < t->rank; i++) {
        if (t->shape[i] == 0) {
            *bytes = 0;
            return;
        }
        elements += (t->shape[i] - 1) * t->stride[i];
    }
    *bytes = (uint64_t)elements * fake_type_bytes(t->type);
}

struct aclOpExecutor *fake_executor_new(const char *name)
{
    struct aclOpExecutor *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    e->magic = EXECUTOR_ALIVE;
    e->name = name;
    fake_live_add("executors", 1);
    return e;
}

void fake_executor_add(struct aclOpExecutor *e, const struct aclTensor *t, int written)
{
    struct operand *o = &e->operand[e->count++];
    *o = (struct operand){.written = written};
    if (t)
        o->tensor = *t;
}

/* Dead ones are kept, a few bytes each: a second use is then seen for what it is. */
void fake_executor_free(struct aclOpExecutor *e)
{
    static struct aclOpExecutor *graves[256];
    static unsigned next;
    fake_lock();
    e->magic = DEAD;
    free(graves[next % 256]);
    graves[next++ % 256] = e;
    fake_live_add("executors", -1);
    fake_unlock();
}

int32_t fake_launch(const char *name, void *workspace, uint64_t bytes,
                    struct aclOpExecutor *executor, void *stream)
{
    int32_t code = fake_enter(name);
    if (!executor)
        return fake_error(ACLNN_ERR_PARAM_NULLPTR, "EZ1001: %s: executor is NULL", name);
    if (executor->magic != EXECUTOR_ALIVE || strcmp(executor->name, name) != 0) {
        fake_violation("%s: an executor that was used, destroyed, or another operator's", name);
        return fake_error(ACLNN_ERR_INNER, "EZ9999: %s: no such executor", name);
    }
    if (!code && !fake_context())
        code = fake_error(ACLNN_ERR_RUNTIME_ERROR, "EE1001: %s: this thread has no context", name);
    if (!code && bytes < executor->workspace)
        code =
            fake_error(ACLNN_ERR_PARAM_INVALID, "EZ1001: %s: workspace of %llu bytes, wants %llu",
                       name, (unsigned long long)bytes, (unsigned long long)executor->workspace);
    if (!code && executor->workspace && !workspace)
        code = fake_error(ACLNN_ERR_PARAM_NULLPTR, "EZ1001: %s: workspace is NULL", name);
    if (!code && executor->late)
        code = fake_error(executor->late, "EZ9999: %s: tiling failed", name);
    if (!code && executor->count == 0) { /* nothing to compute */
        fake_executor_free(executor);
        return 0;
    }
    if (!code)
        code = fake_stream_push(stream, executor, (uint64_t)(uintptr_t)workspace);
    if (code)
        fake_executor_free(executor); /* consumed, whatever became of it */
    return code;
}
