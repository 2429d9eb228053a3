/* The dynamic linker's reason comes through. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    fault_registry(0);
    fault_expect_refused(BAD_ID, ATTN_NOT_FOUND, "static TLS");
    fault_expect("bad.so", ATTN_VERDICT_UNRESOLVED, "static TLS");
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
