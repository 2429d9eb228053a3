/* memory_efficient in plain C: eight lanes as an array, which compilers vectorise where they can.
 */
#include <stdint.h>
#include <string.h>

#include "half.h"
#include "memory_efficient.h"

#define LANES 8
#define NV    1
#define GROUP 4

typedef struct {
    float f[LANES];
} vec;

#define VEC_EACH(expression)                                                                       \
    vec y;                                                                                         \
    for (int i = 0; i < LANES; i++)                                                                \
        y.f[i] = (expression);                                                                     \
    return y

static inline vec vec_load(const float *p)
{
    VEC_EACH(p[i]);
}

static inline void vec_store(float *p, vec x)
{
    memcpy(p, x.f, sizeof x.f);
}

static inline vec vec_set1(float x)
{
    VEC_EACH(x);
}

static inline vec vec_add(vec a, vec b)
{
    VEC_EACH(a.f[i] + b.f[i]);
}

static inline vec vec_sub(vec a, vec b)
{
    VEC_EACH(a.f[i] - b.f[i]);
}

static inline vec vec_mul(vec a, vec b)
{
    VEC_EACH(a.f[i] * b.f[i]);
}

static inline vec vec_fma(vec a, vec b, vec c)
{
    VEC_EACH(a.f[i] * b.f[i] + c.f[i]);
}

static inline vec vec_max(vec a, vec b)
{
    VEC_EACH(a.f[i] > b.f[i] ? a.f[i] : b.f[i]);
}

static inline vec vec_shield(vec x)
{
    VEC_EACH(x.f[i] == -__builtin_inff() ? 0.0f : x.f[i]);
}

static inline float vec_sum(vec x)
{
    float a = (x.f[0] + x.f[4]) + (x.f[2] + x.f[6]);
    return a + ((x.f[1] + x.f[5]) + (x.f[3] + x.f[7]));
}

/* As the vector files have it: 2^n 2^f, a polynomial of degree 5. */
static inline float exp_scalar(float x)
{
    float shifted = x * 0x1.715476p0f + 0x1.8p23f;
    float f = x * 0x1.715476p0f - (shifted - 0x1.8p23f);
    float p = 0x1.5bba14p-10f;
    p = p * f + 0x1.3cea88p-7f;
    p = p * f + 0x1.c6b752p-5f;
    p = p * f + 0x1.ebf9bcp-3f;
    p = p * f + 0x1.62e42ap-1f;
    p = p * f + 1.0f;
    float power = float_from_bits((float_bits(shifted) << 23) + (127u << 23));
    return x < -87.0f ? 0.0f : p * power;
}

static inline vec vec_exp(vec x)
{
    VEC_EACH(exp_scalar(x.f[i]));
}

typedef vec v8;

#define v8_set1(x)   vec_set1(x)
#define v8_add(a, b) vec_add(a, b)
#define v8_mul(a, b) vec_mul(a, b)

static inline v8 v8_load(const char *p, enum me_type type)
{
    v8 y;
    uint16_t h[LANES];
    if (type == ME_F32) {
        memcpy(y.f, p, sizeof y.f);
    } else {
        memcpy(h, p, sizeof h);
        for (int i = 0; i < LANES; i++)
            y.f[i] = type == ME_F16 ? fp16_to_float(h[i]) : bf16_to_float(h[i]);
    }
    return y;
}

static inline void v8_store(char *p, enum me_type type, v8 x)
{
    uint16_t h[LANES];
    if (type == ME_F32) {
        memcpy(p, x.f, sizeof x.f);
        return;
    }
    for (int i = 0; i < LANES; i++)
        h[i] = type == ME_F16 ? fp16_from_float(x.f[i]) : bf16_from_float(x.f[i]);
    memcpy(p, h, sizeof h);
}

static inline vec vec_hide(vec x, vec mask)
{
    VEC_EACH(mask.f[i] < 0.0f ? -__builtin_inff() : x.f[i]);
}

static inline void v8_transpose(v8 r[8])
{
    for (int i = 0; i < 8; i++)
        for (int j = i + 1; j < 8; j++) {
            float t = r[i].f[j];
            r[i].f[j] = r[j].f[i];
            r[j].f[i] = t;
        }
}

#define vec_columns(p, stride, type, r) v8_columns(p, stride, type, r)

static inline void v8_columns(const char *p, int64_t stride, enum me_type type, v8 r[8])
{
    for (int i = 0; i < 8; i++)
        if (type != ME_BYTES)
            r[i] = v8_load(p + i * stride, type);
        else
            for (int j = 0; j < 8; j++)
                r[i].f[j] = p[i * stride + j] ? 0.0f : -1.0f;
    v8_transpose(r);
}

static int kernels_usable(void)
{
    return 1;
}

#include "products.h"
#include "tiles.h"

const struct me_kernels memory_efficient_c = {
    .name = "c",
    .usable = kernels_usable,
    .rows = ROWS,
    .block_rows = 384,
    .block_bytes = 1 << 20,
    .scratch = tiles_scratch,
    .attend = tiles_attend,
    .mass = tiles_mass,
};
