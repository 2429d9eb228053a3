/* stored_number.h: one element of a file's tensor as fp32, whatever float type it has; a file
 * promises no alignment. */
#ifndef ATTNPLUG_MODEL_STORED_NUMBER_H
#define ATTNPLUG_MODEL_STORED_NUMBER_H

#include "attn_abi.h"
#include "safetensors.h"

#include <math.h>
#include <string.h>

/* F64, F32, F16 or BF16. */
static inline int stored_is_float(const safetensors_tensor *t)
{
    return (t->dtype.code == ATTN_CODE_FLOAT && t->dtype.bits >= 16) ||
           (t->dtype.code == ATTN_CODE_BFLOAT && t->dtype.bits == 16);
}

static inline float stored_half(uint16_t h)
{
    const int exponent = h >> 10 & 31;
    const float mantissa = (float)(h & 1023);
    float value = exponent ? ldexpf(mantissa + 1024, exponent - 25) : ldexpf(mantissa, -24);
    if (exponent == 31) {
        value = mantissa > 0 ? NAN : INFINITY;
    }
    return h >> 15 ? -value : value;
}

/* Element i of a tensor that stored_is_float. */
static inline float stored_number(const safetensors_tensor *t, uint64_t i)
{
    const char *at = (const char *)t->data + i * (t->dtype.bits / 8u);
    uint16_t half;
    uint32_t bits;
    float single;
    double wide;
    switch (t->dtype.bits) {
    case 64:
        memcpy(&wide, at, sizeof(wide));
        return (float)wide;
    case 32:
        memcpy(&single, at, sizeof(single));
        return single;
    default:
        memcpy(&half, at, sizeof(half));
        if (t->dtype.code != ATTN_CODE_BFLOAT) {
            return stored_half(half);
        }
        bits = (uint32_t)half << 16;
        memcpy(&single, &bits, sizeof(single));
        return single;
    }
}

#endif
