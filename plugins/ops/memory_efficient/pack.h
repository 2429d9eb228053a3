/* Moving tiles between the caller's strided tensors and the kernels' layouts.
 *
 * Included by tiles.h, after the instruction set's file has defined
 *   v8                          eight floats
 *   v8_load(p, type)            eight adjacent elements, widened
 *   v8_store(p, type, v)        the inverse, rounded to nearest even
 *   v8_set1, v8_add, v8_mul
 *   v8_transpose(v8 r[8])       in place
 *   v8_columns(p, stride, type, v8 r[8])
 *                               eight columns of eight rows, `stride` bytes apart
 *   vec_columns(p, stride, type, vec r[LANES])
 *                               the same of LANES by LANES; bytes of a mask become negative where
 *                               they are 0
 *   vec_hide(x, mask)           x, or minus infinity where mask is negative
 * Tensors whose columns are not adjacent, and ragged edges, go element by element. */

#include <math.h>
#include <string.h>

#include "half.h"

static inline float element_load(const char *p, enum me_type type)
{
    float f;
    uint16_t h;
    switch (type) {
    case ME_F32:
        memcpy(&f, p, sizeof f);
        return f;
    case ME_F16:
        memcpy(&h, p, sizeof h);
        return fp16_to_float(h);
    case ME_BF16:
        memcpy(&h, p, sizeof h);
        return bf16_to_float(h);
    default:
        return *p ? 1.0f : 0.0f;
    }
}

static inline void element_store(char *p, enum me_type type, float f)
{
    if (type == ME_F32) {
        memcpy(p, &f, sizeof f);
    } else {
        uint16_t h = type == ME_F16 ? fp16_from_float(f) : bf16_from_float(f);
        memcpy(p, &h, sizeof h);
    }
}

/* dst[c][r] = src[r][c] * factor; dst rows are `ld` floats apart. */
static ALWAYS_INLINE void transpose_typed(float *dst, int64_t ld, struct me_matrix src,
                                          enum me_type type, int64_t rows, int64_t cols,
                                          float factor)
{
    int64_t fast_rows = src.col == me_type_size(type) ? rows & -8 : 0;
    int64_t fast_cols = cols & -8;
    for (int64_t r = 0; r < fast_rows; r += 8)
        for (int64_t c = 0; c < fast_cols; c += 8) {
            v8 x[8];
            v8_columns(src.data + r * src.row + c * src.col, src.row, type, x);
            UNROLL
            for (int i = 0; i < 8; i++)
                v8_store((char *)(dst + (c + i) * ld + r), ME_F32, v8_mul(x[i], v8_set1(factor)));
        }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = r < fast_rows ? fast_cols : 0; c < cols; c++)
            dst[c * ld + r] = element_load(src.data + r * src.row + c * src.col, type) * factor;
}

static void transpose(float *dst, int64_t ld, struct me_matrix src, int64_t rows, int64_t cols,
                      float factor)
{
    if (src.type == ME_F32)
        transpose_typed(dst, ld, src, ME_F32, rows, cols, factor);
    else if (src.type == ME_F16)
        transpose_typed(dst, ld, src, ME_F16, rows, cols, factor);
    else
        transpose_typed(dst, ld, src, ME_BF16, rows, cols, factor);
}
