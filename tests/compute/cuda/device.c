#include "device.h"

#include <cuda_runtime_api.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 0x9E3779B97F4A7C15u;

double uniform(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) * 0x1p-53;
}

/* The sum of four has deviation 1 at 12 / 4: near enough to normal, and quick. */
static double normal(void)
{
    double sum = uniform() + uniform() + uniform() + uniform() - 2.0;
    return sum * sqrt(3.0);
}

static void check(cudaError_t error, const char *what)
{
    if (error != cudaSuccess)
        fail_msg("%s: %s", what, cudaGetErrorString(error));
}

void expect_launched(int error, const char *what)
{
    if (error)
        fail_msg("%s: %s", what, attn_cuda_kernels.error_text(error));
}

void *device_take(size_t bytes)
{
    void *data = NULL;
    check(cudaMalloc(&data, bytes ? bytes : 1), "cudaMalloc");
    check(cudaMemset(data, 0xFF, bytes), "cudaMemset");
    return data;
}

void device_free(void *data)
{
    check(cudaFree(data), "cudaFree");
}

double *doubles(int64_t n)
{
    double *d = calloc((size_t)n + 1, sizeof *d);
    assert_non_null(d);
    return d;
}

static size_t size_of(enum dtype type)
{
    return type == F32 || type == I32 ? 4 : type == U8 ? 1 : 2;
}

static attn_tensor typed(enum dtype type)
{
    static const uint8_t codes[] = {ATTN_CODE_FLOAT, ATTN_CODE_FLOAT, ATTN_CODE_BFLOAT,
                                    ATTN_CODE_INT, ATTN_CODE_UINT};
    return (attn_tensor){.device_type = ATTN_DEVICE_CUDA,
                         .code = codes[type],
                         .bits = (uint8_t)(8 * size_of(type)),
                         .lanes = 1};
}

/* Strides of a layout; returns the elements that it spans, *first the place of element 0. */
static int64_t lay_out(attn_tensor *t, enum layout layout, int64_t *first)
{
    const uint32_t last = t->rank - 1;
    const int64_t room = layout == SLICE ? 16 - t->shape[last] % 8 : layout == ODD ? 3 : 0;
    int64_t step = 1;
    if (layout == TURNED) {
        /* the last but one is innermost, then the last, then the others */
        const uint32_t inner = t->rank > 1 ? last - 1 : last;
        t->stride[inner] = 1;
        step = t->shape[inner] + 2;
        if (t->rank > 1) {
            t->stride[last] = step;
            step *= t->shape[last];
        }
        for (int64_t d = (int64_t)last - 2; d >= 0; --d) {
            t->stride[d] = step;
            step *= t->shape[d];
        }
        *first = 0;
        return step;
    }
    for (int64_t d = last; d >= 0; --d) {
        t->stride[d] = step;
        step *= t->shape[d];
        if (d == (int64_t)last)
            step += room;
    }
    *first = layout == ODD ? 1 : 0;
    if (layout == BACKWARD) {
        *first = t->shape[last] - 1;
        t->stride[last] = -1;
    }
    return step + (layout == ODD);
}

static struct sample sample_new(enum dtype type, enum layout layout, uint32_t rank,
                                const int64_t *shape)
{
    struct sample s = {.h = typed(type)};
    int64_t first;
    s.h.rank = rank;
    memcpy(s.h.shape, shape, rank * sizeof *shape);
    s.bytes = (size_t)lay_out(&s.h, layout, &first) * size_of(type);
    s.memory = malloc(s.bytes + 1);
    s.fetched = malloc(s.bytes + 1);
    assert_true(s.memory && s.fetched);
    memset(s.memory, 0xFF, s.bytes);
    s.device = device_take(s.bytes);
    s.t = s.h;
    s.h.data = (char *)s.memory + (size_t)first * size_of(type);
    s.t.data = (char *)s.device + (size_t)first * size_of(type);
    return s;
}

struct sample sample_output(enum dtype type, enum layout layout, uint32_t rank,
                            const int64_t *shape)
{
    return sample_new(type, layout, rank, shape);
}

struct sample sample_random(enum dtype type, enum layout layout, uint32_t rank,
                            const int64_t *shape, double offset)
{
    struct sample s = sample_new(type, layout, rank, shape);
    int64_t n = count_of(&s.h);
    for (int64_t i = 0; i < n; ++i) {
        double v = normal();
        element_set(&s.h, i, offset + (uniform() < 0.01 ? 8.0 * v : v));
    }
    sample_upload(&s);
    return s;
}

void sample_upload(struct sample *s)
{
    check(cudaMemcpy(s->device, s->memory, s->bytes, cudaMemcpyHostToDevice), "to the device");
}

void sample_fetch(struct sample *s)
{
    check(cudaDeviceSynchronize(), "the kernels");
    check(cudaMemcpy(s->fetched, s->device, s->bytes, cudaMemcpyDeviceToHost), "from the device");
    attn_tensor after = s->h;
    after.data = (char *)s->fetched + ((char *)s->h.data - (char *)s->memory);
    for (int64_t i = 0, n = count_of(&s->h); i < n; ++i)
        element_set(&s->h, i, element(&after, i));
    /* NaN payloads may differ: only bytes between elements are compared bit by bit */
    for (int64_t i = 0, n = count_of(&s->h); i < n; ++i)
        element_set(&after, i, element(&s->h, i));
    if (memcmp(s->memory, s->fetched, s->bytes) != 0)
        fail_msg("memory between the elements of an output was written");
}

void sample_release(struct sample *s)
{
    device_free(s->device);
    free(s->memory);
    free(s->fetched);
    *s = (struct sample){0};
}

int64_t count_of(const attn_tensor *t)
{
    int64_t n = 1;
    for (uint32_t i = 0; i < t->rank; ++i)
        n *= t->shape[i];
    return n;
}

static int64_t place(const attn_tensor *t, int64_t i)
{
    int64_t at = 0;
    for (int64_t d = (int64_t)t->rank - 1; d >= 0; --d) {
        at += i % t->shape[d] * t->stride[d];
        i /= t->shape[d];
    }
    return at;
}

static double from_f16(uint16_t bits)
{
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double v = exponent == 31 ? (fraction ? NAN : INFINITY)
               : exponent     ? ldexp(1024 + fraction, exponent - 25)
                              : ldexp(fraction, -24);
    return bits & 0x8000 ? -v : v;
}

double element(const attn_tensor *t, int64_t i)
{
    const int64_t at = place(t, i);
    if (t->bits == 8)
        return ((const uint8_t *)t->data)[at];
    if (t->bits == 32)
        return t->code == ATTN_CODE_INT ? ((const int32_t *)t->data)[at]
                                        : (double)((const float *)t->data)[at];
    if (t->code == ATTN_CODE_FLOAT)
        return from_f16(((const uint16_t *)t->data)[at]);
    uint32_t bits = (uint32_t)((const uint16_t *)t->data)[at] << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* To nearest, ties to even. */
static uint16_t f16_of(double value)
{
    const uint16_t sign = signbit(value) ? 0x8000 : 0;
    const double v = fabs(value);
    int exponent;
    if (isnan(value))
        return 0x7FFF;
    if (v >= 65520.0)
        return sign | 0x7C00;
    if (v < 0x1p-14)
        return sign | (uint16_t)rint(v * 0x1p24);
    double fraction = frexp(v, &exponent); /* a carry out of it goes into the exponent */
    return sign | (uint16_t)(((exponent + 14) << 10) + (int)rint(ldexp(fraction, 11)) - 1024);
}

static uint16_t bf16_of(double value)
{
    float f = (float)value;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (isnan(f))
        return 0x7FFF;
    return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

void element_set(attn_tensor *t, int64_t i, double value)
{
    const int64_t at = place(t, i);
    if (t->bits == 8)
        ((uint8_t *)t->data)[at] = (uint8_t)value;
    else if (t->bits == 32 && t->code == ATTN_CODE_INT)
        ((int32_t *)t->data)[at] = (int32_t)value;
    else if (t->bits == 32)
        ((float *)t->data)[at] = (float)value;
    else if (t->code == ATTN_CODE_FLOAT)
        ((uint16_t *)t->data)[at] = f16_of(value);
    else
        ((uint16_t *)t->data)[at] = bf16_of(value);
}

double activation(int act, double x)
{
    if (act == KERNEL_ACT_SILU)
        return x / (1.0 + exp(-x));
    if (act == KERNEL_ACT_GELU)
        return 0.5 * x * erfc(-x / sqrt(2.0));
    return act == KERNEL_ACT_QUICK_GELU ? x / (1.0 + exp(-1.702 * x)) : x;
}

void expect_close(struct sample *s, const double *expected, double bound, const char *what)
{
    double error = 0.0, size = 0.0;
    sample_fetch(s);
    if (bound == 0.0)
        bound = s->h.bits == 32 ? 2e-6 : s->h.code == ATTN_CODE_FLOAT ? 1e-3 : 8e-3;
    for (int64_t i = 0, n = count_of(&s->h); i < n; ++i) {
        double d = element(&s->h, i) - expected[i];
        error += isfinite(d) ? d * d : INFINITY;
        size += expected[i] * expected[i];
    }
    double distance = size > 0.0 ? sqrt(error / size) : sqrt(error);
    if (!(distance <= bound))
        fail_msg(
            "%s: relative L2 %.3g, expected at most %.3g (%u bits, code %u, last dimension %d)",
            what, distance, bound, s->h.bits, s->h.code, (int)s->h.shape[s->h.rank - 1]);
}
