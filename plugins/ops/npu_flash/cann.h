/* cann.h: the table of CANN's entry points that were found, and what their codes mean. */
#ifndef NPU_FLASH_CANN_H
#define NPU_FLASH_CANN_H

#include "cann_abi.h"

#include "attn_abi.h"

#define NAME "npu_flash"

/* Without one of these the op cannot run at all. */
#define CANN_RUNTIME(X)                                                                            \
    X(aclInit)                                                                                     \
    X(aclrtSetDevice)                                                                              \
    X(aclrtResetDevice)                                                                            \
    X(aclrtGetCurrentContext)                                                                      \
    X(aclrtSetCurrentContext)                                                                      \
    X(aclrtSynchronizeStream)                                                                      \
    X(aclrtMalloc)                                                                                 \
    X(aclrtFree)                                                                                   \
    X(aclrtMemcpy)
#define CANN_DESCRIPTORS(X)                                                                        \
    X(aclCreateTensor)                                                                             \
    X(aclDestroyTensor)                                                                            \
    X(aclCreateScalar)                                                                             \
    X(aclDestroyScalar)                                                                            \
    X(aclDestroyAclOpExecutor)
/* NULL where a release does not have them. */
#define CANN_RUNTIME_OPTIONAL(X)                                                                   \
    X(aclFinalizeReference)                                                                        \
    X(aclGetRecentErrMsg)
/* Both phases or neither. */
#define CANN_OPERATORS(X)                                                                          \
    X(aclnnFlashAttentionScore)                                                                    \
    X(aclnnFlashAttentionScoreV2)                                                                  \
    X(aclnnFlashAttentionScoreV3)                                                                  \
    X(aclnnFlashAttentionScoreV4)                                                                  \
    X(aclnnLogicalNot)                                                                             \
    X(aclnnLog)                                                                                    \
    X(aclnnAdd)                                                                                    \
    X(aclnnMuls)

#define CANN_FIELD(name)      __typeof__(name) *name;
#define CANN_TWO_FIELDS(name) CANN_FIELD(name) CANN_FIELD(name##GetWorkspaceSize)

struct cann {
    CANN_RUNTIME(CANN_FIELD)
    CANN_RUNTIME_OPTIONAL(CANN_FIELD)
    CANN_DESCRIPTORS(CANN_FIELD)
    CANN_OPERATORS(CANN_TWO_FIELDS)
};

/* Phase two, which is alike in all operators. */
typedef __typeof__(aclnnMuls) cann_launch;

/* The table, the same for all callers and for good; found anew only after a failure, which is
 * UNSUPPORTED and names the library or symbol and the places that were searched. */
attn_status cann_load(const struct cann **cann, attn_error *err);

/* What a code of CANN means to a host; the text has the call, the code and CANN's own words, and
 * err->vendor_code the code. */
attn_status cann_fail(const struct cann *cann, attn_error *err, int32_t code, const char *call);
/* The code alone. */
attn_status cann_status(int32_t code);

#endif
