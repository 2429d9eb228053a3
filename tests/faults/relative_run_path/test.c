/* Refused by its bytes; taken where the caller says so in code. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    fault_registry(0);
    fault_expect("bad.so", ATTN_VERDICT_UNTRUSTED,
                 "its run path \"lib\" depends on the current folder");
    fault_expect_refused(BAD_ID, ATTN_NOT_FOUND, BAD_ID);
    fault_expect_good();
    fault_registry(ATTN_REGISTRY_TRUST_ALL);
    fault_expect("bad.so", ATTN_VERDICT_OK, "");
}

FAULT_MAIN(FAULT_TEST(test))
