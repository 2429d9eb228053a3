/* Eight floats in an AVX register, for pack.h: shared by the AVX2 and AVX-512 files. */

typedef __m256 v8;

#define v8_set1(x)   _mm256_set1_ps(x)
#define v8_add(a, b) _mm256_add_ps(a, b)
#define v8_mul(a, b) _mm256_mul_ps(a, b)

static ALWAYS_INLINE v8 v8_load(const char *p, enum me_type type)
{
    switch (type) {
    case ME_F32:
        return _mm256_loadu_ps((const float *)p);
    case ME_F16:
        return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
    default:
        return _mm256_castsi256_ps(
            _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
    }
}

static inline __m128i bf16_round(__m256 x)
{
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}

static ALWAYS_INLINE void v8_store(char *p, enum me_type type, v8 x)
{
    if (type == ME_F32)
        _mm256_storeu_ps((float *)p, x);
    else if (type == ME_F16)
        _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    else
        _mm_storeu_si128((__m128i *)p, bf16_round(x));
}

static ALWAYS_INLINE void v8_transpose(v8 r[8])
{
    __m256 a0 = _mm256_unpacklo_ps(r[0], r[1]), a1 = _mm256_unpackhi_ps(r[0], r[1]);
    __m256 a2 = _mm256_unpacklo_ps(r[2], r[3]), a3 = _mm256_unpackhi_ps(r[2], r[3]);
    __m256 a4 = _mm256_unpacklo_ps(r[4], r[5]), a5 = _mm256_unpackhi_ps(r[4], r[5]);
    __m256 a6 = _mm256_unpacklo_ps(r[6], r[7]), a7 = _mm256_unpackhi_ps(r[6], r[7]);
    __m256 b0 = _mm256_shuffle_ps(a0, a2, 0x44), b1 = _mm256_shuffle_ps(a0, a2, 0xee);
    __m256 b2 = _mm256_shuffle_ps(a1, a3, 0x44), b3 = _mm256_shuffle_ps(a1, a3, 0xee);
    __m256 b4 = _mm256_shuffle_ps(a4, a6, 0x44), b5 = _mm256_shuffle_ps(a4, a6, 0xee);
    __m256 b6 = _mm256_shuffle_ps(a5, a7, 0x44), b7 = _mm256_shuffle_ps(a5, a7, 0xee);
    r[0] = _mm256_permute2f128_ps(b0, b4, 0x20);
    r[1] = _mm256_permute2f128_ps(b1, b5, 0x20);
    r[2] = _mm256_permute2f128_ps(b2, b6, 0x20);
    r[3] = _mm256_permute2f128_ps(b3, b7, 0x20);
    r[4] = _mm256_permute2f128_ps(b0, b4, 0x31);
    r[5] = _mm256_permute2f128_ps(b1, b5, 0x31);
    r[6] = _mm256_permute2f128_ps(b2, b6, 0x31);
    r[7] = _mm256_permute2f128_ps(b3, b7, 0x31);
}

/* As v8_columns for fp32: halves of rows are joined by loads, which leaves two stages of shuffles.
 */
static ALWAYS_INLINE void f32_columns(const char *p, int64_t stride, v8 r[8])
{
    for (int half = 0; half < 2; half++) {
        __m256 x[4];
        for (int i = 0; i < 4; i++) {
            const char *at = p + i * stride + half * 16;
            __m256 low = _mm256_castps128_ps256(_mm_loadu_ps((const float *)at));
            x[i] = _mm256_insertf128_ps(low, _mm_loadu_ps((const float *)(at + 4 * stride)), 1);
        }
        __m256 a = _mm256_unpacklo_ps(x[0], x[1]), b = _mm256_unpackhi_ps(x[0], x[1]);
        __m256 c = _mm256_unpacklo_ps(x[2], x[3]), d = _mm256_unpackhi_ps(x[2], x[3]);
        r[4 * half] = _mm256_shuffle_ps(a, c, 0x44);
        r[4 * half + 1] = _mm256_shuffle_ps(a, c, 0xee);
        r[4 * half + 2] = _mm256_shuffle_ps(b, d, 0x44);
        r[4 * half + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
}

static ALWAYS_INLINE void v8_columns(const char *p, int64_t stride, enum me_type type, v8 r[8])
{
    if (type == ME_F32) {
        f32_columns(p, stride, r);
    } else {
        for (int i = 0; i < 8; i++)
            r[i] = v8_load(p + i * stride, type);
        v8_transpose(r);
    }
}
