/* launchers.h: what table.cu gathers; see kernels.h for what each does. */
#ifndef ATTNPLUG_CUDA_LAUNCHERS_H
#define ATTNPLUG_CUDA_LAUNCHERS_H

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

uint64_t kernel_group_norm_scratch(const struct kernel_norm *n);
int kernel_group_norm(const struct kernel_norm *n, void *scratch, void *stream);
int kernel_layer_norm(const struct kernel_norm *n, void *stream);
int kernel_spatial_modulate(const attn_tensor *n, const attn_tensor *by, const attn_tensor *add,
                            const attn_tensor *y, void *stream);
int kernel_copy(const attn_tensor *src, const attn_tensor *dst, void *stream);
int kernel_fill(float value, const attn_tensor *dst, void *stream);
int kernel_combine(float alpha, const attn_tensor *a, float beta, const attn_tensor *b,
                   const attn_tensor *y, void *stream);
int kernel_activate(int32_t act, const attn_tensor *x, const attn_tensor *y, void *stream);
int kernel_epilogue(float alpha, int32_t act, const attn_tensor *x, const attn_tensor *bias,
                    float beta, const attn_tensor *residual, const attn_tensor *y, void *stream);
int kernel_geglu(const attn_tensor *x, const attn_tensor *bias, const attn_tensor *y, void *stream);
int kernel_guide(const attn_tensor *uncond, const attn_tensor *cond, const float *scale,
                 const attn_tensor *y, void *stream);
int kernel_guide_sag(const attn_tensor *guided, const attn_tensor *reference,
                     const attn_tensor *degraded, const float *scale, const attn_tensor *y,
                     void *stream);
int kernel_mix(uint32_t n_y, const attn_tensor *const *y, uint32_t n_x, const attn_tensor *const *x,
               const float *coefficients, const int32_t *step, void *stream);
int kernel_step_pick(const float *table, const int32_t *step, int64_t n, int64_t repeat, float *y,
                     void *stream);
int kernel_step_advance(int32_t *step, int32_t by, void *stream);
int kernel_upsample(const attn_tensor *x, const attn_tensor *y, void *stream);
int kernel_embed(const attn_tensor *ids, const attn_tensor *table, const attn_tensor *positions,
                 const attn_tensor *y, void *stream);
int kernel_timestep(const attn_tensor *t, int32_t flip_sin_to_cos, float freq_shift,
                    const attn_tensor *y, void *stream);
int kernel_sag_degrade(const attn_tensor *key_mass, int64_t mh, int64_t mw,
                       const attn_tensor *mask_in, const attn_tensor *x0, const attn_tensor *out,
                       void *stream);

#ifdef __cplusplus
}
#endif

#endif
