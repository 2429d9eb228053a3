/* cann_status.c: CANN's codes as the contract's. */
#include "cann.h"
#include "error.h"

#include <string.h>

attn_status cann_status(int32_t code)
{
    switch (code) {
    case ACL_SUCCESS:
        return ATTN_OK;
    case ACL_ERROR_RT_MEMORY_ALLOCATION:
        return ATTN_NOMEM;
    case ACL_ERROR_UNINITIALIZE: /* somebody called aclFinalize: contexts and memory are gone */
    case ACLNN_ERR_RUNTIME_ERROR:
        return ATTN_DEVICE;
    default:
        break;
    }
    if (code >= 507000 && code < 508000) /* execution on the device */
        return ATTN_DEVICE;
    if (code >= 561000 && code < 562000) /* tiling, missing kernels: this call, not the next */
        return ATTN_UNSUPPORTED;
    return ATTN_INTERNAL;
}

attn_status cann_fail(const struct cann *cann, attn_error *err, int32_t code, const char *call)
{
    const char *words = cann->aclGetRecentErrMsg ? cann->aclGetRecentErrMsg() : NULL;
    char line[256];
    (void)snprintf(line, sizeof line, "%s", words ? words : "");
    for (char *c = line; *c; c++)
        if (*c == '\n' || *c == '\r' || *c == '\t')
            *c = ' ';
    if (err)
        err->vendor_code = code;
    return attn_fail(err, cann_status(code), NAME ": %s returned %d%s%s", call, code,
                     line[0] ? ": " : "", line);
}
