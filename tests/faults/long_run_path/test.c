/* A run path of 2,000 bytes is no fault: the file opens and computes. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    fault_registry(0);
    fault_expect("bad.so", ATTN_VERDICT_OK, "");
    attn_host_op *op = fault_open(BAD_ID);
    fault_expect_right(op);
    assert_int_equal(attn_host_op_close(op), ATTN_OK);
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
