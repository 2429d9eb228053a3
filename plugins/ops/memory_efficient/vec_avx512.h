/* Sixteen floats: shared by the AVX-512 and AMX files. */

typedef __m512 vec;

#define vec_load(p)      _mm512_loadu_ps(p)
#define vec_store(p, x)  _mm512_storeu_ps(p, x)
#define vec_set1(x)      _mm512_set1_ps(x)
#define vec_add(a, b)    _mm512_add_ps(a, b)
#define vec_sub(a, b)    _mm512_sub_ps(a, b)
#define vec_mul(a, b)    _mm512_mul_ps(a, b)
#define vec_max(a, b)    _mm512_max_ps(a, b)
#define vec_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define vec_sum(x)       _mm512_reduce_add_ps(x)

static inline vec vec_shield(vec x)
{
    __mmask16 seen = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-__builtin_inff()), _CMP_NEQ_UQ);
    return _mm512_maskz_mov_ps(seen, x);
}

/* exp(x) = 2^n 2^f with n the nearest integer to x log2 e: a polynomial of degree 5 on
 * |f| <= 1/2, off by 9e-8 at most and exactly 1 at 0. Below -87 the result is 0; NaN stays NaN. */
static inline vec vec_exp(vec x)
{
    const vec log2e = _mm512_set1_ps(0x1.715476p0f), magic = _mm512_set1_ps(0x1.8p23f);
    __mmask16 alive = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ);
    vec n = _mm512_sub_ps(_mm512_fmadd_ps(x, log2e, magic), magic);
    vec f = _mm512_fmsub_ps(x, log2e, n);
    vec p = _mm512_set1_ps(0x1.5bba14p-10f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.3cea88p-7f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.c6b752p-5f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.ebf9bcp-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.62e42ap-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(alive, p, n);
}
