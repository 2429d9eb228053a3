/* host_tensor.h: arrays in host memory as tensors. */
#ifndef ATTNPLUG_MODEL_HOST_TENSOR_H
#define ATTNPLUG_MODEL_HOST_TENSOR_H

#include "tensor.h"

/* A contiguous one.  What reads a tensor does not write it: so `data` may be const. */
static inline attn_tensor host_tensor(const void *data, uint8_t code, uint8_t bits, uint32_t rank,
                                      const int64_t *shape)
{
    const attn_tensor like = {
        .device_type = ATTN_DEVICE_CPU, .code = code, .bits = bits, .lanes = 1};
    return tensor_of((void *)(uintptr_t)data, &like, rank, shape);
}

static inline attn_tensor host_f32(const float *data, uint32_t rank, const int64_t *shape)
{
    return host_tensor(data, ATTN_CODE_FLOAT, 32, rank, shape);
}

#endif
