/* Two files with one id: the first in search order serves it, and both are listed. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    size_t n = 0;
    unsigned char *bytes = fault_good_bytes(&n);
    bytes = realloc(bytes, n + 1);
    assert_non_null(bytes);
    bytes[n] = 0; /* another file, the same plugin */
    fault_put_bytes(bytes, n + 1, "a-first.so");
    free(bytes);
    fault_registry(0);
    fault_expect("a-first.so", ATTN_VERDICT_OK, "");
    fault_expect("good.so", ATTN_VERDICT_DUPLICATE, GOOD_ID " was found first in ");
    fault_expect("good.so", ATTN_VERDICT_DUPLICATE, "/a-first.so");
    fault_expect_good();

    unlink(fault_path("a-first.so"));
    assert_int_equal(attn_registry_refresh(the_fault.registry, NULL), ATTN_OK);
    fault_expect("good.so", ATTN_VERDICT_OK, "");
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
