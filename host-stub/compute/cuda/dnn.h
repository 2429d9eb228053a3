/* dnn.h: cuDNN's graphs in C: descriptors that are made, filled, finished and kept together.
 *
 * A graph is built by straight code: the first failure sticks, later calls do nothing. */
#ifndef ATTNPLUG_CUDA_DNN_H
#define ATTNPLUG_CUDA_DNN_H

#include "cuda.h"

#define DNN_DESCRIPTORS 96

struct dnn_graph {
    const struct cuda *cuda;
    cudnnStatus_t code;                            /* of the first failure */
    cudnnBackendDescriptor_t all[DNN_DESCRIPTORS]; /* in the order in which they were made */
    uint32_t n;
};

/* NULL after a failure. The graph destroys it. */
cudnnBackendDescriptor_t dnn_new(struct dnn_graph *g, cudnnBackendDescriptorType_t type);
void dnn_set(struct dnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
             cudnnBackendAttributeType_t type, int64_t n, const void *values);
void dnn_set_descriptor(struct dnn_graph *g, cudnnBackendDescriptor_t d,
                        cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value);
void dnn_finish(struct dnn_graph *g, cudnnBackendDescriptor_t d);
/* Destroys what was made after the first `keep`. */
void dnn_drop(struct dnn_graph *g, uint32_t keep);

/* A finished tensor [dims[0], .., dims[3]] of `type`.  id 0: an intermediate one, never stored. */
cudnnBackendDescriptor_t dnn_tensor(struct dnn_graph *g, int64_t id, cudnnDataType_t type,
                                    const int64_t dims[4], const int64_t strides[4]);
/* y = a + b, computed in fp32. */
cudnnBackendDescriptor_t dnn_add(struct dnn_graph *g, cudnnBackendDescriptor_t a,
                                 cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y);

#endif
