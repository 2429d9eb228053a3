/* fp16 and bf16 to fp32 and back, round to nearest even; NaN stays NaN, subnormals are kept. */
#ifndef ATTN_COMMON_HALF_H
#define ATTN_COMMON_HALF_H

#include <stdint.h>
#include <string.h>

static inline float float_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t float_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float bf16_to_float(uint16_t h)
{
    return float_from_bits((uint32_t)h << 16);
}

static inline uint16_t bf16_from_float(float f)
{
    uint32_t bits = float_bits(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline float fp16_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t magnitude = h & 0x7fffu;
    if (magnitude >= 0x7c00u)
        return float_from_bits(sign | 0x7f800000u | magnitude << 13);
    if (magnitude < 0x0400u) {
        float f = (float)magnitude * 0x1p-24f;
        return sign ? -f : f;
    }
    return float_from_bits(sign | ((magnitude << 13) + (112u << 23)));
}

static inline uint16_t fp16_from_float(float f)
{
    uint32_t bits = float_bits(f);
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x1ffu));
    if (magnitude >= 0x477ff000u) /* rounds to 65536 or is larger */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {
        /* Below 2^-14 the last bit is worth 2^-24: adding 0.5 lines it up with an ulp of fp32. */
        float shifted = float_from_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (float_bits(shifted) - 0x3f000000u));
    }
    magnitude -= 112u << 23;
    return (uint16_t)(sign | ((magnitude + 0xfffu + (magnitude >> 13 & 1u)) >> 13));
}

#endif
