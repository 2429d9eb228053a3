/* A library that is not installed: the error names it, and when it is there a refresh finds the
 * plugin good. */
#include "fault.h"

static void test(void **state)
{
    size_t n = 0, at = 0;
    unsigned char *bytes = fault_good_bytes(&n);
    (void)state;
    /* The right plugin needs libm.so.6: make that another name of equal length. */
    for (size_t i = 0; i + 9 < n; i++) {
        if (memcmp(bytes + i, "libm.so.6", 10) == 0) {
            at = i;
            break;
        }
    }
    assert_true(at > 0);
    memcpy(bytes + at, "libQ.so.6", 10);
    fault_put_bytes(bytes, n, "good.so");
    fault_registry(0);
    fault_expect("good.so", ATTN_VERDICT_OK, "");
    fault_expect_refused(GOOD_ID, ATTN_NOT_FOUND, "libQ.so.6");
    fault_expect("good.so", ATTN_VERDICT_UNRESOLVED, "libQ.so.6");
    fault_put(the_fault.good, "good.so");
    assert_int_equal(attn_registry_refresh(the_fault.registry, NULL), ATTN_OK);
    fault_expect("good.so", ATTN_VERDICT_OK, "");
    fault_expect_good();
    free(bytes);
}

FAULT_MAIN(FAULT_TEST(test))
