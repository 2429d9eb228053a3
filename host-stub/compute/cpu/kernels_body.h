/* kernels_body.h: the source of every kernel, for one instruction set.
 *
 * The file that includes it defines
 *   KERNELS      the name of the table (kernels_avx2)
 *   LANES        floats of a vector
 *   TILE_ROWS    rows of a tile: 2 TILE_ROWS vectors of sums, and two or more of weights, fill the
 *                registers
 * and is compiled with the flags of that instruction set.  Vectors are the compiler's own
 * (vector_size); loops without them are written so that it vectorises them.
 */
#include "kernels.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef float vec_any __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

#define WIDTH  (2 * LANES)
#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* -- functions of one number ------------------------------------------------------------------ */

INLINE float bits_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

INLINE uint32_t float_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* exp within 1.2e-7 of itself; below -87 it stays at 1.6e-38, above 88 at 1.7e38.  x = n ln 2 + r
 * with |r| <= ln 2 / 2, where seven terms of the series do.  Adding 1.5 * 2^23 rounds to n. */
INLINE float exp_f(float x)
{
    const float magic = 12582912.0f;
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float shifted = x * 1.44269504f + magic;
    float n = shifted - magic;
    float r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * bits_float((float_bits(shifted) - float_bits(magic) + 127u) << 23);
}

INLINE float silu_f(float x)
{
    return x / (1.0f + exp_f(-x));
}

INLINE float quick_gelu_f(float x)
{
    return x / (1.0f + exp_f(-1.702f * x));
}

/* x Phi(x) with erfc(z) = exp(-z^2) t P(t), t = 1 / (1 + p z): the form of Abramowitz and Stegun
 * 7.1.26, two degrees more, coefficients fitted to a relative 2e-7 over z in [0, 10]. */
INLINE float gelu_f(float x)
{
    float z = fabsf(x) * 0.707106781f;
    z = z > 10.0f ? 10.0f : z;
    float t = 1.0f / (1.0f + 0.44f * z);
    float q = 0.07122400f;
    q = q * t - 0.27795024f;
    q = q * t + 0.29669131f;
    q = q * t - 0.02018417f;
    q = q * t + 0.21581407f;
    q = q * t + 0.21731311f;
    q = q * t + 0.24887127f;
    q = q * t + 0.24822095f;
    float tail = 0.5f * t * q * exp_f(-z * z);
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

/* -- matrix product ---------------------------------------------------------------------------- */

/* What becomes of one row's sums.  The panel's whole width is computed, so that loops have constant
 * bounds, and y's columns are stored. */
INLINE void tile_store_row(const struct tile *t, const float *restrict sum, int r, const int width,
                           const bool full)
{
    float v[WIDTH], c[WIDTH];
    for (int j = 0; j < width; ++j)
        v[j] = sum[j] + t->bias[j];
    if (t->activation == ACT_SILU) {
        for (int j = 0; j < width; ++j)
            v[j] = silu_f(v[j]);
    } else if (t->activation == ACT_GELU) {
        for (int j = 0; j < width; ++j)
            v[j] = gelu_f(v[j]);
    } else if (t->activation == ACT_QUICK_GELU) {
        for (int j = 0; j < width; ++j)
            v[j] = quick_gelu_f(v[j]);
    }
    if (t->c) {
        /* c may be y: it is read before y is written. */
        const float *from = t->c[r];
        for (int j = 0; j < width; ++j)
            c[j] = full || j < t->columns ? from[j] : 0.0f;
        for (int j = 0; j < width; ++j)
            v[j] = t->alpha * v[j] + t->beta * c[j];
    } else if (t->alpha != 1.0f) {
        for (int j = 0; j < width; ++j)
            v[j] *= t->alpha;
    }
    memcpy(t->y[r], v, (full ? (size_t)width : (size_t)t->columns) * sizeof *v);
}

INLINE void tile_store_gated(const struct tile *t, const float *restrict sum, int r)
{
    float v[LANES];
    for (int j = 0; j < LANES; ++j)
        v[j] = (sum[j] + t->bias[j]) * gelu_f(sum[LANES + j] + t->bias[LANES + j]);
    memcpy(t->y[r], v, (size_t)t->columns * sizeof *v);
}

INLINE void tile_store(const struct tile *t, const float *sum, const int rows, const int width)
{
    if (width == WIDTH && t->gated) {
        for (int r = 0; r < rows; ++r)
            tile_store_gated(t, sum + (ptrdiff_t)r * width, r);
    } else if (t->columns == width) {
        for (int r = 0; r < rows; ++r)
            tile_store_row(t, sum + (ptrdiff_t)r * width, r, width, true);
    } else {
        for (int r = 0; r < rows; ++r)
            tile_store_row(t, sum + (ptrdiff_t)r * width, r, width, false);
    }
}

/* rows and vectors are constants at each place where this is inlined, so that the sums live in
 * registers.  Two depths at a time: row pointers are loaded half as often. */
INLINE void tile_body(const struct tile *t, const int rows, const int vectors)
{
    vec sum[TILE_ROWS][2];
    UNROLL for (int r = 0; r < rows; ++r)
    {
        sum[r][0] = (vec){0};
        sum[r][1] = (vec){0};
    }
    const float *w = t->panel;
    for (int s = 0; s < t->segments; ++s) {
        const float *const *x = t->x + (ptrdiff_t)s * TILE_ROWS_MAX;
        const int64_t depth = t->depth[t->parts == 2 ? s & 1 : 0];
        int64_t k = 0;
        for (; k + 2 <= depth; k += 2, w += 2 * vectors * LANES) {
            vec a0 = *(const vec_any *)w, b0 = *(const vec_any *)(w + vectors * LANES);
            vec a1, b1;
            if (vectors == 2) {
                a1 = *(const vec_any *)(w + LANES);
                b1 = *(const vec_any *)(w + 3 * LANES);
            }
            UNROLL for (int r = 0; r < rows; ++r)
            {
                const float *xr = x[r] + k;
                sum[r][0] += xr[0] * a0;
                if (vectors == 2)
                    sum[r][1] += xr[0] * a1;
                sum[r][0] += xr[1] * b0;
                if (vectors == 2)
                    sum[r][1] += xr[1] * b1;
            }
        }
        if (k < depth) {
            vec a0 = *(const vec_any *)w, a1;
            if (vectors == 2)
                a1 = *(const vec_any *)(w + LANES);
            UNROLL for (int r = 0; r < rows; ++r)
            {
                sum[r][0] += x[r][k] * a0;
                if (vectors == 2)
                    sum[r][1] += x[r][k] * a1;
            }
            w += vectors * LANES;
        }
    }
    float out[TILE_ROWS * WIDTH] __attribute__((aligned(64)));
    UNROLL for (int r = 0; r < rows; ++r)
    {
        *(vec_any *)(out + (ptrdiff_t)r * vectors * LANES) = sum[r][0];
        if (vectors == 2)
            *(vec_any *)(out + (ptrdiff_t)r * WIDTH + LANES) = sum[r][1];
    }
    tile_store(t, out, rows, vectors * LANES);
}

#define TILE(n)                                                                                    \
    static void tile_##n##_1(const struct tile *t)                                                 \
    {                                                                                              \
        tile_body(t, n, 1);                                                                        \
    }                                                                                              \
    static void tile_##n##_2(const struct tile *t)                                                 \
    {                                                                                              \
        tile_body(t, n, 2);                                                                        \
    }

TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)
#if TILE_ROWS > 6
TILE(7)
TILE(8)
TILE(9)
TILE(10)
TILE(11)
TILE(12)
#endif
#if TILE_ROWS > 12
TILE(13)
TILE(14)
#endif

#define TILE_PAIR(n)                                                                               \
    {                                                                                              \
        tile_##n##_1, tile_##n##_2                                                                 \
    }
static void (*const tiles[][2])(const struct tile *) = {
    TILE_PAIR(1),  TILE_PAIR(2),  TILE_PAIR(3), TILE_PAIR(4),  TILE_PAIR(5),  TILE_PAIR(6),
#if TILE_ROWS > 6
    TILE_PAIR(7),  TILE_PAIR(8),  TILE_PAIR(9), TILE_PAIR(10), TILE_PAIR(11), TILE_PAIR(12),
#endif
#if TILE_ROWS > 12
    TILE_PAIR(13), TILE_PAIR(14),
#endif
};

static void tile(const struct tile *t)
{
    tiles[t->rows - 1][t->vectors - 1](t);
}

INLINE float vec_sum(vec v)
{
    float s = 0.0f;
    UNROLL for (int i = 0; i < LANES; ++i) s += v[i];
    return s;
}

/* Four weights rows at a time against m rows of x, along the depth. */
INLINE void dots_body(const int m, int64_t n, int64_t k, const float *const *x, const float *w,
                      int64_t w_stride, float *const *y)
{
    for (int64_t j = 0; j < n; j += 4) {
        const int64_t here = n - j < 4 ? n - j : 4;
        const float *rows[4];
        for (int64_t i = 0; i < 4; ++i)
            rows[i] = w + (j + (i < here ? i : here - 1)) * w_stride;
        vec sum[4][4];
        UNROLL for (int i = 0; i < 4; ++i)
        {
            UNROLL for (int r = 0; r < m; ++r) sum[i][r] = (vec){0};
        }
        int64_t d = 0;
        for (; d + LANES <= k; d += LANES) {
            UNROLL for (int i = 0; i < 4; ++i)
            {
                vec wv = *(const vec_any *)(rows[i] + d);
                UNROLL for (int r = 0; r < m; ++r) sum[i][r] += wv * *(const vec_any *)(x[r] + d);
            }
        }
        for (int64_t i = 0; i < here; ++i) {
            for (int r = 0; r < m; ++r) {
                float total = vec_sum(sum[i][r]);
                for (int64_t e = d; e < k; ++e)
                    total += rows[i][e] * x[r][e];
                y[r][j + i] = total;
            }
        }
    }
}

static void dots(int64_t m, int64_t n, int64_t k, const float *const *x, const float *w,
                 int64_t w_stride, float *const *y)
{
    switch (m) {
    case 1:
        dots_body(1, n, k, x, w, w_stride, y);
        break;
    case 2:
        dots_body(2, n, k, x, w, w_stride, y);
        break;
    case 3:
        dots_body(3, n, k, x, w, w_stride, y);
        break;
    default:
        dots_body(4, n, k, x, w, w_stride, y);
        break;
    }
}

typedef float quad __attribute__((vector_size(16)));
typedef float quad_any __attribute__((vector_size(16), aligned(4), may_alias));
#ifdef __clang__
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t quad_index __attribute__((vector_size(16)));
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (quad_index){i, j, k, l})
#endif

/* Four by four at a time. */
static void transpose(const float *src, int64_t stride, int64_t n, int64_t fill, int64_t depth,
                      float *dst, int64_t width)
{
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const float *s0 = src + i * stride, *s1 = s0 + stride, *s2 = s1 + stride, *s3 = s2 + stride;
        int64_t k = 0;
        for (; k + 4 <= depth; k += 4) {
            quad a = *(const quad_any *)(s0 + k), b = *(const quad_any *)(s1 + k);
            quad c = *(const quad_any *)(s2 + k), d = *(const quad_any *)(s3 + k);
            quad ab_low = SHUFFLE(a, b, 0, 4, 1, 5), ab_high = SHUFFLE(a, b, 2, 6, 3, 7);
            quad cd_low = SHUFFLE(c, d, 0, 4, 1, 5), cd_high = SHUFFLE(c, d, 2, 6, 3, 7);
            float *to = dst + k * width + i;
            *(quad_any *)to = SHUFFLE(ab_low, cd_low, 0, 1, 4, 5);
            *(quad_any *)(to + width) = SHUFFLE(ab_low, cd_low, 2, 3, 6, 7);
            *(quad_any *)(to + 2 * width) = SHUFFLE(ab_high, cd_high, 0, 1, 4, 5);
            *(quad_any *)(to + 3 * width) = SHUFFLE(ab_high, cd_high, 2, 3, 6, 7);
        }
        for (; k < depth; ++k) {
            float *to = dst + k * width + i;
            to[0] = s0[k];
            to[1] = s1[k];
            to[2] = s2[k];
            to[3] = s3[k];
        }
    }
    for (; i < fill; ++i) {
        for (int64_t k = 0; k < depth; ++k)
            dst[k * width + i] = i < n ? src[i * stride + k] : 0.0f;
    }
}

/* -- rows -------------------------------------------------------------------------------------- */

static void activate(enum activation act, int64_t n, const float *x, float *y)
{
    switch (act) {
    case ACT_SILU:
        for (int64_t i = 0; i < n; ++i)
            y[i] = silu_f(x[i]);
        break;
    case ACT_GELU:
        for (int64_t i = 0; i < n; ++i)
            y[i] = gelu_f(x[i]);
        break;
    case ACT_QUICK_GELU:
        for (int64_t i = 0; i < n; ++i)
            y[i] = quick_gelu_f(x[i]);
        break;
    default:
        if (x != y)
            memmove(y, x, (size_t)n * sizeof *y);
        break;
    }
}

/* Exact.  Shifting the bits into place leaves an exponent 112 too small; the product sets it right
 * and makes subnormals normal.  Infinities and NaN get the largest exponent. */
static void f16_to_f32(int64_t n, const uint16_t *x, float *y)
{
    for (int64_t i = 0; i < n; ++i) {
        uint32_t sign = (uint32_t)(x[i] & 0x8000u) << 16;
        uint32_t magnitude = (uint32_t)(x[i] & 0x7FFFu) << 13;
        float scaled = bits_float(magnitude) * 0x1p112f;
        uint32_t special = magnitude | 0x7F800000u;
        uint32_t bits = magnitude >= 0x0F800000u ? special : float_bits(scaled);
        y[i] = bits_float(bits | sign);
    }
}

static void bf16_to_f32(int64_t n, const uint16_t *x, float *y)
{
    for (int64_t i = 0; i < n; ++i)
        y[i] = bits_float((uint32_t)x[i] << 16);
}

/* To nearest, ties to even; above 65520 infinity; NaN stays NaN.  Below 2^-14 adding 0.5 leaves the
 * rounded subnormal in the low bits. */
static void f32_to_f16(int64_t n, const float *x, uint16_t *y)
{
    for (int64_t i = 0; i < n; ++i) {
        uint32_t bits = float_bits(x[i]);
        uint32_t sign = (bits >> 16) & 0x8000u;
        uint32_t a = bits & 0x7FFFFFFFu;
        uint32_t normal = (a - 0x38000000u + 0xFFFu + ((a >> 13) & 1u)) >> 13;
        uint32_t small = float_bits(bits_float(a) + 0.5f) - 0x3F000000u;
        uint32_t half = a < 0x38800000u ? small : normal;
        half = a >= 0x477FF000u ? 0x7C00u : half;
        half = a > 0x7F800000u ? 0x7E00u : half;
        y[i] = (uint16_t)(half | sign);
    }
}

static void f32_to_bf16(int64_t n, const float *x, uint16_t *y)
{
    for (int64_t i = 0; i < n; ++i) {
        uint32_t bits = float_bits(x[i]);
        uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
        y[i] = (uint16_t)((bits & 0x7FFFFFFFu) > 0x7F800000u ? (bits >> 16) | 0x40u : rounded);
    }
}

static void combine(int64_t n, float alpha, const float *a, float beta, const float *b, float *y)
{
    for (int64_t i = 0; i < n; ++i)
        y[i] = alpha * a[i] + beta * b[i];
}

static void moments(int64_t rows, int64_t n, const float *x, int64_t stride, double *restrict sum,
                    double *restrict square)
{
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        const float *a = x + r * stride, *b = a + stride, *c = b + stride, *d = c + stride;
        for (int64_t i = 0; i < n; ++i) {
            double p = a[i], q = b[i], s = c[i], t = d[i];
            sum[i] += (p + q) + (s + t);
            square[i] += (p * p + q * q) + (s * s + t * t);
        }
    }
    for (; r < rows; ++r) {
        const float *a = x + r * stride;
        for (int64_t i = 0; i < n; ++i) {
            double p = a[i];
            sum[i] += p;
            square[i] += p * p;
        }
    }
}

static void affine(enum activation act, int64_t n, const float *x, const float *restrict scale,
                   const float *restrict shift, float *y)
{
    if (act == ACT_SILU) {
        for (int64_t i = 0; i < n; ++i)
            y[i] = silu_f(x[i] * scale[i] + shift[i]);
        return;
    }
    for (int64_t i = 0; i < n; ++i)
        y[i] = x[i] * scale[i] + shift[i];
    if (act != ACT_NONE)
        activate(act, n, y, y);
}

static void layer_norm(int64_t n, float eps, const float *x, const float *weight, const float *bias,
                       float *y)
{
    double sum[8] = {0}, square[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (int j = 0; j < 8; ++j) {
            double v = x[i + j];
            sum[j] += v;
            square[j] += v * v;
        }
    }
    for (; i < n; ++i) {
        double v = x[i];
        sum[0] += v;
        square[0] += v * v;
    }
    double total = 0.0, squares = 0.0;
    for (int j = 0; j < 8; ++j) {
        total += sum[j];
        squares += square[j];
    }
    double mean = total / (double)n;
    double variance = squares / (double)n - mean * mean;
    double inverse = 1.0 / sqrt((variance > 0.0 ? variance : 0.0) + (double)eps);
    const float scale = (float)inverse, middle = (float)mean;
    if (weight && bias) {
        for (i = 0; i < n; ++i)
            y[i] = (x[i] - middle) * scale * weight[i] + bias[i];
        return;
    }
    for (i = 0; i < n; ++i)
        y[i] = (x[i] - middle) * scale;
    for (i = 0; weight && i < n; ++i)
        y[i] *= weight[i];
    for (i = 0; bias && i < n; ++i)
        y[i] += bias[i];
}

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
};
