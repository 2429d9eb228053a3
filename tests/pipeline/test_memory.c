/* result.peak_bytes is what was taken: counted here at malloc.
 *
 * Arguments: the built-in model's folder, the folder of plugins. */
#include "demo.h"

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>

/* -- the heap, counted ------------------------------------------------------------------------- */

static _Atomic size_t live, peak;

static void took(void *memory)
{
    if (memory) {
        size_t now =
            atomic_fetch_add(&live, malloc_usable_size(memory)) + malloc_usable_size(memory);
        size_t before = atomic_load(&peak);
        while (before < now && !atomic_compare_exchange_weak(&peak, &before, now)) {
        }
    }
}

static void gave(void *memory)
{
    if (memory) {
        atomic_fetch_sub(&live, malloc_usable_size(memory));
    }
}

/* glibc's own, under names that stay when malloc is replaced. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *memory);

void *malloc(size_t size)
{
    void *memory = __libc_malloc(size);
    took(memory);
    return memory;
}

void *calloc(size_t count, size_t size)
{
    void *memory = __libc_calloc(count, size);
    took(memory);
    return memory;
}

void *realloc(void *memory, size_t size)
{
    gave(memory);
    void *moved = __libc_realloc(memory, size);
    took(moved ? moved : memory);
    return moved;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    void *memory = __libc_memalign(alignment, size);
    took(memory);
    return memory;
}

void *memalign(size_t alignment, size_t size)
{
    return aligned_alloc(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    *out = aligned_alloc(alignment, size);
    return *out ? 0 : ENOMEM;
}

void free(void *memory)
{
    gave(memory);
    __libc_free(memory);
}

/* -- the tests --------------------------------------------------------------------------------- */

struct seen {
    size_t heap;
    uint64_t told;
};

static struct seen measure_once(uint32_t side, uint32_t images, uint32_t flags)
{
    ATTN_ERROR_ON(err, 512);
    attn_sag *sag = NULL;
    const attn_sag_open_options open = {
        .size = sizeof open, .model = demo_folder, .n_threads = demo_threads};
    attn_sag_run_options o = demo_request();
    o.height = side;
    o.width = side;
    o.num_images_per_prompt = images;
    o.flags = flags;
    o.num_inference_steps = 1;
    size_t before = atomic_load(&live);
    atomic_store(&peak, before);
    if (attn_sag_open(registry, &open, &sag, &err)) {
        fail_msg("%s", err.text);
    }
    attn_sag_result result = demo_run(sag, &o);
    const struct seen seen = {atomic_load(&peak) - before, result.peak_bytes};
    attn_sag_result_free(&result);
    attn_sag_close(sag);
    print_message("%u pictures of %u px%s: heap %.2f MB, peak_bytes %.2f MB\n", images, side,
                  flags & ATTN_SAG_VAE_SLICING ? ", sliced" : "", (double)seen.heap * 1e-6,
                  (double)seen.told * 1e-6);
    return seen;
}

/* The second of two runs: what the first one alone takes is the process's, such as the code that
 * oneDNN writes for a size and keeps (20 MB for each of these by oneDNN 3.7). */
static struct seen measure(uint32_t side, uint32_t images, uint32_t flags)
{
    (void)measure_once(side, images, flags);
    return measure_once(side, images, flags);
}

/* What is not for tensors (the tokenizer, structs) is the rest. */
static void near_check(struct seen seen)
{
    assert_true((double)seen.told <= 1.01 * (double)seen.heap);
    assert_true((double)seen.told >= 0.9 * (double)seen.heap);
}

static void test_peak(void **state)
{
    (void)state;
    struct seen small = measure(32, 1, 0);
    struct seen large = measure(192, 1, 0);
    struct seen whole = measure(64, 4, 0);
    struct seen sliced = measure(64, 4, ATTN_SAG_VAE_SLICING);
    near_check(small);
    near_check(large);
    near_check(whole);
    near_check(sliced);
    assert_true(sliced.told < whole.told);
    assert_true(small.told < large.told);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_peak)};
    if (argc != 3) {
        return 2;
    }
    demo_folder = argv[1];
    plugin_folder = argv[2];
    demo_threads = 1; /* small pictures, and other tests run beside */
    return cmocka_run_group_tests(tests, demo_setup, demo_teardown);
}
