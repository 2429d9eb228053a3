/* The damage shows in the child. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    if (FAULT_SANITIZED) {
        print_message("skipped: a sanitizer's heap is not the one that is damaged here\n");
        skip();
    }
    fault_registry_probe();
    fault_expect("bad.so", ATTN_VERDICT_CRASHED, "");
    fault_expect_refused(BAD_ID, ATTN_NOT_FOUND, "");
    fault_expect_good();
    fault_registry_probe(); /* the verdict is remembered, or found again */
    fault_expect("bad.so", ATTN_VERDICT_CRASHED, "");
}

FAULT_MAIN(FAULT_TEST(test))
