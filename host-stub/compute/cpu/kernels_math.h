/* kernels_math.h: vectors, and the functions of one number that activations need, a vector at a
 * time.  Part of kernels_body.h. */
typedef float vec __attribute__((vector_size(LANES * 4)));
typedef float vec_any __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t vec_bits __attribute__((vector_size(LANES * 4)));

#define WIDTH  (2 * LANES)
#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

INLINE vec vec_load(const float *x)
{
    return *(const vec_any *)x;
}

INLINE void vec_store(float *y, vec v)
{
    *(vec_any *)y = v;
}

INLINE vec vec_of(float x)
{
    return x - (vec){0};
}

/* n of LANES, 0 after them. */
#if defined(__AVX512F__) && LANES == 16
INLINE vec vec_part(const float *x, int64_t n)
{
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), x);
}

INLINE void vec_store_part(float *y, vec v, int64_t n)
{
    _mm512_mask_storeu_ps(y, (__mmask16)((1u << n) - 1u), (__m512)v);
}
#else
INLINE vec vec_part(const float *x, int64_t n)
{
    float part[LANES] = {0};
    memcpy(part, x, (size_t)n * sizeof *x);
    return vec_load(part);
}

INLINE void vec_store_part(float *y, vec v, int64_t n)
{
    float part[LANES];
    vec_store(part, v);
    memcpy(y, part, (size_t)n * sizeof *y);
}
#endif

/* Where the condition holds (all bits set) a, else b. */
INLINE vec vec_select(vec_bits condition, vec a, vec b)
{
    return (vec)((condition & (vec_bits)a) | (~condition & (vec_bits)b));
}

/* exp within 1.2e-7 of itself; below -87 it stays at 1.6e-38, above 88 at 1.7e38.  x = n ln 2 + r
 * with |r| <= ln 2 / 2, where seven terms of the series do.  Adding 1.5 * 2^23 rounds to n and
 * leaves it in the low bits.  NaN stays NaN. */
INLINE vec vec_exp(vec x)
{
    const vec magic = vec_of(12582912.0f);
    x = vec_select(x < -87.0f, vec_of(-87.0f), x);
    x = vec_select(x > 88.0f, vec_of(88.0f), x);
    vec shifted = x * 1.44269504f + magic;
    vec n = shifted - magic;
    vec r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    vec p = r * (1.0f / 5040.0f) + (1.0f / 720.0f);
    p = p * r + (1.0f / 120.0f);
    p = p * r + (1.0f / 24.0f);
    p = p * r + (1.0f / 6.0f);
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * (vec)(((vec_bits)shifted - (vec_bits)magic + 127) << 23);
}

INLINE vec vec_silu(vec x)
{
    return x / (1.0f + vec_exp(-x));
}

INLINE vec vec_quick_gelu(vec x)
{
    return x / (1.0f + vec_exp(-1.702f * x));
}

/* x Phi(x) with erfc(z) = exp(-z^2) t P(t), t = 1 / (1 + p z): the form of Abramowitz and Stegun
 * 7.1.26, two degrees more, coefficients fitted to a relative 2e-7 over z in [0, 10].  z stops
 * at 9, where the tail is 1e-37: smaller ones would be subnormal, and slow. */
INLINE vec vec_gelu(vec x)
{
    vec z = (vec)((vec_bits)x & 0x7FFFFFFF) * 0.707106781f;
    z = vec_select(z > 9.0f, vec_of(9.0f), z);
    vec t = 1.0f / (1.0f + 0.44f * z);
    vec q = t * 0.07122400f - 0.27795024f;
    q = q * t + 0.29669131f;
    q = q * t - 0.02018417f;
    q = q * t + 0.21581407f;
    q = q * t + 0.21731311f;
    q = q * t + 0.24887127f;
    q = q * t + 0.24822095f;
    vec tail = 0.5f * t * q * vec_exp(-z * z);
    return x * vec_select(x < 0.0f, tail, 1.0f - tail);
}

INLINE vec vec_activate(enum activation act, vec x)
{
    switch (act) {
    case ACT_SILU:
        return vec_silu(x);
    case ACT_GELU:
        return vec_gelu(x);
    case ACT_QUICK_GELU:
        return vec_quick_gelu(x);
    default:
        return x;
    }
}
