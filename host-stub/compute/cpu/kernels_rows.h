/* kernels_rows.h: what is done to rows of numbers.  Part of kernels_body.h.  Loops without vectors
 * of their own are such that compilers vectorise them. */
INLINE float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

INLINE uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

INLINE void activate_row(enum activation act, int64_t n, const float *x, float *y)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vec_store(y + i, vec_activate(act, vec_load(x + i)));
    if (i < n)
        vec_store_part(y + i, vec_activate(act, vec_part(x + i, n - i)), n - i);
}

static void activate(enum activation act, int64_t n, const float *x, float *y)
{
    if (act == ACT_SILU)
        activate_row(ACT_SILU, n, x, y);
    else if (act == ACT_GELU)
        activate_row(ACT_GELU, n, x, y);
    else if (act == ACT_QUICK_GELU)
        activate_row(ACT_QUICK_GELU, n, x, y);
    else if (x != y)
        memmove(y, x, (size_t)n * sizeof *y);
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

/* Exact.  Shifting the bits into place leaves an exponent 112 too small; the product sets it right
 * and makes subnormals normal.  Infinities and NaN get the largest exponent. */
static void f16_to_f32(int64_t n, const uint16_t *x, float *y)
{
    int64_t i = 0;
#if defined(__AVX512F__) && LANES == 16
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(y + i, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(x + i))));
#endif
    for (; i < n; ++i) {
        uint32_t sign = (uint32_t)(x[i] & 0x8000u) << 16;
        uint32_t magnitude = (uint32_t)(x[i] & 0x7FFFu) << 13;
        float scaled = float_of(magnitude) * 0x1p112f;
        uint32_t special = magnitude | 0x7F800000u;
        uint32_t bits = magnitude >= 0x0F800000u ? special : bits_of(scaled);
        y[i] = float_of(bits | sign);
    }
}

static void bf16_to_f32(int64_t n, const uint16_t *x, float *y)
{
    for (int64_t i = 0; i < n; ++i)
        y[i] = float_of((uint32_t)x[i] << 16);
}

/* To nearest, ties to even; above 65520 infinity; NaN stays NaN.  Below 2^-14 adding 0.5 leaves the
 * rounded subnormal in the low bits. */
static void f32_to_f16(int64_t n, const float *x, uint16_t *y)
{
    for (int64_t i = 0; i < n; ++i) {
        uint32_t bits = bits_of(x[i]);
        uint32_t sign = (bits >> 16) & 0x8000u;
        uint32_t a = bits & 0x7FFFFFFFu;
        uint32_t normal = (a - 0x38000000u + 0xFFFu + ((a >> 13) & 1u)) >> 13;
        uint32_t small = bits_of(float_of(a) + 0.5f) - 0x3F000000u;
        uint32_t half = a < 0x38800000u ? small : normal;
        half = a >= 0x477FF000u ? 0x7C00u : half;
        half = a > 0x7F800000u ? 0x7E00u : half;
        y[i] = (uint16_t)(half | sign);
    }
}

static void f32_to_bf16(int64_t n, const float *x, uint16_t *y)
{
    for (int64_t i = 0; i < n; ++i) {
        uint32_t bits = bits_of(x[i]);
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

INLINE void affine_row(enum activation act, int64_t n, const float *x, const float *scale,
                       const float *shift, float *y)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vec v = vec_load(x + i) * vec_load(scale + i) + vec_load(shift + i);
        vec_store(y + i, vec_activate(act, v));
    }
    if (i < n) {
        vec v = vec_part(x + i, n - i) * vec_part(scale + i, n - i) + vec_part(shift + i, n - i);
        vec_store_part(y + i, vec_activate(act, v), n - i);
    }
}

static void affine(enum activation act, int64_t n, const float *x, const float *scale,
                   const float *shift, float *y)
{
    if (act == ACT_NONE)
        affine_row(ACT_NONE, n, x, scale, shift, y);
    else if (act == ACT_SILU)
        affine_row(ACT_SILU, n, x, scale, shift, y);
    else
        affine_row(act, n, x, scale, shift, y);
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
