#include "random.h"

#include <math.h>

enum { STATE_WORDS = 624, STATE_SHIFT = 397, BLOCK = 16 };

static const double pi = 3.14159265358979323846;

void random_seed(random_generator *generator, uint64_t seed)
{
    uint32_t *state = generator->state;
    state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < STATE_WORDS; i++) {
        state[i] = 1812433253u * (state[i - 1] ^ (state[i - 1] >> 30)) + i;
    }
    generator->next = STATE_WORDS;
    generator->has_cached = 0;
    generator->cached = 0;
}

static void state_advance(uint32_t *state)
{
    for (int i = 0; i < STATE_WORDS; i++) {
        uint32_t mixed = (state[i] & 0x80000000u) | (state[(i + 1) % STATE_WORDS] & 0x7fffffffu);
        uint32_t twist = mixed & 1u ? 0x9908b0dfu : 0;
        state[i] = state[(i + STATE_SHIFT) % STATE_WORDS] ^ (mixed >> 1) ^ twist;
    }
}

uint32_t random_bits(random_generator *generator)
{
    if (generator->next == STATE_WORDS) {
        state_advance(generator->state);
        generator->next = 0;
    }
    uint32_t y = generator->state[generator->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

/* In [0, 1), 24 bits: as many as a float's mantissa holds. */
static float uniform_float(random_generator *generator)
{
    return (float)(random_bits(generator) & 0xffffffu) * 0x1p-24f;
}

/* In [0, 1), 53 bits, the high word drawn first. */
static double uniform_double(random_generator *generator)
{
    uint64_t high = random_bits(generator);
    uint64_t both = high << 32 | random_bits(generator);
    return (double)(both & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

/* Box-Muller on 16 uniforms in place: cosines to the first eight, sines to the others. The angle
 * is rounded to float first, as torch's vector code does; a better angle would be another number.
 */
static void normal_block(float *x)
{
    for (int i = 0; i < BLOCK / 2; i++) {
        float radius = sqrtf(-2.0f * logf(1.0f - x[i]));
        float angle = 2.0f * (float)pi * x[i + BLOCK / 2];
        x[i] = radius * cosf(angle);
        x[i + BLOCK / 2] = radius * sinf(angle);
    }
}

static float normal_single(random_generator *generator)
{
    if (generator->has_cached) {
        generator->has_cached = 0;
        return (float)generator->cached;
    }
    double angle = 2.0 * pi * uniform_double(generator);
    double radius = sqrt(-2.0 * log1p(-uniform_double(generator)));
    generator->cached = radius * sin(angle);
    generator->has_cached = 1;
    return (float)(radius * cos(angle));
}

void random_normal(random_generator *generator, float *out, size_t n)
{
    if (n < BLOCK) {
        for (size_t i = 0; i < n; i++) {
            out[i] = normal_single(generator);
        }
        return;
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = uniform_float(generator);
    }
    for (size_t i = 0; i + BLOCK <= n; i += BLOCK) {
        normal_block(out + i);
    }
    if (n % BLOCK) {
        float *tail = out + n - BLOCK;
        for (int i = 0; i < BLOCK; i++) {
            tail[i] = uniform_float(generator);
        }
        normal_block(tail);
    }
}

/* The nearest number that fp16 holds, ties to even. */
static float half_round(float x)
{
    int exponent;
    if (!(fabsf(x) < INFINITY) || x == 0) {
        return x;
    }
    frexpf(x, &exponent);
    int grain = (exponent < -13 ? -13 : exponent) - 11;
    return ldexpf(rintf(ldexpf(x, -grain)), grain);
}

static float uniform_half(random_generator *generator)
{
    return (float)(random_bits(generator) & 0x7ffu) * 0x1p-11f;
}

/* As normal_block, each step rounded to fp16 as torch's arithmetic of halves rounds it. */
static void normal_block_half(float *x)
{
    for (int i = 0; i < BLOCK / 2; i++) {
        float logarithm = half_round(logf(half_round(1.0f - x[i])));
        float radius = half_round(sqrtf(half_round(-2.0f * logarithm)));
        float angle = half_round((float)(2.0 * pi * (double)x[i + BLOCK / 2]));
        x[i] = half_round(radius * half_round(cosf(angle)));
        x[i + BLOCK / 2] = half_round(radius * half_round(sinf(angle)));
    }
}

void random_normal_half(random_generator *generator, float *out, size_t n)
{
    if (n < BLOCK) {
        for (size_t i = 0; i < n; i++) {
            out[i] = half_round(normal_single(generator));
        }
        return;
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = uniform_half(generator);
    }
    for (size_t i = 0; i + BLOCK <= n; i += BLOCK) {
        normal_block_half(out + i);
    }
    if (n % BLOCK) {
        float *tail = out + n - BLOCK;
        for (int i = 0; i < BLOCK; i++) {
            tail[i] = uniform_half(generator);
        }
        normal_block_half(tail);
    }
}
