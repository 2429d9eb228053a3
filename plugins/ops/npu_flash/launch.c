/* launch.c: the two phases of an operator.
 *
 * Phase one makes an executor that holds the addresses; phase two consumes it even where it fails.
 * What phase two is not given must be destroyed, and nothing else may be. */
#include "npu_flash.h"

/* A dry walk wants the size alone. */
static attn_status take_size(struct walk *w, uint64_t bytes, aclOpExecutor *executor)
{
    if (bytes > w->workspace_bytes)
        w->workspace_bytes = bytes;
    if (executor)
        (void)w->plan->op->cann->aclDestroyAclOpExecutor(executor);
    return ATTN_OK;
}

attn_status walk_launch(struct walk *w, const char *name, aclnnStatus size_status,
                        cann_launch *launch, uint64_t bytes, aclOpExecutor *executor)
{
    const struct cann *cann = w->plan->op->cann;
    const struct regions *r = &w->plan->regions;
    if (size_status != ACL_SUCCESS)
        return cann_fail(cann, w->err, size_status, name);
    if (w->dry)
        return take_size(w, bytes, executor);
    if (bytes > r->workspace_bytes) {
        if (executor)
            (void)cann->aclDestroyAclOpExecutor(executor);
        return attn_fail(w->err, ATTN_INTERNAL,
                         NAME ": %s wants %llu bytes of workspace, planned were %llu", name,
                         (unsigned long long)bytes, (unsigned long long)r->workspace_bytes);
    }
    void *workspace = bytes ? (char *)w->call->scratch + r->workspace : NULL;
    aclnnStatus code = launch(workspace, bytes, executor, w->call->stream);
    return code == ACL_SUCCESS ? ATTN_OK : cann_fail(cann, w->err, code, name);
}
