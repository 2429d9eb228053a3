/* A sparse file of a terabyte costs no more to look at than a small one. */
#include "fault.h"

#include <fcntl.h>
#include <time.h>

static void test(void **state)
{
    struct timespec begin, end;
    (void)state;
    fault_put(the_fault.good, "a-huge.so"); /* a right plugin with a very long tail */
    fault_put_bytes("", 0, "zeros.so");
    /* Where the file system has no files of that size: as long as it has. */
    if (truncate(fault_path("a-huge.so"), INT64_C(1) << 40) != 0) {
        assert_int_equal(truncate(fault_path("a-huge.so"), INT64_C(1) << 33), 0);
    }
    assert_int_equal(truncate(fault_path("zeros.so"), INT64_C(1) << 33), 0);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    fault_registry(0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    fault_expect("zeros.so", ATTN_VERDICT_NOT_ELF, "not an ELF file");
    fault_expect("a-huge.so", ATTN_VERDICT_OK, "");
    fault_expect_refused(GOOD_ID, ATTN_INVALID, "bytes, expected at most");
    assert_true(end.tv_sec - begin.tv_sec < 2);
}

FAULT_MAIN(FAULT_TEST(test))
