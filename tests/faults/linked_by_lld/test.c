/* What lld makes is no fault, though its PT_GNU_RELRO ends beyond the segment that it lies in: the
 * file opens and computes. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    fault_registry(0);
    fault_expect_none();
}

FAULT_MAIN(FAULT_TEST(test))
