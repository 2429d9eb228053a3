/* Outputs that lie O'[column][query], turned into the caller's tensor: for products.h, after
 * pack.h.
 */

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
