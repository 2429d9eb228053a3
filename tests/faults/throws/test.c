/* No host can catch it in C; the probe finds it. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    fault_registry_probe();
    fault_expect("bad.so", ATTN_VERDICT_CRASHED, "died of signal 6");
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
