/* Weights stored as halves: on a CPU large linears stay as they lie in the file, small ones become
 * fp32, and both give what their values widened by hand do. */
#include "machine.h"
#include "weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LARGE = 512, SMALL = 24, ROWS = 3 };

/* A half that is a multiple of 1/1024 within 1/2, and its value. */
static uint16_t half_of(uint64_t i, float *value)
{
    const uint64_t n = i * 2654435761u >> 7 & 511u;
    uint16_t exponent = 15 - 10;
    uint64_t mantissa = n;
    *value = (float)n / 1024.0f;
    if (n == 0) {
        return 0;
    }
    while (mantissa >= 2) {
        mantissa >>= 1;
        exponent++;
    }
    return (uint16_t)(exponent << 10 | ((n << (15 - exponent)) & 1023u));
}

struct stored {
    char folder[64];
    char path[128];
    uint16_t *large, *small;
};

static void stored_make(struct stored *s)
{
    const safetensors_dtype f16 = {.code = ATTN_CODE_FLOAT, .bits = 16};
    ATTN_ERROR_ON(err, 512);
    float value;
    (void)snprintf(s->folder, sizeof(s->folder), "/tmp/halves-XXXXXX");
    assert_non_null(mkdtemp(s->folder));
    (void)snprintf(s->path, sizeof(s->path), "%s/part.safetensors", s->folder);
    s->large = calloc((size_t)LARGE * LARGE, sizeof(*s->large));
    s->small = calloc((size_t)SMALL * SMALL, sizeof(*s->small));
    assert_true(s->large && s->small);
    for (uint64_t i = 0; i < (uint64_t)LARGE * LARGE; i++) {
        s->large[i] = half_of(i, &value);
    }
    memcpy(s->small, s->large, (size_t)SMALL * SMALL * sizeof(*s->small));
    const safetensors_tensor tensors[] = {
        {.name = "large.weight",
         .dtype = f16,
         .rank = 2,
         .shape = {LARGE, LARGE},
         .data = s->large,
         .bytes = (uint64_t)LARGE * LARGE * 2},
        {.name = "small.weight",
         .dtype = f16,
         .rank = 2,
         .shape = {SMALL, SMALL},
         .data = s->small,
         .bytes = (uint64_t)SMALL * SMALL * 2},
    };
    if (safetensors_write(s->path, tensors, 2, NULL, 0, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
}

static void stored_remove(struct stored *s)
{
    (void)unlink(s->path);
    (void)rmdir(s->folder);
    free(s->large);
    free(s->small);
}

/* y = x W', W as half_of has it. */
static void linear_check(struct compute *c, const attn_linear *linear, int64_t n)
{
    ATTN_ERROR_ON(err, 512);
    const int64_t shape[] = {ROWS, n};
    const attn_tensor x = poisoned(2, shape);
    const attn_tensor y = poisoned(2, shape);
    float *expected = calloc((size_t)(ROWS * n), sizeof(*expected));
    struct pass *pass;
    attn_work *w;
    assert_non_null(expected);
    for (int64_t i = 0; i < ROWS * n; i++) {
        ((float *)x.data)[i] = (float)(i % 11) - 5.0f;
    }
    for (int64_t i = 0; i < ROWS * n; i++) {
        double sum = 0;
        for (int64_t k = 0; k < n; k++) {
            float value;
            (void)half_of((uint64_t)(i % n * n + k), &value);
            sum += (double)value * ((float *)x.data)[i / n * n + k];
        }
        expected[i] = (float)sum;
    }
    assert_int_equal(pass_create(c, &pass, &err), ATTN_OK);
    assert_int_equal(c->api->linear(pass_dry(pass, &err), &x, linear, NULL, &y), ATTN_OK);
    w = pass_real(pass, NULL, &err);
    poison_arena(w);
    assert_int_equal(c->api->linear(w, &x, linear, NULL, &y), ATTN_OK);
    assert_true(relative_l2(y.data, expected, ROWS * n) < 1e-6);
    pass_destroy(pass);
    free(expected);
    free(x.data);
    free(y.data);
}

static void halves(void **state)
{
    struct machine *m = *state;
    struct stored s;
    struct weights *w;
    attn_linear large;
    attn_linear small;
    ATTN_ERROR_ON(err, 512);
    stored_make(&s);
    const struct model_source source = {.folder = s.folder};
    if (weights_open(m->compute, &source, "part", &w, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    weights_linear(w, &large, LARGE, LARGE, 0, "large");
    weights_linear(w, &small, SMALL, SMALL, 0, "small");
    if (weights_done(w, NULL) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(large.weight.bits, 16);
    assert_int_equal(small.weight.bits, 32);
    linear_check(m->compute, &large, LARGE);
    linear_check(m->compute, &small, SMALL);
    weights_rest(w); /* the file's pages come back when they are read */
    linear_check(m->compute, &large, LARGE);
    weights_close(w);
    stored_remove(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(halves)};
    return cmocka_run_group_tests(tests, machine_open, machine_close);
}
