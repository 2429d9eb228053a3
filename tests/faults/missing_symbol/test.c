/* Found when it is opened, not in the middle of a run, and the symbol is named.  When it has been
 * found the file's verdict says so. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    fault_registry(0);
    fault_expect("bad.so", ATTN_VERDICT_OK, "");
    fault_expect_refused(BAD_ID, ATTN_NOT_FOUND, "undefined symbol: function_that_nobody_has");
    fault_expect("bad.so", ATTN_VERDICT_UNRESOLVED, "function_that_nobody_has");
    fault_expect_good();
}

static void test_probe(void **state)
{
    (void)state;
    fault_registry_probe();
    fault_expect("bad.so", ATTN_VERDICT_UNRESOLVED, "function_that_nobody_has");
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test), FAULT_TEST(test_probe))
