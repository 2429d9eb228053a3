/* One file under several names, by symbolic and hard links, and a copy of it. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    char target[128];
    (void)snprintf(target, sizeof target, "%s", fault_path("good.so"));
    assert_int_equal(symlink(target, fault_path("symbolic.so")), 0);
    assert_int_equal(link(target, fault_path("hard.so")), 0);
    fault_put(the_fault.good, "zcopy.so");
    fault_registry(0);
    fault_expect("good.so", ATTN_VERDICT_OK, "");
    fault_expect("hard.so", ATTN_VERDICT_DUPLICATE, "the same file was found first in");
    fault_expect("symbolic.so", ATTN_VERDICT_DUPLICATE, "the same file was found first in");
    fault_expect("zcopy.so", ATTN_VERDICT_DUPLICATE, GOOD_ID " was found first in");
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
