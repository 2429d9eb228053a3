#include "check.h"
#include "kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed = 0x853c49e6748fea9bu;

double uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 11) * 0x1p-53;
}

double normal(void)
{
    double x = sqrt(-2.0 * log(1.0 - uniform())) * cos(2.0 * 3.14159265358979323846 * uniform());
    return uniform() < 0.01 ? 8.0 * x : x;
}

/* -- numbers of other types, through ldexp and rint alone -------------------------------------- */

/* Rounds to `digits` binary digits, exponents not below `least`. */
static double rounded(double v, int digits, int least)
{
    int exponent;
    if (v == 0.0 || !isfinite(v))
        return v;
    frexp(v, &exponent);
    exponent = exponent < least ? least : exponent;
    return ldexp(rint(ldexp(v, digits - exponent)), exponent - digits);
}

static uint16_t half_of(double v)
{
    uint16_t sign = signbit(v) ? 0x8000 : 0;
    int exponent;
    if (isnan(v))
        return 0x7E00;
    v = fabs(rounded(v, 11, -13));
    if (v >= 65536.0)
        return (uint16_t)(sign | 0x7C00);
    if (v < 0x1p-14)
        return (uint16_t)(sign | (uint16_t)ldexp(v, 24));
    double mantissa = frexp(v, &exponent);
    return (uint16_t)(sign | ((exponent + 14) << 10) | ((uint16_t)ldexp(mantissa, 11) & 0x3FF));
}

static double half_value(uint16_t h)
{
    int exponent = (h >> 10) & 31, mantissa = h & 0x3FF;
    double v = exponent == 31  ? (mantissa ? NAN : INFINITY)
               : exponent == 0 ? ldexp(mantissa, -24)
                               : ldexp(mantissa + 1024, exponent - 25);
    return h & 0x8000 ? -v : v;
}

static uint16_t bfloat_of(double v)
{
    float f = isnan(v) ? (float)v : (float)rounded(v, 8, -125);
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static double bfloat_value(uint16_t b)
{
    uint32_t bits = (uint32_t)b << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return (double)f;
}

static char *element_at(const attn_tensor *t, int64_t i)
{
    int64_t offset = 0;
    for (uint32_t d = t->rank; d-- > 0;) {
        offset += i % t->shape[d] * t->stride[d];
        i /= t->shape[d];
    }
    return (char *)t->data + offset * (t->bits / 8);
}

double element(const attn_tensor *t, int64_t i)
{
    const char *at = element_at(t, i);
    uint16_t half = 0;
    memcpy(&half, at, t->bits == 16 ? 2 : 0);
    if (t->code == ATTN_CODE_BFLOAT)
        return bfloat_value(half);
    if (t->bits == 16)
        return half_value(half);
    if (t->code == ATTN_CODE_UINT)
        return *(const uint8_t *)at;
    if (t->code == ATTN_CODE_INT)
        return *(const int32_t *)(const void *)at;
    float f;
    memcpy(&f, at, sizeof f);
    return (double)f;
}

void element_set(attn_tensor *t, int64_t i, double value)
{
    char *at = element_at(t, i);
    float f = (float)value;
    uint16_t half = t->code == ATTN_CODE_BFLOAT ? bfloat_of(value) : half_of(value);
    if (t->bits == 16)
        memcpy(at, &half, sizeof half);
    else if (t->code == ATTN_CODE_UINT)
        *(uint8_t *)at = (uint8_t)value;
    else if (t->code == ATTN_CODE_INT)
        *(int32_t *)(void *)at = (int32_t)value;
    else
        memcpy(at, &f, sizeof f);
}

/* -- tensors ----------------------------------------------------------------------------------- */

static void sample_strides(attn_tensor *t, enum layout layout)
{
    int64_t padded[4], stride = 1;
    memcpy(padded, t->shape, sizeof padded);
    if (layout == SLICE)
        padded[t->rank - 1] += 5;
    uint32_t order[4] = {0, 1, 2, 3};
    if (layout == TURNED && t->rank > 1) {
        order[t->rank - 1] = t->rank - 2;
        order[t->rank - 2] = t->rank - 1;
    }
    for (uint32_t i = t->rank; i-- > 0;) {
        t->stride[order[i]] = stride;
        stride *= padded[order[i]] ? padded[order[i]] : 1;
    }
    if (layout == BACKWARD)
        t->stride[t->rank - 1] = -t->stride[t->rank - 1];
}

static struct sample sample_new(enum dtype type, enum layout layout, uint32_t rank,
                                const int64_t *shape)
{
    static const uint8_t code[] = {ATTN_CODE_FLOAT, ATTN_CODE_FLOAT, ATTN_CODE_BFLOAT,
                                   ATTN_CODE_INT, ATTN_CODE_UINT};
    static const uint8_t bits[] = {32, 16, 16, 32, 8};
    struct sample s = {.t = {.device_type = ATTN_DEVICE_CPU,
                             .code = code[type],
                             .bits = bits[type],
                             .lanes = 1,
                             .rank = rank}};
    memcpy(s.t.shape, shape, rank * sizeof *shape);
    sample_strides(&s.t, layout);
    int64_t elements = 1;
    for (uint32_t i = 0; i < rank; ++i)
        elements *= shape[i] + (i + 1 == rank ? 5 : 0);
    /* Odd offset: nothing may lean on more than an element's alignment. */
    s.bytes = (uint64_t)(elements + 3) * (s.t.bits / 8u);
    s.memory = malloc(s.bytes);
    assert_non_null(s.memory);
    memset(s.memory, 0xFF, s.bytes);
    int64_t first = 3 + (layout == BACKWARD ? shape[rank - 1] - 1 : 0);
    s.t.data = (char *)s.memory + first * (s.t.bits / 8);
    return s;
}

struct sample sample_random(enum dtype type, enum layout layout, uint32_t rank,
                            const int64_t *shape)
{
    struct sample s = sample_new(type, layout, rank, shape);
    for (int64_t i = 0; i < tensor_count(&s.t); ++i)
        element_set(&s.t, i, normal());
    return s;
}

struct sample sample_output(enum dtype type, enum layout layout, uint32_t rank,
                            const int64_t *shape)
{
    return sample_new(type, layout, rank, shape);
}

static struct compute *compute;

void sample_release(struct sample *s)
{
    attn_tensor gone = {.data = s->memory, .rank = 1, .shape = {(int64_t)s->bytes}, .bits = 8};
    if (compute)
        compute->api->unload(compute, &gone);
    free(s->memory);
    s->memory = NULL;
}

void sample_scale(struct sample *s, double factor)
{
    for (int64_t i = 0; i < tensor_count(&s->t); ++i)
        element_set(&s->t, i, factor * element(&s->t, i));
}

/* -- comparison
 * ------------------------------------------------------------------------------------ */

double distance(const attn_tensor *t, const double *expected)
{
    double difference = 0.0, norm = 0.0;
    for (int64_t i = 0; i < tensor_count(t); ++i) {
        double d = element(t, i) - expected[i];
        difference += d * d;
        norm += expected[i] * expected[i];
    }
    if (isnan(difference))
        return INFINITY;
    return norm > 0.0 ? sqrt(difference / norm) : sqrt(difference);
}

void assert_close(const attn_tensor *t, const double *expected, double bound, const char *what)
{
    double d = distance(t, expected);
    if (!(d <= bound))
        fail_msg("%s: %s is %.3g away, bound %.3g", what, tensor_describe(t).text, d, bound);
}

double bound_of(enum dtype type)
{
    return type == F32 ? 2e-6 : type == F16 ? 1e-3 : 8e-3;
}

/* -- running
 * --------------------------------------------------------------------------------------- */

int variant_missing(void)
{
    const struct kernels *kernels;
    return kernels_choose(&kernels, NULL) != ATTN_OK;
}

int fixture_open(void **state)
{
    ATTN_ERROR_ON(err, 256);
    struct fixture *f = calloc(1, sizeof *f);
    if (!f || compute_cpu_create(NULL, 0, &f->c, &err) != ATTN_OK ||
        pass_create(f->c, &f->pass, &err) != ATTN_OK) {
        print_error("%s\n", err.text);
        return -1;
    }
    *state = f;
    compute = f->c;
    return 0;
}

int fixture_close(void **state)
{
    struct fixture *f = *state;
    compute = NULL;
    pass_destroy(f->pass);
    f->c->api->destroy(f->c);
    free(f);
    return 0;
}

void run_twice(struct fixture *f, void (*operation)(attn_work *w, void *arg), void *arg)
{
    ATTN_ERROR_ON(err, 512);
    attn_work *w = pass_dry(f->pass, &err);
    operation(w, arg);
    if (w->status != ATTN_OK)
        fail_msg("dry run: status %d: %s", w->status, err.text);
    assert_int_equal(w->used, 0);
    for (int i = 0; i < 2; ++i) {
        w = pass_real(f->pass, NULL, &err);
        assert_non_null(w);
        if (w->capacity)
            memset((void *)(uintptr_t)w->base, 0xFF, w->capacity);
        operation(w, arg);
        if (w->status != ATTN_OK)
            fail_msg("real run: status %d: %s", w->status, err.text);
        assert_int_equal(w->used, 0);
    }
}

void expect_refusal(struct fixture *f, void (*operation)(attn_work *w, void *arg), void *arg,
                    attn_status status, const char *text)
{
    ATTN_ERROR_ON(err, 512);
    attn_work *w = pass_dry(f->pass, &err);
    operation(w, arg);
    if (w->status != status || !strstr(err.text, text))
        fail_msg("status %d, \"%s\": expected %d, \"%s\"", w->status, err.text, status, text);
}
