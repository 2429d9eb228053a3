#include "guard.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PATTERN = 0xA5 };

int guard_open(struct guard *g, size_t bytes, size_t align, int before)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (bytes + align + page - 1) / page * page;
    memset(g, 0, sizeof *g);
    unsigned char *base =
        mmap(NULL, room + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return -1;
    if (mprotect(base + page, room, PROT_READ | PROT_WRITE)) {
        munmap(base, room + 2 * page);
        return -1;
    }
    g->base = base;
    g->mapped = room + 2 * page;
    g->bytes = bytes;
    memset(base + page, PATTERN, room);
    g->data = before ? base + page : base + page + (room - bytes) / align * align;
    return 0;
}

void guard_close(struct guard *g)
{
    if (g->base)
        munmap(g->base, g->mapped);
    memset(g, 0, sizeof *g);
}

int guard_intact(const struct guard *g)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (const unsigned char *p = g->base + page; p < g->data; p++)
        if (*p != PATTERN)
            return 0;
    for (const unsigned char *p = g->data + g->bytes; p < g->base + g->mapped - page; p++)
        if (*p != PATTERN)
            return 0;
    return 1;
}

void guard_poison(struct guard *g, unsigned char byte)
{
    memset(g->data, byte, g->bytes);
}

uint64_t guard_bits(const struct guard *g)
{
    const uint64_t prime = 1099511628211u; /* FNV-1a, a word at a time */
    uint64_t sum = 1469598103934665603u, word;
    size_t i = 0;
    for (; i + sizeof word <= g->bytes; i += sizeof word) {
        memcpy(&word, g->data + i, sizeof word);
        sum = (sum ^ word) * prime;
    }
    for (; i < g->bytes; i++)
        sum = (sum ^ g->data[i]) * prime;
    return sum;
}

/* -- half precision, by the definition of the formats
 * ------------------------------------------------ */

static float half_to_float(uint16_t h)
{
    int exponent = (h >> 10) & 31, fraction = h & 1023;
    double value;
    if (exponent == 31)
        value = fraction ? NAN : INFINITY;
    else if (exponent == 0)
        value = ldexp(fraction, -24);
    else
        value = ldexp(1024 + fraction, exponent - 25);
    return (float)(h & 0x8000 ? -value : value);
}

/* Rounds half to even at `digits` binary digits, no finer than 2^lowest. */
static double round_to(double x, int digits, int lowest, double largest)
{
    int exponent;
    if (x == 0 || !isfinite(x))
        return x;
    (void)frexp(x, &exponent);
    int step = exponent - digits > lowest ? exponent - digits : lowest;
    double rounded = ldexp(nearbyint(ldexp(x, -step)), step);
    return fabs(rounded) > largest ? copysign(INFINITY, x) : rounded;
}

static uint16_t float_to_half(double x)
{
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    if (isnan(x))
        return (uint16_t)(sign | 0x7E00);
    x = fabs(round_to(x, 11, -24, 65504));
    if (isinf(x))
        return (uint16_t)(sign | 0x7C00);
    if (x < 0x1p-14)
        return (uint16_t)(sign | (uint16_t)ldexp(x, 24));
    int exponent;
    double m = frexp(x, &exponent); /* 0.5 <= m < 1 */
    return (uint16_t)(sign | ((exponent + 14) << 10) | (int)(ldexp(m, 11) - 1024));
}

static uint16_t float_to_bfloat(double x)
{
    float f = (float)round_to(x, 8, -133, 0x1.fep127);
    uint32_t bits;
    memcpy(&bits, &f, 4);
    if (isnan(f))
        bits |= 0x400000;
    return (uint16_t)(bits >> 16);
}

/* -- elements
 * ------------------------------------------------------------------------------------------ */

size_t tensor_element(const attn_tensor *t)
{
    return (size_t)(t->bits / 8) * t->lanes;
}

static unsigned char *address(const attn_tensor *t, const int64_t index[4])
{
    int64_t offset = 0;
    for (uint32_t i = 0; i < t->rank; i++)
        offset += index[i] * t->stride[i];
    return (unsigned char *)t->data + offset * (int64_t)tensor_element(t);
}

double tensor_get(const attn_tensor *t, const int64_t index[4])
{
    const unsigned char *p = address(t, index);
    uint32_t word;
    uint16_t half;
    float f;
    double d;
    if (t->code == ATTN_CODE_FLOAT && t->bits == 64) {
        memcpy(&d, p, 8);
        return d;
    }
    if (t->code == ATTN_CODE_FLOAT && t->bits == 32) {
        memcpy(&f, p, 4);
        return f;
    }
    if (t->bits == 8)
        return *p;
    memcpy(&half, p, 2);
    if (t->code == ATTN_CODE_FLOAT)
        return half_to_float(half);
    word = (uint32_t)half << 16;
    memcpy(&f, &word, 4);
    return f;
}

void tensor_set(const attn_tensor *t, const int64_t index[4], double value)
{
    unsigned char *p = address(t, index);
    if (t->code == ATTN_CODE_FLOAT && t->bits == 64) {
        memcpy(p, &value, 8);
    } else if (t->code == ATTN_CODE_FLOAT && t->bits == 32) {
        float f = (float)value;
        memcpy(p, &f, 4);
    } else if (t->bits == 8) {
        *p = (unsigned char)value;
    } else {
        uint16_t half = t->code == ATTN_CODE_FLOAT ? float_to_half(value) : float_to_bfloat(value);
        memcpy(p, &half, 2);
    }
}

double tensor_round(const attn_tensor *t, double value)
{
    if (t->code == ATTN_CODE_BFLOAT)
        return round_to(value, 8, -133, 0x1.fep127);
    if (t->code == ATTN_CODE_FLOAT && t->bits == 16)
        return round_to(value, 11, -24, 65504);
    return t->bits == 32 ? (double)(float)value : value;
}
