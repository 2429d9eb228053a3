/* libraries.h: cuBLASLt and cuDNN, opened when a GPU is first asked for.
 *
 * Neither is linked: a program built with them starts, and computes on a CPU, where they are not
 * installed.  Their functions are members with their own names here. */
#ifndef ATTNPLUG_CUDA_LIBRARIES_H
#define ATTNPLUG_CUDA_LIBRARIES_H

#include "error.h"

#include <cublasLt.h>
#include <cublas_api.h>
#include <cudnn_graph.h>

#define CUBLASLT_FUNCTIONS(X)                                                                      \
    X(cublasLtCreate)                                                                              \
    X(cublasLtDestroy)                                                                             \
    X(cublasLtGetStatusString)                                                                     \
    X(cublasLtMatmul)                                                                              \
    X(cublasLtMatmulAlgoGetHeuristic)                                                              \
    X(cublasLtMatmulDescCreate)                                                                    \
    X(cublasLtMatmulDescDestroy)                                                                   \
    X(cublasLtMatmulDescSetAttribute)                                                              \
    X(cublasLtMatmulPreferenceCreate)                                                              \
    X(cublasLtMatmulPreferenceDestroy)                                                             \
    X(cublasLtMatmulPreferenceSetAttribute)                                                        \
    X(cublasLtMatrixLayoutCreate)                                                                  \
    X(cublasLtMatrixLayoutDestroy)

#define CUDNN_FUNCTIONS(X)                                                                         \
    X(cudnnCreate)                                                                                 \
    X(cudnnDestroy)                                                                                \
    X(cudnnSetStream)                                                                              \
    X(cudnnGetErrorString)                                                                         \
    X(cudnnBackendCreateDescriptor)                                                                \
    X(cudnnBackendDestroyDescriptor)                                                               \
    X(cudnnBackendFinalize)                                                                        \
    X(cudnnBackendSetAttribute)                                                                    \
    X(cudnnBackendGetAttribute)                                                                    \
    X(cudnnBackendExecute)

/* Types of functions cannot be put in parentheses. NOLINTNEXTLINE(bugprone-macro-parentheses) */
#define LIBRARY_MEMBER(name) __typeof__(name) *name;
struct cuda_libraries {
    void *blas_file, *dnn_file;
    CUBLASLT_FUNCTIONS(LIBRARY_MEMBER)
    CUDNN_FUNCTIONS(LIBRARY_MEMBER)
};
#undef LIBRARY_MEMBER

/* ATTN_UNSUPPORTED names the library or the function that is missing.  The libraries stay open for
 * as long as the process: they keep state of threads. */
attn_status cuda_libraries_open(struct cuda_libraries *l, attn_error *err);

/* What a failure of theirs is in the contract's words. */
static inline attn_status blas_status(cublasStatus_t code)
{
    return code == CUBLAS_STATUS_ALLOC_FAILED    ? ATTN_NOMEM
           : code == CUBLAS_STATUS_NOT_SUPPORTED ? ATTN_UNSUPPORTED
                                                 : ATTN_DEVICE;
}

static inline attn_status dnn_status(cudnnStatus_t code)
{
    return code == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
                   code == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
               ? ATTN_NOMEM
               : ATTN_DEVICE;
}

#endif
