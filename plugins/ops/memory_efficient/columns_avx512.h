/* Blocks of sixteen rows by sixteen columns, turned while they are loaded: shared by the AVX-512
 * and AMX files.  A 128-bit load into a lane needs no shuffle, so lane l of a register takes row
 * 4 l + i, and what is left to do stays within lanes. */

/* Lane l: the 16 bytes at row 4 l + i. */
static ALWAYS_INLINE __m512i lanes_load(const char *p, int64_t stride, int i)
{
    const char *at = p + i * stride;
    __m512i x = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)at));
    x = _mm512_inserti32x4(x, _mm_loadu_si128((const __m128i *)(at + 4 * stride)), 1);
    x = _mm512_inserti32x4(x, _mm_loadu_si128((const __m128i *)(at + 8 * stride)), 2);
    return _mm512_inserti32x4(x, _mm_loadu_si128((const __m128i *)(at + 12 * stride)), 3);
}

/* Whole rows are read once, since rows a multiple of 4 KiB apart share one set of the first-level
 * cache, which holds fewer than sixteen lines. */
static ALWAYS_INLINE void columns_f32(const char *p, int64_t stride, vec r[16])
{
    _Alignas(64) char rows[16 * 64];
    UNROLL
    for (int i = 0; i < 16; i++)
        vec_store((float *)(rows + 64 * i), vec_load((const float *)(p + i * stride)));
    __asm__ volatile("" : : "r"(rows) : "memory"); /* else the copy is looked through */
    UNROLL
    for (int c = 0; c < 16; c += 4) {
        __m512i x[4];
        UNROLL
        for (int i = 0; i < 4; i++)
            x[i] = lanes_load(rows + c * 4, 64, i);
        __m512i a = _mm512_unpacklo_epi32(x[0], x[1]), b = _mm512_unpackhi_epi32(x[0], x[1]);
        __m512i d = _mm512_unpacklo_epi32(x[2], x[3]), e = _mm512_unpackhi_epi32(x[2], x[3]);
        r[c] = _mm512_castsi512_ps(_mm512_unpacklo_epi64(a, d));
        r[c + 1] = _mm512_castsi512_ps(_mm512_unpackhi_epi64(a, d));
        r[c + 2] = _mm512_castsi512_ps(_mm512_unpacklo_epi64(b, e));
        r[c + 3] = _mm512_castsi512_ps(_mm512_unpackhi_epi64(b, e));
    }
}

/* Two columns, four rows of each in a lane, widened. */
static ALWAYS_INLINE void widen_two(__m512i x, enum me_type type, vec r[2])
{
    if (type == ME_BF16) {
        r[0] = _mm512_castsi512_ps(_mm512_unpacklo_epi16(_mm512_setzero_si512(), x));
        r[1] = _mm512_castsi512_ps(_mm512_unpackhi_epi16(_mm512_setzero_si512(), x));
    } else {
        x = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), x);
        r[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(x));
        r[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(x, 1));
    }
}

static ALWAYS_INLINE void columns_half(const char *p, int64_t stride, enum me_type type, vec r[16])
{
    UNROLL
    for (int c = 0; c < 16; c += 8) {
        __m512i x[4];
        UNROLL
        for (int i = 0; i < 4; i++)
            x[i] = lanes_load(p + c * 2, stride, i);
        __m512i a = _mm512_unpacklo_epi16(x[0], x[1]), b = _mm512_unpackhi_epi16(x[0], x[1]);
        __m512i d = _mm512_unpacklo_epi16(x[2], x[3]), e = _mm512_unpackhi_epi16(x[2], x[3]);
        widen_two(_mm512_unpacklo_epi32(a, d), type, r + c);
        widen_two(_mm512_unpackhi_epi32(a, d), type, r + c + 2);
        widen_two(_mm512_unpacklo_epi32(b, e), type, r + c + 4);
        widen_two(_mm512_unpackhi_epi32(b, e), type, r + c + 6);
    }
}

/* Of a mask: all ones where the byte is 0, else 0. */
static ALWAYS_INLINE void columns_bytes(const char *p, int64_t stride, vec r[16])
{
    const __m512i turn = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i x[4];
    UNROLL
    for (int i = 0; i < 4; i++)
        x[i] = lanes_load(p, stride, i);
    __m512i a = _mm512_unpacklo_epi8(x[0], x[1]), b = _mm512_unpackhi_epi8(x[0], x[1]);
    __m512i d = _mm512_unpacklo_epi8(x[2], x[3]), e = _mm512_unpackhi_epi8(x[2], x[3]);
    x[0] = _mm512_unpacklo_epi16(a, d); /* four columns in a lane, four rows of each */
    x[1] = _mm512_unpackhi_epi16(a, d);
    x[2] = _mm512_unpacklo_epi16(b, e);
    x[3] = _mm512_unpackhi_epi16(b, e);
    UNROLL
    for (int i = 0; i < 4; i++) {
        __m512i four = _mm512_permutexvar_epi32(turn, x[i]);
        uint64_t hidden = _mm512_testn_epi8_mask(four, four);
        UNROLL
        for (int c = 0; c < 4; c++)
            r[4 * i + c] = _mm512_castsi512_ps(_mm512_movm_epi32((__mmask16)(hidden >> 16 * c)));
    }
}

static ALWAYS_INLINE void vec_columns(const char *p, int64_t stride, enum me_type type, vec r[16])
{
    if (type == ME_F32)
        columns_f32(p, stride, r);
    else if (type == ME_BYTES)
        columns_bytes(p, stride, r);
    else
        columns_half(p, stride, type, r);
}

/* x, or minus infinity where the mask is negative. */
static ALWAYS_INLINE vec vec_hide(vec x, vec mask)
{
    __mmask16 hidden = _mm512_movepi32_mask(_mm512_castps_si512(mask));
    return _mm512_mask_mov_ps(x, hidden, _mm512_set1_ps(-__builtin_inff()));
}
