/* Plugins stay mapped: the thread goes on after everything is closed, and nothing crashes. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        fault_registry(0);
        attn_host_op *op = fault_open(BAD_ID);
        fault_expect_right(op);
        assert_int_equal(attn_host_op_close(op), ATTN_OK);
        attn_registry_close(the_fault.registry);
        the_fault.registry = NULL;
        unlink(fault_path("bad.so"));
        usleep(20000);
        fault_put(the_fault.plugin, "bad.so");
    }
    fault_registry(0);
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
