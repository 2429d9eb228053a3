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
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_normal),
        cmocka_unit_test(test_sequences),
    };
    if (argc != 2) {
        return 2;
    }
    golden_folder = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
