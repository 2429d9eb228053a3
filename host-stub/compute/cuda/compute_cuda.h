/* compute_cuda.h: compute on an NVIDIA GPU.  Builds without CUDA have it too, and it refuses. */
#ifndef ATTNPLUG_CUDA_COMPUTE_CUDA_H
#define ATTNPLUG_CUDA_COMPUTE_CUDA_H

#include "compute.h"

/* GPU number `id`; dtype (code and bits) fp32, fp16 or bf16 is that of weights and activations.
 * All work goes to one stream of its own.  ATTN_UNSUPPORTED says what is missing: the GPU, its
 * driver, cuBLAS, cuDNN, or CUDA in this build.  registry as in compute_cpu_create. */
attn_status compute_cuda_create(attn_registry *registry, int32_t id, const attn_tensor *dtype,
                                struct compute **out, attn_error *err);

#endif
