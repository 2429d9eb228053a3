/* A right plugin cut short at any length is refused before anything is mapped (dlopen dies of
 * SIGBUS on most of them). */
#include "fault.h"

static uint32_t verdict_of(uint32_t i)
{
    attn_file_info info = {.size = sizeof info};
    assert_int_equal(attn_registry_file(the_fault.registry, i, &info), ATTN_OK);
    return info.verdict;
}

static void test(void **state)
{
    size_t n = 0;
    unsigned char *bytes = fault_good_bytes(&n);
    (void)state;
    for (size_t length = 0; length < n; length += 251) {
        char name[32];
        (void)snprintf(name, sizeof name, "cut-%zu.so", length);
        fault_put_bytes(bytes, length, name);
    }
    fault_registry(0);
    uint32_t count = attn_registry_count(the_fault.registry), cut = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t verdict = verdict_of(i);
        assert_true(verdict == ATTN_VERDICT_TRUNCATED || verdict == ATTN_VERDICT_NOT_ELF ||
                    verdict == ATTN_VERDICT_OK);
        cut += verdict == ATTN_VERDICT_TRUNCATED;
    }
    assert_int_equal(cut, count - 2); /* all but the right one and the empty one */
    fault_expect("cut-0.so", ATTN_VERDICT_NOT_ELF, "the file is empty");
    fault_expect("cut-251.so", ATTN_VERDICT_TRUNCATED, "the file has 251");
    fault_expect_good();
    free(bytes);
}

FAULT_MAIN(FAULT_TEST(test))
