/* cann_abi.h: the C entry points of Huawei's CANN that this op calls, as prototypes of our own.
 *
 * Nothing of CANN is needed to build: the types are opaque, enumerations are the int that they are
 * passed as, and the libraries are found at run time (cann_load.c).  Names, order and widths of the
 * arguments are facts of the binary interface, taken from its public reference (CANN 8.x,
 * aclnnFlashAttentionScore and aclrt*).  Sizes are bytes, strides and offsets elements.
 */
#ifndef NPU_FLASH_CANN_ABI_H
#define NPU_FLASH_CANN_ABI_H

#include <stddef.h>
#include <stdint.h>

typedef int32_t aclError;
typedef int32_t aclnnStatus;
typedef void *aclrtStream;
typedef void *aclrtContext;
typedef struct aclTensor aclTensor;
typedef struct aclScalar aclScalar;
typedef struct aclIntArray aclIntArray;
typedef struct aclOpExecutor aclOpExecutor;

/* aclDataType, aclFormat, aclrtMemMallocPolicy, aclrtMemcpyKind */
enum { ACL_FLOAT = 0, ACL_FLOAT16 = 1, ACL_UINT8 = 4, ACL_BOOL = 12, ACL_BF16 = 27 };
enum { ACL_FORMAT_ND = 2 };
enum { ACL_MEM_MALLOC_HUGE_FIRST = 0 };
enum { ACL_MEMCPY_HOST_TO_DEVICE = 1, ACL_MEMCPY_DEVICE_TO_HOST = 2 };

/* Status: runtime (aclError) and operators (aclnnStatus) share one numbering. */
enum {
    ACL_SUCCESS = 0,
    ACL_ERROR_UNINITIALIZE = 100001,
    ACL_ERROR_REPEAT_INITIALIZE = 100002,
    ACL_ERROR_RT_PARAM_INVALID = 107000,
    ACL_ERROR_RT_INVALID_DEVICEID = 107001,
    ACL_ERROR_RT_CONTEXT_NULL = 107002,
    ACLNN_ERR_PARAM_NULLPTR = 161001,
    ACLNN_ERR_PARAM_INVALID = 161002,
    ACL_ERROR_RT_MEMORY_ALLOCATION = 207001,
    ACLNN_ERR_RUNTIME_ERROR = 361001,
    ACL_ERROR_RT_AICORE_TIMEOUT = 507014,
    ACL_ERROR_RT_AICORE_EXCEPTION = 507015,
    ACLNN_ERR_INNER = 561000,
    ACLNN_ERR_INNER_TILING_ERROR = 561002,
};

/* -- runtime: libacl_rt.so, or libascendcl.so of older releases -------------------------------- */

/* Counted; a repeated call says so with 100002 and counts too. */
aclError aclInit(const char *config_path);
/* Takes one call of aclInit back. (aclFinalize takes back everybody's.) */
aclError aclFinalizeReference(uint64_t *count);
/* Counted; makes the device's context current in this thread. */
aclError aclrtSetDevice(int32_t device);
aclError aclrtResetDevice(int32_t device);
aclError aclrtGetCurrentContext(aclrtContext *context);
aclError aclrtSetCurrentContext(aclrtContext context);
aclError aclrtSynchronizeStream(aclrtStream stream);
aclError aclrtMalloc(void **data, size_t bytes, int32_t policy);
aclError aclrtFree(void *data);
aclError aclrtMemcpy(void *to, size_t capacity, const void *from, size_t bytes, int32_t kind);
/* Gives and forgets this thread's last text; the pointer lasts until the next call. May be NULL. */
const char *aclGetRecentErrMsg(void);

/* -- descriptors: libnnopbase.so --------------------------------------------------------------- */

aclTensor *aclCreateTensor(const int64_t *shape, uint64_t rank, int32_t type, const int64_t *stride,
                           int64_t offset, int32_t format, const int64_t *storage_shape,
                           uint64_t storage_rank, void *data);
aclnnStatus aclDestroyTensor(const aclTensor *tensor);
aclScalar *aclCreateScalar(void *value, int32_t type);
aclnnStatus aclDestroyScalar(const aclScalar *scalar);
/* Only for an executor that phase two has not been given. */
aclnnStatus aclDestroyAclOpExecutor(aclOpExecutor *executor);

/* -- operators: libopapi_*.so, or libopapi.so of older releases -------------------------------- */

/* Two phases: ...GetWorkspaceSize checks, and makes an executor that holds the addresses; the call
 * itself queues it on the stream and consumes it, even where it fails. */

/* softmax(mask(scale (pse + Q K^T))) V; a mask byte of 1 hides. */
aclnnStatus aclnnFlashAttentionScoreGetWorkspaceSize(
    const aclTensor *query, const aclTensor *key, const aclTensor *value, const aclTensor *pse,
    const aclTensor *drop_mask, const aclTensor *padding_mask, const aclTensor *attention_mask,
    const aclIntArray *prefix, double scale, double keep_prob, int64_t pre_tokens,
    int64_t next_tokens, int64_t heads, char *layout, int64_t inner_precise, int64_t sparse_mode,
    const aclTensor *softmax_max, const aclTensor *softmax_sum, const aclTensor *softmax_out,
    const aclTensor *attention_out, uint64_t *workspace, aclOpExecutor **executor);
aclnnStatus aclnnFlashAttentionScore(void *workspace, uint64_t bytes, aclOpExecutor *executor,
                                     aclrtStream stream);

/* With pse_type 1 as the first: the bias is added before the scale. */
aclnnStatus aclnnFlashAttentionScoreV2GetWorkspaceSize(
    const aclTensor *query, const aclTensor *key, const aclTensor *value, const aclTensor *pse,
    const aclTensor *drop_mask, const aclTensor *padding_mask, const aclTensor *attention_mask,
    const aclIntArray *prefix, const aclIntArray *q_start, const aclIntArray *kv_start,
    double scale, double keep_prob, int64_t pre_tokens, int64_t next_tokens, int64_t heads,
    char *layout, int64_t inner_precise, int64_t sparse_mode, int64_t pse_type,
    const aclTensor *softmax_max, const aclTensor *softmax_sum, const aclTensor *softmax_out,
    const aclTensor *attention_out, uint64_t *workspace, aclOpExecutor **executor);
aclnnStatus aclnnFlashAttentionScoreV2(void *workspace, uint64_t bytes, aclOpExecutor *executor,
                                       aclrtStream stream);

aclnnStatus aclnnFlashAttentionScoreV3GetWorkspaceSize(
    const aclTensor *query, const aclTensor *key, const aclTensor *value, const aclTensor *pse,
    const aclTensor *drop_mask, const aclTensor *padding_mask, const aclTensor *attention_mask,
    const aclTensor *sink, const aclIntArray *prefix, const aclIntArray *q_start,
    const aclIntArray *kv_start, double scale, double keep_prob, int64_t pre_tokens,
    int64_t next_tokens, int64_t heads, char *layout, int64_t inner_precise, int64_t sparse_mode,
    int64_t pse_type, const aclTensor *softmax_max, const aclTensor *softmax_sum,
    const aclTensor *softmax_out, const aclTensor *attention_out, uint64_t *workspace,
    aclOpExecutor **executor);
aclnnStatus aclnnFlashAttentionScoreV3(void *workspace, uint64_t bytes, aclOpExecutor *executor,
                                       aclrtStream stream);

aclnnStatus aclnnFlashAttentionScoreV4GetWorkspaceSize(
    const aclTensor *query, const aclTensor *key, const aclTensor *value, const aclTensor *pse,
    const aclTensor *drop_mask, const aclTensor *padding_mask, const aclTensor *attention_mask,
    const aclTensor *query_rope, const aclTensor *key_rope, const aclTensor *d_scale_q,
    const aclTensor *d_scale_k, const aclTensor *d_scale_v, const aclTensor *sink,
    const aclIntArray *prefix, const aclIntArray *q_lengths, const aclIntArray *kv_lengths,
    const aclIntArray *q_start, const aclIntArray *kv_start, double scale, double keep_prob,
    int64_t pre_tokens, int64_t next_tokens, int64_t heads, char *layout, int64_t inner_precise,
    int64_t sparse_mode, int64_t out_type, int64_t pse_type, char *softmax_out_layout, int64_t seed,
    int64_t offset, const aclTensor *softmax_max, const aclTensor *softmax_sum,
    const aclTensor *softmax_out, const aclTensor *attention_out, uint64_t *workspace,
    aclOpExecutor **executor);
aclnnStatus aclnnFlashAttentionScoreV4(void *workspace, uint64_t bytes, aclOpExecutor *executor,
                                       aclrtStream stream);

/* out = self == 0, as bytes of 0 and 1. */
aclnnStatus aclnnLogicalNotGetWorkspaceSize(const aclTensor *self, aclTensor *out,
                                            uint64_t *workspace, aclOpExecutor **executor);
aclnnStatus aclnnLogicalNot(void *workspace, uint64_t bytes, aclOpExecutor *executor,
                            aclrtStream stream);
/* out = log(self) */
aclnnStatus aclnnLogGetWorkspaceSize(const aclTensor *self, aclTensor *out, uint64_t *workspace,
                                     aclOpExecutor **executor);
aclnnStatus aclnnLog(void *workspace, uint64_t bytes, aclOpExecutor *executor, aclrtStream stream);
/* out = self + alpha other */
aclnnStatus aclnnAddGetWorkspaceSize(const aclTensor *self, const aclTensor *other,
                                     const aclScalar *alpha, aclTensor *out, uint64_t *workspace,
                                     aclOpExecutor **executor);
aclnnStatus aclnnAdd(void *workspace, uint64_t bytes, aclOpExecutor *executor, aclrtStream stream);
/* out = self * other */
aclnnStatus aclnnMulsGetWorkspaceSize(const aclTensor *self, const aclScalar *other, aclTensor *out,
                                      uint64_t *workspace, aclOpExecutor **executor);
aclnnStatus aclnnMuls(void *workspace, uint64_t bytes, aclOpExecutor *executor, aclrtStream stream);

#endif
