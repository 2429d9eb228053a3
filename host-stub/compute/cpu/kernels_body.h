/* kernels_body.h: every kernel, for one instruction set.
 *
 * The file that includes it defines
 *   KERNELS, KERNELS_NAME   the table and its name (kernels_avx2, "avx2")
 *   LANES                   floats of a vector
 *   TILE_ROWS               rows of a tile: 2 TILE_ROWS vectors of sums, four of weights and two of
 *                           x fill the registers
 * and is compiled with the flags of that instruction set.  Vectors are the compiler's own
 * (vector_size), so the source knows no instruction but the masks of AVX-512.
 */
#include "kernels.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>
#if defined(__AVX512F__) && LANES == 16
#include <immintrin.h>
#endif

#include "kernels_math.h"

#include "kernels_blocks.h"
#include "kernels_rows.h"
#include "kernels_tile.h"

const struct kernels KERNELS = {
    .name = KERNELS_NAME,
    .lanes = LANES,
    .tile_rows = TILE_ROWS,
    .tile = tile,
    .dots = dots,
    .transpose = transpose,
    .activate = activate,
    .f16_to_f32 = f16_to_f32,
    .bf16_to_f32 = bf16_to_f32,
    .f32_to_f16 = f32_to_f16,
    .f32_to_bf16 = f32_to_bf16,
    .combine = combine,
    .moments = moments,
    .affine = affine,
    .layer_norm = layer_norm,
    .block_in = block_in,
    .block_out = block_out,
};
