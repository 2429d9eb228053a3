/* table.cu: the one symbol that a library of these kernels exports. */
#include "launchers.h"

#include <cuda_runtime_api.h>

static const char *error_text(int error)
{
    return cudaGetErrorString((cudaError_t)error);
}

extern "C" const struct cuda_kernels attn_cuda_kernels = {
    sizeof(struct cuda_kernels),
    CUDA_KERNELS_VERSION,
    error_text,
    kernel_group_norm_scratch,
    kernel_group_norm,
    kernel_layer_norm,
    kernel_spatial_modulate,
    kernel_copy,
    kernel_fill,
    kernel_combine,
    kernel_activate,
    kernel_epilogue,
    kernel_geglu,
    kernel_guide,
    kernel_guide_sag,
    kernel_mix,
    kernel_step_pick,
    kernel_step_advance,
    kernel_upsample,
    kernel_embed,
    kernel_timestep,
    kernel_sag_degrade,
};
