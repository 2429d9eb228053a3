/* The few words of cuDNN 9's graph interface that this plugin speaks, so that it builds where cuDNN
 * is not installed.  Names are cuDNN's with the CUDNN_ prefix; values are part of cuDNN's binary
 * interface (cuDNN 9 backend API reference, "Enumeration Types", the same from 9.0 on). */
#ifndef CUDNN_PLUGIN_ABI_H
#define CUDNN_PLUGIN_ABI_H

#include <stddef.h>
#include <stdint.h>

typedef struct cudnnContext *cudnnHandle_t;
typedef void *cudnnBackendDescriptor_t;

/* status: thousands are the category */
enum {
    CUDNN_STATUS_SUCCESS = 0,
    CUDNN_STATUS_NOT_INITIALIZED = 1001,
    CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED = 1008,
    CUDNN_STATUS_NOT_SUPPORTED = 3000,
    CUDNN_STATUS_INTERNAL_ERROR = 4000,
    CUDNN_STATUS_HOST_ALLOCATION_FAILED = 4003,
    CUDNN_STATUS_DEVICE_ALLOCATION_FAILED = 4004,
};

enum {
    CUDNN_DATA_FLOAT = 0,
    CUDNN_DATA_HALF = 2,
    CUDNN_DATA_INT32 = 4,
    CUDNN_DATA_BFLOAT16 = 9,
    CUDNN_DATA_BOOLEAN = 11,
};

enum {
    CUDNN_POINTWISE_ADD = 0,
    CUDNN_POINTWISE_MUL = 1,
    CUDNN_POINTWISE_DIV = 6,
    CUDNN_POINTWISE_SUB = 9,
    CUDNN_POINTWISE_EXP = 13,
    CUDNN_POINTWISE_LOG = 15,
    CUDNN_POINTWISE_CMP_GE = 303,
    CUDNN_POINTWISE_GEN_INDEX = 501,
    CUDNN_POINTWISE_BINARY_SELECT = 601,
};

enum { CUDNN_REDUCE_TENSOR_ADD = 0, CUDNN_REDUCE_TENSOR_MAX = 3 };

enum { CUDNN_HEUR_MODE_A = 3 };

/* types of attributes */
enum {
    CUDNN_TYPE_HANDLE = 0,
    CUDNN_TYPE_DATA_TYPE = 1,
    CUDNN_TYPE_BOOLEAN = 2,
    CUDNN_TYPE_INT64 = 3,
    CUDNN_TYPE_FLOAT = 4,
    CUDNN_TYPE_VOID_PTR = 6,
    CUDNN_TYPE_HEUR_MODE = 8,
    CUDNN_TYPE_POINTWISE_MODE = 14,
    CUDNN_TYPE_BACKEND_DESCRIPTOR = 15,
    CUDNN_TYPE_REDUCTION_OPERATOR_TYPE = 18,
};

/* kinds of descriptors */
enum {
    CUDNN_BACKEND_POINTWISE = 0,
    CUDNN_BACKEND_ENGINECFG = 3,
    CUDNN_BACKEND_ENGINEHEUR = 4,
    CUDNN_BACKEND_EXECUTION_PLAN = 5,
    CUDNN_BACKEND_OPERATION_POINTWISE = 13,
    CUDNN_BACKEND_OPERATIONGRAPH = 15,
    CUDNN_BACKEND_VARIANT_PACK = 16,
    CUDNN_BACKEND_TENSOR = 17,
    CUDNN_BACKEND_MATMUL = 18,
    CUDNN_BACKEND_OPERATION_MATMUL = 19,
    CUDNN_BACKEND_REDUCTION = 21,
    CUDNN_BACKEND_OPERATION_REDUCTION = 22,
};

/* attributes */
enum {
    CUDNN_ATTR_POINTWISE_MODE = 0,
    CUDNN_ATTR_POINTWISE_MATH_PREC = 1,
    CUDNN_ATTR_POINTWISE_AXIS = 9,
    CUDNN_ATTR_ENGINEHEUR_MODE = 200,
    CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH = 201,
    CUDNN_ATTR_ENGINEHEUR_RESULTS = 202,
    CUDNN_ATTR_EXECUTION_PLAN_HANDLE = 400,
    CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG = 401,
    CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE = 402,
    CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR = 750,
    CUDNN_ATTR_OPERATION_POINTWISE_XDESC = 751,
    CUDNN_ATTR_OPERATION_POINTWISE_BDESC = 752,
    CUDNN_ATTR_OPERATION_POINTWISE_YDESC = 753,
    CUDNN_ATTR_OPERATION_POINTWISE_TDESC = 758,
    CUDNN_ATTR_OPERATIONGRAPH_HANDLE = 800,
    CUDNN_ATTR_OPERATIONGRAPH_OPS = 801,
    CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT = 900,
    CUDNN_ATTR_TENSOR_DATA_TYPE = 901,
    CUDNN_ATTR_TENSOR_DIMENSIONS = 902,
    CUDNN_ATTR_TENSOR_STRIDES = 903,
    CUDNN_ATTR_TENSOR_UNIQUE_ID = 906,
    CUDNN_ATTR_TENSOR_IS_VIRTUAL = 907,
    CUDNN_ATTR_TENSOR_IS_BY_VALUE = 908,
    CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS = 1000,
    CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS = 1001,
    CUDNN_ATTR_VARIANT_PACK_WORKSPACE = 1003,
    CUDNN_ATTR_MATMUL_COMP_TYPE = 1500,
    CUDNN_ATTR_OPERATION_MATMUL_ADESC = 1520,
    CUDNN_ATTR_OPERATION_MATMUL_BDESC = 1521,
    CUDNN_ATTR_OPERATION_MATMUL_CDESC = 1522,
    CUDNN_ATTR_OPERATION_MATMUL_DESC = 1523,
    CUDNN_ATTR_REDUCTION_OPERATOR = 1600,
    CUDNN_ATTR_REDUCTION_COMP_TYPE = 1601,
    CUDNN_ATTR_OPERATION_REDUCTION_XDESC = 1610,
    CUDNN_ATTR_OPERATION_REDUCTION_YDESC = 1611,
    CUDNN_ATTR_OPERATION_REDUCTION_DESC = 1612,
};

/* name of the member and of the function, result, arguments */
#define CUDNN_FUNCTIONS(X)                                                                         \
    X(size_t, cudnnGetVersion, (void))                                                             \
    X(const char *, cudnnGetErrorString, (int status))                                             \
    X(void, cudnnGetLastErrorString, (char *message, size_t bytes))                                \
    X(int, cudnnCreate, (cudnnHandle_t * handle))                                                  \
    X(int, cudnnSetStream, (cudnnHandle_t handle, void *stream))                                   \
    X(int, cudnnBackendCreateDescriptor, (int kind, cudnnBackendDescriptor_t *descriptor))         \
    X(int, cudnnBackendDestroyDescriptor, (cudnnBackendDescriptor_t descriptor))                   \
    X(int, cudnnBackendFinalize, (cudnnBackendDescriptor_t descriptor))                            \
    X(int, cudnnBackendSetAttribute,                                                               \
      (cudnnBackendDescriptor_t descriptor, int name, int type, int64_t count,                     \
       const void *elements))                                                                      \
    X(int, cudnnBackendGetAttribute,                                                               \
      (cudnnBackendDescriptor_t descriptor, int name, int type, int64_t room, int64_t *count,      \
       void *elements))                                                                            \
    X(int, cudnnBackendExecute,                                                                    \
      (cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack))

#endif
