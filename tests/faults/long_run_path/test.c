/* A run path of 2,000 bytes is no fault: the file opens and computes. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    fault_registry(0);
    fault_expect_none();
}

FAULT_MAIN(FAULT_TEST(test))
