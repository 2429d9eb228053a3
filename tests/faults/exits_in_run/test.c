/* Nothing can stop it inside a host; the probe runs a tiny attention and finds it. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    fault_registry_probe();
    fault_expect("bad.so", ATTN_VERDICT_CRASHED, "exited with 1");
    fault_expect_refused(BAD_ID, ATTN_NOT_FOUND, "");
    fault_expect_good();
    fault_registry_probe(); /* the verdict is remembered, or found again */
    fault_expect("bad.so", ATTN_VERDICT_CRASHED, "exited with 1");
}

FAULT_MAIN(FAULT_TEST(test))
