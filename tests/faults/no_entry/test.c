/* A shared object that exports neither symbol is refused without being opened. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    fault_registry(0);
    fault_expect("bad.so", ATTN_VERDICT_NO_ENTRY,
                 "exports neither attn_op_v1 nor attn_processor_v1");
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
