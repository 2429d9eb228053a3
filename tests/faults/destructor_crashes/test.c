/* A host would die of it at its own end. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    fault_registry_probe();
    fault_expect("bad.so", ATTN_VERDICT_CRASHED, "died of signal 6");
    fault_expect_refused(BAD_ID, ATTN_NOT_FOUND, "");
    fault_expect_good();
    fault_registry_probe(); /* the verdict is remembered, or found again */
    fault_expect("bad.so", ATTN_VERDICT_CRASHED, "died of signal 6");
}

FAULT_MAIN(FAULT_TEST(test))
