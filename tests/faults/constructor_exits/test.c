/* An exit status of 0 is no sign of health. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    fault_registry_probe();
    fault_expect("bad.so", ATTN_VERDICT_CRASHED, "exited with 0 while it was tried");
    fault_expect_refused(BAD_ID, ATTN_NOT_FOUND, "");
    fault_expect_good();
    fault_registry_probe(); /* the verdict is remembered, or found again */
    fault_expect("bad.so", ATTN_VERDICT_CRASHED, "exited with 0 while it was tried");
}

FAULT_MAIN(FAULT_TEST(test))
