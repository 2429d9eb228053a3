/* The verdict names what was found and what was expected. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    fault_registry(0);
    fault_expect("bad.so", ATTN_VERDICT_BAD_ABI, "its size is 100 bytes, expected at least 296");
    fault_expect_refused(BAD_ID, ATTN_NOT_FOUND, BAD_ID);
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
