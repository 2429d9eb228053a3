/* memory_efficient with AVX2, FMA and F16C: 24 queries by 4 keys in 12 registers. */
#include <cpuid.h>
#include <immintrin.h>

#include "memory_efficient.h"

#define LANES 8
#define NV    3
#define GROUP 4

typedef __m256 vec;

#define vec_load(p)      _mm256_loadu_ps(p)
#define vec_store(p, x)  _mm256_storeu_ps(p, x)
#define vec_set1(x)      _mm256_set1_ps(x)
#define vec_add(a, b)    _mm256_add_ps(a, b)
#define vec_sub(a, b)    _mm256_sub_ps(a, b)
#define vec_mul(a, b)    _mm256_mul_ps(a, b)
#define vec_max(a, b)    _mm256_max_ps(a, b)
#define vec_fma(a, b, c) _mm256_fmadd_ps(a, b, c)

static inline float vec_sum(vec x)
{
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline vec vec_shield(vec x)
{
    return _mm256_and_ps(x, _mm256_cmp_ps(x, _mm256_set1_ps(-__builtin_inff()), _CMP_NEQ_UQ));
}

/* exp(x) = 2^n 2^f with n the nearest integer to x log2 e: a polynomial of degree 5 on
 * |f| <= 1/2, off by 9e-8 at most and exactly 1 at 0. Below -87 the result is 0; NaN stays NaN. */
static inline vec vec_exp(vec x)
{
    const vec log2e = _mm256_set1_ps(0x1.715476p0f), magic = _mm256_set1_ps(0x1.8p23f);
    vec alive = _mm256_cmp_ps(x, _mm256_set1_ps(-87.0f), _CMP_NLT_UQ);
    vec shifted = _mm256_fmadd_ps(x, log2e, magic);
    vec f = _mm256_fmsub_ps(x, log2e, _mm256_sub_ps(shifted, magic));
    vec p = _mm256_set1_ps(0x1.5bba14p-10f);
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0x1.3cea88p-7f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0x1.c6b752p-5f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0x1.ebf9bcp-3f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0x1.62e42ap-1f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.0f));
    /* The integer stands in the low bits of the shifted number; as an exponent it is 2^n. A NaN
     * keeps p a NaN, whatever is added to the exponent is replaced by the multiplication. */
    __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    vec power = _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(127 << 23)));
    return _mm256_and_ps(_mm256_mul_ps(p, power), alive);
}

#include "v8_avx.h"

/* Bytes of a mask, transposed as bytes: minus one where 0, else 0, as integers. */
static ALWAYS_INLINE void byte_columns(const char *p, int64_t stride, v8 r[8])
{
    __m128i x[8], t[4], pairs[4];
    for (int i = 0; i < 8; i++)
        x[i] = _mm_loadl_epi64((const __m128i *)(p + i * stride));
    for (int i = 0; i < 4; i++)
        t[i] = _mm_unpacklo_epi8(x[2 * i], x[2 * i + 1]);
    __m128i a = _mm_unpacklo_epi16(t[0], t[1]), b = _mm_unpackhi_epi16(t[0], t[1]);
    __m128i c = _mm_unpacklo_epi16(t[2], t[3]), d = _mm_unpackhi_epi16(t[2], t[3]);
    pairs[0] = _mm_unpacklo_epi32(a, c);
    pairs[1] = _mm_unpackhi_epi32(a, c);
    pairs[2] = _mm_unpacklo_epi32(b, d);
    pairs[3] = _mm_unpackhi_epi32(b, d);
    for (int i = 0; i < 4; i++) {
        __m128i hidden = _mm_cmpeq_epi8(pairs[i], _mm_setzero_si128());
        r[2 * i] = _mm256_castsi256_ps(_mm256_cvtepi8_epi32(hidden));
        r[2 * i + 1] = _mm256_castsi256_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(hidden, 8)));
    }
}

static ALWAYS_INLINE void vec_columns(const char *p, int64_t stride, enum me_type type, vec r[8])
{
    if (type == ME_BYTES)
        byte_columns(p, stride, r);
    else
        v8_columns(p, stride, type, r);
}

/* x, or minus infinity where the mask is negative. */
static inline vec vec_hide(vec x, vec mask)
{
    return _mm256_blendv_ps(x, _mm256_set1_ps(-__builtin_inff()), mask);
}

static int kernels_usable(void)
{
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

#include "products.h"
#include "tiles.h"

const struct me_kernels memory_efficient_avx2 = {
    .name = "avx2",
    .usable = kernels_usable,
    .rows = ROWS,
    .block_rows = 384,
    .block_bytes = 1 << 20,
    .scratch = tiles_scratch,
    .attend = tiles_attend,
    .mass = tiles_mass,
};
