#include "dnn.h"

cudnnBackendDescriptor_t dnn_new(struct dnn_graph *g, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t d = NULL;
    if (g->code != CUDNN_STATUS_SUCCESS)
        return NULL;
    if (g->n == DNN_DESCRIPTORS) {
        g->code = CUDNN_STATUS_INTERNAL_ERROR;
        return NULL;
    }
    g->code = g->cuda->lib.cudnnBackendCreateDescriptor(type, &d);
    if (g->code != CUDNN_STATUS_SUCCESS)
        return NULL;
    g->all[g->n++] = d;
    return d;
}

void dnn_set(struct dnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
             cudnnBackendAttributeType_t type, int64_t n, const void *values)
{
    if (g->code == CUDNN_STATUS_SUCCESS)
        g->code = g->cuda->lib.cudnnBackendSetAttribute(d, name, type, n, values);
}

void dnn_set_descriptor(struct dnn_graph *g, cudnnBackendDescriptor_t d,
                        cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value)
{
    dnn_set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, (const void *)&value);
}

void dnn_finish(struct dnn_graph *g, cudnnBackendDescriptor_t d)
{
    if (g->code == CUDNN_STATUS_SUCCESS)
        g->code = g->cuda->lib.cudnnBackendFinalize(d);
}

void dnn_drop(struct dnn_graph *g, uint32_t keep)
{
    while (g->n > keep)
        (void)g->cuda->lib.cudnnBackendDestroyDescriptor(g->all[--g->n]);
}

cudnnBackendDescriptor_t dnn_tensor(struct dnn_graph *g, int64_t id, cudnnDataType_t type,
                                    const int64_t dims[4], const int64_t strides[4])
{
    static int64_t const alignment = 16;
    cudnnBackendDescriptor_t t = dnn_new(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    const bool virtual = id == 0;
    const int64_t unique = virtual ? 1000 + (int64_t)g->n : id;
    dnn_set(g, t, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    dnn_set(g, t, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    dnn_set(g, t, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    dnn_set(g, t, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &unique);
    dnn_set(g, t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    if (virtual)
        dnn_set(g, t, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &virtual);
    dnn_finish(g, t);
    return t;
}

cudnnBackendDescriptor_t dnn_add(struct dnn_graph *g, cudnnBackendDescriptor_t a,
                                 cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y)
{
    const cudnnPointwiseMode_t mode = CUDNN_POINTWISE_ADD;
    const cudnnDataType_t precision = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t add = dnn_new(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    dnn_set(g, add, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    dnn_set(g, add, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &precision);
    dnn_finish(g, add);
    cudnnBackendDescriptor_t op = dnn_new(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, add);
    dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, a);
    dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    dnn_finish(g, op);
    return op;
}
