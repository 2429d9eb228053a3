/* Random numbers against torch's (tools/golden/rng.py).  Argument: the golden folder. */
#include "golden.h"

#include <jansson.h>

#include "random.h"

static const char *golden_folder;

static void test_words(void **state)
{
    safetensors *golden = golden_open(golden_folder, "rng_torch");
    const uint64_t seeds[] = {0, 42};
    (void)state;
    for (int i = 0; i < 2; i++) {
        const safetensors_tensor *words = golden_get(golden, "words.%d", (int)seeds[i]);
        const int64_t *expected = words->data;
        random_generator generator;
        random_seed(&generator, seeds[i]);
        for (int64_t k = 0; k < words->shape[0]; k++) {
            assert_int_equal(random_bits(&generator), expected[k]);
        }
    }
    safetensors_close(golden);
}

static void test_normal(void **state)
{
    safetensors *golden = golden_open(golden_folder, "rng_torch");
    double worst = 0;
    size_t seen = 0;
    (void)state;
    for (size_t i = 0; i < safetensors_count(golden); i++) {
        const safetensors_tensor *tensor = safetensors_at(golden, i);
        unsigned long long seed;
        size_t n;
        if (sscanf(tensor->name, "randn.%llu.%zu", &seed, &n) != 2) {
            continue;
        }
        random_generator generator;
        float *got = malloc(n * sizeof *got);
        assert_non_null(got);
        random_seed(&generator, seed);
        random_normal(&generator, got, n);
        double difference = largest_difference(got, tensor->data, n);
        if (!(difference <= 1e-6)) {
            fail_msg("%s differs by %g", tensor->name, difference);
        }
        worst = difference > worst ? difference : worst;
        seen++;
        free(got);
    }
    print_message("%zu draws, largest difference %g\n", seen, worst);
    assert_true(seen >= 70);
    safetensors_close(golden);
}

/* One unit in the last place of the half that is `x`. */
static double half_unit(double x)
{
    int exponent;
    frexp(x, &exponent);
    return ldexp(1, (exponent < -13 ? -13 : exponent) - 11);
}

/* The largest distance of `got` from stored halves, in units of their last place. */
static double halves_compare(const float *got, size_t stride, const safetensors_tensor *want)
{
    const uint16_t *bits = want->data;
    double worst = 0;
    for (int64_t i = 0; i < want->shape[0]; i++) {
        int exponent = bits[i] >> 10 & 0x1f;
        double fraction = bits[i] & 0x3ff;
        double expected = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
        expected = bits[i] & 0x8000 ? -expected : expected;
        double d = fabs((double)got[(size_t)i * stride] - expected) / half_unit(expected);
        worst = d > worst || isnan(d) ? d : worst;
    }
    return worst;
}

static void test_half(void **state)
{
    safetensors *golden = golden_open(golden_folder, "rng_torch");
    double worst = 0;
    size_t seen = 0;
    (void)state;
    for (size_t i = 0; i < safetensors_count(golden); i++) {
        const safetensors_tensor *tensor = safetensors_at(golden, i);
        unsigned long long seed;
        size_t n;
        if (sscanf(tensor->name, "randn_half.%llu.%zu", &seed, &n) != 2) {
            continue;
        }
        random_generator generator;
        float *got = malloc(n * sizeof *got);
        assert_non_null(got);
        random_seed(&generator, seed);
        random_normal_half(&generator, got, n);
        worst = fmax(worst, halves_compare(got, 1, tensor));
        seen++;
        free(got);
    }
    print_message("%zu draws of halves, at most %g units in the last place\n", seen, worst);
    assert_true(seen >= 21);
    assert_true(worst <= 1);
    safetensors_close(golden);
}

/* A picture's latents are thousands of numbers; a million at once is what a batch takes. */
static void test_million(void **state)
{
    enum { MILLION = 1000000, STRIDE = 997 };
    safetensors *golden = golden_open(golden_folder, "rng_torch");
    const safetensors_tensor *single = golden_get(golden, "million");
    float *got = malloc(MILLION * sizeof *got);
    float stored[MILLION / STRIDE + 1];
    double sums[2] = {0, 0};
    random_generator generator;
    (void)state;
    assert_non_null(got);
    for (int half = 0; half < 2; half++) {
        random_seed(&generator, 11);
        (half ? random_normal_half : random_normal)(&generator, got, MILLION);
        for (size_t i = 0; i < MILLION; i++) {
            sums[half] += fabs((double)got[i]);
            if (!half && i % STRIDE == 0) {
                stored[i / STRIDE] = got[i];
            }
        }
    }
    double difference = largest_difference(stored, single->data, (size_t)single->shape[0]);
    double units = halves_compare(got, STRIDE, golden_get(golden, "million_half"));
    double sum = *(const double *)golden_get(golden, "million.sum")->data;
    double sum_half = *(const double *)golden_get(golden, "million_half.sum")->data;
    print_message("a million: largest difference %g, of halves %g units; sums off by %.2g, %.2g;"
                  " stored with %s\n",
                  difference, units, fabs(sums[0] / sum - 1), fabs(sums[1] / sum_half - 1),
                  safetensors_metadata(golden, "cpu"));
    assert_int_equal(single->shape[0], MILLION / STRIDE + 1);
    assert_true(difference <= 1e-6 && units <= 1);
    assert_true(fabs(sums[0] / sum - 1) < 1e-7 && fabs(sums[1] / sum_half - 1) < 1e-6);
    free(got);
    safetensors_close(golden);
}

/* Draws of under 16 numbers keep a second value for later, across draws of more. */
static void test_sequences(void **state)
{
    safetensors *golden = golden_open(golden_folder, "rng_torch");
    json_t *sequences = json_loads(safetensors_metadata(golden, "sequences"), 0, NULL);
    const char *seed;
    json_t *sizes;
    (void)state;
    assert_true(json_object_size(sequences) > 0);
    json_object_foreach(sequences, seed, sizes)
    {
        const safetensors_tensor *tensor = golden_get(golden, "sequence.%s", seed);
        float got[1024];
        size_t used = 0;
        random_generator generator;
        random_seed(&generator, strtoull(seed, NULL, 10));
        for (size_t i = 0; i < json_array_size(sizes); i++) {
            size_t n = (size_t)json_integer_value(json_array_get(sizes, i));
            assert_true(used + n <= sizeof got / sizeof *got);
            random_normal(&generator, got + used, n);
            used += n;
        }
        assert_int_equal(used, tensor->shape[0]);
        assert_true(largest_difference(got, tensor->data, used) <= 1e-6);
    }
    json_decref(sequences);
    safetensors_close(golden);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),     cmocka_unit_test(test_normal),
        cmocka_unit_test(test_half),      cmocka_unit_test(test_million),
        cmocka_unit_test(test_sequences),
    };
    if (argc != 2) {
        return 2;
    }
    golden_folder = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
