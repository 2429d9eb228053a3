/* kernels.h: the CUDA kernels of compute, as one table of launchers.
 *
 * Everything that compute.h and attn_compute ask for but convolutions, matrix products, attention
 * and memory.  The kernels are compiled by nvcc with the CUDA runtime linked in statically; who
 * calls them needs this header alone.
 *
 * Tensors.  Shapes, strides and types as attn_abi.h has them, data at the device.  Unless a
 * launcher says otherwise: fp32, fp16 and bf16 in any mixture, any strides (0 in inputs broadcasts,
 * negative ones run backwards), any alignment, no element of an output twice.  Arithmetic is fp32.
 * Tensors that are contiguous along their last dimension, 16-byte aligned and (for norms) of one
 * type take the fast kernels.  Optional tensors are NULL or of rank 0.  A tensor with no elements
 * is nothing to do.  Launchers do not check what the caller has checked already: that shapes fit
 * together.
 *
 * Calls.  Each queues on `stream` (a cudaStream_t) of the device that is current, allocates
 * nothing, waits for nothing, and may be captured into a graph.  [any] thread.  The return value is
 * a cudaError_t, 0 when all was queued; error_text puts it in words.  Results do not depend on
 * timing: the same call gives the same bits on the same device.
 *
 * Values that change while a graph is replayed (coefficients, timesteps) are read from device
 * memory.  Where a launcher takes `step`, a device int32 or NULL for 0, it reads row *step of its
 * table, so that a whole loop's values are written once and a graph needs only step_advance.
 */
#ifndef ATTNPLUG_CUDA_KERNELS_H
#define ATTNPLUG_CUDA_KERNELS_H

#include "attn_abi.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CUDA_KERNELS_VERSION 1u

/* The numbers of compute.h's enum activation. */
#define KERNEL_ACT_NONE       0
#define KERNEL_ACT_SILU       1
#define KERNEL_ACT_GELU       2 /* with the error function */
#define KERNEL_ACT_QUICK_GELU 3

/* A group norm over [B, H, W, C] or [B, tokens, C], or a layer norm over the last dimension of any
 * rank.  v = x | x2 side by side in channels, plus `add`; n = (v - mean) / sqrt(variance + eps) *
 * weight + bias; y = act(n * (1 + scale) + shift).  y may be x where there is no x2. */
struct kernel_norm {
    uint32_t groups; /* group norm only */
    float eps;
    int32_t act;
    uint32_t reserved;
    const attn_tensor *x, *x2;        /* x2 may be absent; group norm only */
    const attn_tensor *weight, *bias; /* [C], each may be absent */
    const attn_tensor *add;           /* [B, C] each, may be absent; group norm only */
    const attn_tensor *scale, *shift; /* [B, C] each, may be absent; group norm only */
    const attn_tensor *y;
};

#define KERNEL_MIX_INPUTS  8
#define KERNEL_MIX_OUTPUTS 4

struct cuda_kernels {
    uint32_t size;    /* sizeof(struct cuda_kernels) */
    uint32_t version; /* CUDA_KERNELS_VERSION */

    /* Static text; never NULL. */
    const char *(*error_text)(int error);

    /* -- norms: norm_group.cu, norm_layer.cu --------------------------------------------------- */
    /* Bytes of scratch that group_norm wants for these shapes, whatever the data pointers, on the
     * device that is current. */
    uint64_t (*group_norm_scratch)(const struct kernel_norm *n);
    /* scratch: that many bytes, aligned to 16; contents undefined before and after. */
    int (*group_norm)(const struct kernel_norm *n, void *scratch, void *stream);
    int (*layer_norm)(const struct kernel_norm *n, void *stream);
    /* y = n * by + add: the end of a spatial norm.  n, y [B,H,W,C]; by, add [B,h,w,C], enlarged to
     * nearest.  y may be n. */
    int (*spatial_modulate)(const attn_tensor *n, const attn_tensor *by, const attn_tensor *add,
                            const attn_tensor *y, void *stream);

    /* -- element by element: elementwise.cu, copy.cu --------------------------------------------
     */
    /* dst = src; dimensions of size 1 in src, and leading ones that it lacks, are broadcast.
     * Transposing copies go through shared memory. */
    int (*copy)(const attn_tensor *src, const attn_tensor *dst, void *stream);
    int (*fill)(float value, const attn_tensor *dst, void *stream);
    /* y = alpha a + beta b.  With beta 0 or b absent, b is not read.  y may be a or b. */
    int (*combine)(float alpha, const attn_tensor *a, float beta, const attn_tensor *b,
                   const attn_tensor *y, void *stream);
    /* y = act(x); y may be x. */
    int (*activate)(int32_t act, const attn_tensor *x, const attn_tensor *y, void *stream);
    /* y = alpha act(x + bias) + beta residual.  bias [last dimension] or absent; residual as y or
     * absent (or beta 0: not read).  y may be x or residual. */
    int (*epilogue)(float alpha, int32_t act, const attn_tensor *x, const attn_tensor *bias,
                    float beta, const attn_tensor *residual, const attn_tensor *y, void *stream);
    /* y = a * gelu(g), [a | g] = x + bias.  x [.., 2 C], bias [2 C] or absent, y [.., C]. */
    int (*geglu)(const attn_tensor *x, const attn_tensor *bias, const attn_tensor *y, void *stream);
    /* y = uncond + *scale (cond - uncond); scale fp32 at the device. */
    int (*guide)(const attn_tensor *uncond, const attn_tensor *cond, const float *scale,
                 const attn_tensor *y, void *stream);
    /* y = guided + *scale (reference - degraded); y may be guided. */
    int (*guide_sag)(const attn_tensor *guided, const attn_tensor *reference,
                     const attn_tensor *degraded, const float *scale, const attn_tensor *y,
                     void *stream);

    /* -- scheduler arithmetic: mix.cu -----------------------------------------------------------
     */
    /* y[o] = sum over i of coefficients[*step][o][i] x[i], fp32 in the order of i, for n_y outputs
     * and n_x inputs at once.  All contiguous and of one number of elements; types may differ.  A
     * coefficient of 0 leaves its input out (a NaN there does no harm).  Each y may be an x of its
     * own type: elements are read before they are written. */
    int (*mix)(uint32_t n_y, const attn_tensor *const *y, uint32_t n_x, const attn_tensor *const *x,
               const float *coefficients, const int32_t *step, void *stream);
    /* y[r * n + i] = table[*step * n + i] for r < repeat, i < n: a step's timestep for each image.
     */
    int (*step_pick)(const float *table, const int32_t *step, int64_t n, int64_t repeat, float *y,
                     void *stream);
    /* *step += by */
    int (*step_advance)(int32_t *step, int32_t by, void *stream);

    /* -- sources: sources.cu --------------------------------------------------------------------
     */
    /* Nearest to y's height and width.  x [B,H,W,C], y [B,H',W',C]. */
    int (*upsample)(const attn_tensor *x, const attn_tensor *y, void *stream);
    /* y[b,n,:] = table[ids[b,n],:] + positions[n,:].  ids int32 [B,N]; positions may be absent.  An
     * id outside the table makes its row NaN: check ids where they are known. */
    int (*embed)(const attn_tensor *ids, const attn_tensor *table, const attn_tensor *positions,
                 const attn_tensor *y, void *stream);
    /* t fp32 [B], y [B, dim]; see compute.h. */
    int (*timestep)(const attn_tensor *t, int32_t flip_sin_to_cos, float freq_shift,
                    const attn_tensor *y, void *stream);

    /* -- self-attention guidance: sag.cu --------------------------------------------------------
     */
    /* compute.h's sag_degrade.  key_mass fp32 or mask_in bytes [B, mh * mw]; x0, out fp32
     * [B,h,w,C], h and w at least 5; out is not x0. */
    int (*sag_degrade)(const attn_tensor *key_mass, int64_t mh, int64_t mw,
                       const attn_tensor *mask_in, const attn_tensor *x0, const attn_tensor *out,
                       void *stream);
};

#define CUDA_KERNELS_SYMBOL "attn_cuda_kernels"
extern const struct cuda_kernels attn_cuda_kernels;

#ifdef __cplusplus
}
#endif

#endif
