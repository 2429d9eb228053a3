/* A host of today says that the file is of a later contract. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    fault_registry(0);
    fault_expect("bad.so", ATTN_VERDICT_NO_V1, "has attn_op_v2, this host knows attn_op_v1");
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
