/* What the launcher tells a kernel: one attention problem in device pointers, elements and strides.
 *
 * Plain C, shared by the launcher and the kernels. Strides are in elements; the head dimension is
 * contiguous wherever a kernel family demands it (see flash_select.h).
 */
#ifndef FLASH_KERNEL_H
#define FLASH_KERNEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct flash_view {
    void *data;
    int64_t batch, head, row, col; /* strides, in elements */
} flash_view;

typedef struct flash_problem {
    flash_view q, k, v, out;
    flash_view bias,
        mask;            /* data NULL: none; stride 0 broadcasts; rows are queries, columns keys */
    flash_view lse;      /* fp32 [B, H, Nq]: col is unused */
    flash_view key_mass; /* fp32 [B, Nk]: batch and col */
    flash_view probs;    /* fp32 [B, H, Nq, Nk] */
    int32_t b, h, hkv, nq, nk, d, dv;
    int32_t dtype; /* FLASH_F32, FLASH_F16, FLASH_BF16 */
    int32_t bias_dtype;
    int32_t band; /* non-zero: key j is seen by query i iff band_lo <= j - i <= band_hi */
    int64_t band_lo, band_hi;
    float scale;
    float *stats; /* fp32: [B, H, Nq, 2], each row's shift (log2) and sum, for the second pass */
    void *staged; /* fp32: its operands in parts (flash_split.h) */
    void *scratch;
} flash_problem;

enum { FLASH_F32, FLASH_F16, FLASH_BF16 };

#ifdef __cplusplus
}
#endif

#endif
