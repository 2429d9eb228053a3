/* The probe knows what a tiny attention must give. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    fault_registry_probe();
    fault_expect("bad.so", ATTN_VERDICT_RETIRED,
                 "an attention of 2 heads, 3 x 5, dimension 8 is off by 1");
    fault_expect_refused(BAD_ID, ATTN_INTERNAL, "was retired");
    fault_expect_good();
    fault_registry_probe(); /* the verdict is remembered, or found again */
    fault_expect("bad.so", ATTN_VERDICT_RETIRED,
                 "an attention of 2 heads, 3 x 5, dimension 8 is off by 1");
}

FAULT_MAIN(FAULT_TEST(test))
