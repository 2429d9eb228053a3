/* Moving tiles between the caller's strided tensors and the kernels' layouts.
 *
 * Included by tiles.h, after the instruction set's file has defined
 *   v8                          eight floats
 *   v8_load(p, type)            eight adjacent elements, widened
 *   v8_store(p, type, v)        the inverse, rounded to nearest even
 *   v8_set1, v8_add, v8_mul
 *   v8_hide(v, mask)            v, or minus infinity where mask is negative
 *   v8_transpose(v8 r[8])       in place
 *   v8_columns(p, stride, type, v8 r[8])
 *                               eight columns of eight rows, `stride` bytes apart; bytes of a mask
 *                               become negative where they are 0
 * Tensors whose columns are not adjacent, and ragged edges, go element by element. */

#include <math.h>
#include <string.h>

#include "half.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

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

static ALWAYS_INLINE void unpack_typed(struct me_matrix out, enum me_type type, const float *ot,
                                       int64_t ld, const float *factor, int64_t rows, int64_t dv)
{
    int64_t fast_rows = out.col == me_type_size(type) ? rows & -8 : 0;
    int64_t fast_cols = dv & -8;
    for (int64_t r = 0; r < fast_rows; r += 8) {
        v8 f = v8_load((const char *)(factor + r), ME_F32);
        for (int64_t c = 0; c < fast_cols; c += 8) {
            v8 x[8];
            UNROLL
            for (int i = 0; i < 8; i++)
                x[i] = v8_mul(v8_load((const char *)(ot + (c + i) * ld + r), ME_F32), f);
            v8_transpose(x);
            UNROLL
            for (int i = 0; i < 8; i++)
                v8_store(out.data + (r + i) * out.row + c * out.col, type, x[i]);
        }
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = r < fast_rows ? fast_cols : 0; c < dv; c++)
            element_store(out.data + r * out.row + c * out.col, type, ot[c * ld + r] * factor[r]);
}

/* out[r][c] = ot[c][r] * factor[r]; a factor of 0 stands for a row that sees no key. */
static void unpack(struct me_matrix out, const float *ot, int64_t ld, const float *factor,
                   int64_t rows, int64_t dv)
{
    if (out.type == ME_F32)
        unpack_typed(out, ME_F32, ot, ld, factor, rows, dv);
    else if (out.type == ME_F16)
        unpack_typed(out, ME_F16, ot, ld, factor, rows, dv);
    else
        unpack_typed(out, ME_BF16, ot, ld, factor, rows, dv);
}

/* s[j][r] += x[r][j], or for bytes: minus infinity where x[r][j] is 0.  A bias or a mask is read
 * once, a few bytes of many rows at a time, which hardware does not foresee: the rows of the next
 * microtile are fetched meanwhile. */
static ALWAYS_INLINE void edit_typed(float *s, int64_t ld, struct me_matrix x, enum me_type type,
                                     int64_t rows, int64_t keys)
{
    int64_t fast_rows = x.col == me_type_size(type) ? rows & -8 : 0;
    int64_t fast_keys = keys & -8;
    for (int64_t r = 0; r < fast_rows; r += 8)
        for (int64_t j = 0; j < fast_keys; j += 8) {
            v8 e[8];
            v8_columns(x.data + r * x.row + j * x.col, x.row, type, e);
            UNROLL
            for (int i = 0; i < 8; i++)
                __builtin_prefetch(x.data + (r + i + ld) * x.row + j * x.col, 0, 2);
            UNROLL
            for (int i = 0; i < 8; i++) {
                float *at = s + (j + i) * ld + r;
                v8 old = v8_load((const char *)at, ME_F32);
                v8_store((char *)at, ME_F32,
                         type == ME_BYTES ? v8_hide(old, e[i]) : v8_add(old, e[i]));
            }
        }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = r < fast_rows ? fast_keys : 0; j < keys; j++) {
            float e = element_load(x.data + r * x.row + j * x.col, type);
            float old = s[j * ld + r];
            s[j * ld + r] = type != ME_BYTES ? old + e : e != 0.0f ? old : -INFINITY;
        }
}

/* The same where x has one row for all queries. */
static void edit_broadcast(float *s, int64_t ld, struct me_matrix x, int64_t rows, int64_t keys)
{
    for (int64_t j = 0; j < keys; j++) {
        float e = element_load(x.data + j * x.col, x.type);
        if (x.type == ME_BYTES && e != 0.0f)
            continue;
        for (int64_t r = 0; r < rows; r++)
            s[j * ld + r] = x.type == ME_BYTES ? -INFINITY : s[j * ld + r] + e;
    }
}

/* Applies a bias, or a mask of bytes, to a tile of scores. */
static void edit(float *s, int64_t ld, struct me_matrix x, int64_t rows, int64_t keys)
{
    if (x.row == 0)
        edit_broadcast(s, ld, x, rows, keys);
    else if (x.type == ME_F32)
        edit_typed(s, ld, x, ME_F32, rows, keys);
    else if (x.type == ME_F16)
        edit_typed(s, ld, x, ME_F16, rows, keys);
    else if (x.type == ME_BF16)
        edit_typed(s, ld, x, ME_BF16, rows, keys);
    else
        edit_typed(s, ld, x, ME_BYTES, rows, keys);
}
