/* The verdict names what was found and what was expected. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    fault_registry(0);
    fault_expect("bad.so", ATTN_VERDICT_BAD_ABI,
                 "built for abi 0x00990001, this host has 0x00010001");
    fault_expect_refused(BAD_ID, ATTN_NOT_FOUND, BAD_ID);
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
