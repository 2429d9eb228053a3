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

/* s[j][r] += e[j][r], or for bytes: minus infinity where e[j][r] is negative; `keys` columns of a
 * block, each LANES queries. */
static ALWAYS_INLINE void edit_block(float *s, int64_t ld, const char *x, int64_t stride,
                                     enum me_type type, int64_t keys)
{
    vec e[LANES];
    vec_columns(x, stride, type, e);
    UNROLL
    for (int i = 0; i < LANES; i++) {
        float *at = s + i * ld;
        if (i < keys)
            vec_store(at, type == ME_BYTES ? vec_hide(vec_load(at), e[i])
                                           : vec_add(vec_load(at), e[i]));
    }
}

/* The same for a block that is ragged or whose columns are not adjacent. */
static void edit_ragged(float *s, int64_t ld, struct me_matrix x, int64_t rows, int64_t keys)
{
    _Alignas(64) char block[LANES * LANES * sizeof(float)];
    int64_t size = me_type_size(x.type);
    memset(block, x.type == ME_BYTES, sizeof block); /* what changes no score */
    for (int64_t r = 0; r < rows; r++) {
        char *to = block + r * LANES * size;
        if (x.col == size)
            memcpy(to, x.data + r * x.row, (size_t)(keys * size));
        else
            for (int64_t j = 0; j < keys; j++)
                memcpy(to + j * size, x.data + r * x.row + j * x.col, (size_t)size);
    }
    if (x.type == ME_F32)
        edit_block(s, ld, block, LANES * 4, ME_F32, keys);
    else if (x.type == ME_F16)
        edit_block(s, ld, block, LANES * 2, ME_F16, keys);
    else if (x.type == ME_BF16)
        edit_block(s, ld, block, LANES * 2, ME_BF16, keys);
    else
        edit_block(s, ld, block, LANES, ME_BYTES, keys);
}

static ALWAYS_INLINE void edit_typed(float *s, int64_t ld, struct me_matrix x, enum me_type type,
                                     int64_t rows, int64_t keys)
{
    for (int64_t j = 0; j < keys; j += LANES)
        for (int64_t r = 0; r < rows; r += LANES) {
            struct me_matrix at = me_at(x, r, j);
            if (keys - j < LANES || rows - r < LANES || x.col != me_type_size(type)) {
                edit_ragged(s + j * ld + r, ld, at, me_min(LANES, rows - r),
                            me_min(LANES, keys - j));
                continue;
            }
            edit_block(s + j * ld + r, ld, at.data, x.row, type, LANES);
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
