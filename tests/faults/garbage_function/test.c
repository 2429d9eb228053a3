/* Pointers are checked before the first of them is followed. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    fault_registry(0);
    fault_expect_refused(BAD_ID, ATTN_INVALID, "function 3 of attn_op_v1 is not code");
    fault_expect("bad.so", ATTN_VERDICT_BAD_HEAD, "function 3 of attn_op_v1 is not code");
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
