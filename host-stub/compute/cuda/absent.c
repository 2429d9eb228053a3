/* absent.c: compute on an NVIDIA GPU in a build without it. */
#include "compute_cuda.h"

attn_status compute_cuda_create(attn_registry *registry, int32_t id, const attn_tensor *dtype,
                                struct compute **out, attn_error *err)
{
    (void)registry;
    (void)id;
    (void)dtype;
    (void)out;
    return attn_fail(err, ATTN_UNSUPPORTED,
                     "device cuda: this build has no part for NVIDIA GPUs: it was made without "
                     "nvcc, or without the headers of cuBLAS and cuDNN");
}
