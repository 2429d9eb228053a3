/* Single bits of the headers and tables flipped: refused by reading, or found by the probe.  The
 * longer run with more kinds of damage is tests/loader/test_mutation.c. */
#include "fault.h"

enum { FLIPS = 96 };

static void test(void **state)
{
    size_t n = 0;
    unsigned char *bytes = fault_good_bytes(&n);
    uint64_t seed = 7;
    (void)state;
    fault_registry_probe();
    for (int i = 0; i < FLIPS; i++) {
        char name[32];
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t at = (size_t)(seed >> 33) % 1400;
        unsigned char bit = (unsigned char)(1u << (seed >> 29 & 7));
        bytes[at] ^= bit;
        (void)snprintf(name, sizeof name, "flip-%02d.so", i);
        fault_put_bytes(bytes, n, name);
        bytes[at] ^= bit;
    }
    free(bytes);
    unlink(fault_path("good.so"));
    fault_put(the_fault.good, "a-good.so");
    fault_registry_probe();
    uint32_t counts[16] = {0};
    attn_file_info info = {.size = sizeof info};
    for (uint32_t i = 0; attn_registry_file(the_fault.registry, i, &info) == ATTN_OK; i++) {
        assert_true(info.verdict < 16);
        counts[info.verdict]++;
        if (info.verdict == ATTN_VERDICT_CRASHED) {
            print_message("%s: %s\n", info.path, info.reason);
        }
    }
    for (uint32_t v = 0; v < 16; v++) {
        if (counts[v]) {
            print_message("%s: %u\n", attn_verdict_name(v), counts[v]);
        }
    }
    assert_true(counts[ATTN_VERDICT_OK] >= 1);
    /* Much of it is seen; the others' damage does nothing, and their id is the right plugin's. */
    const uint32_t unseen = counts[ATTN_VERDICT_OK] + counts[ATTN_VERDICT_DUPLICATE];
    assert_true(FLIPS + 1 - unseen >= FLIPS / 8);
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
