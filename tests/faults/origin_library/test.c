/* Plugins are opened from a private copy, which lies elsewhere: $ORIGIN still means the folder of
 * the file.  (No fault, but what the cure for faults could have broken.) */
#include "fault.h"

static void put_library(void)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s", the_fault.plugin);
    char *slash = strrchr(path, '/');
    assert_non_null(slash);
    (void)snprintf(slash, sizeof path - (size_t)(slash - path), "/origin_library/libbeside.so");
    assert_int_equal(mkdir(fault_path("parts"), 0700), 0);
    fault_put(path, "parts/libattnplug_test_beside.so");
}

static void test_missing(void **state)
{
    (void)state;
    fault_registry(0);
    fault_expect_refused(BAD_ID, ATTN_NOT_FOUND, "libattnplug_test_beside.so");
    fault_expect_good();
}

static void test_untrusted(void **state)
{
    (void)state;
    put_library();
    assert_int_equal(chmod(fault_path("parts"), 0777), 0);
    fault_registry(0);
    fault_expect("bad.so", ATTN_VERDICT_UNTRUSTED, "its run path: others may write folder");
    fault_expect_good();
}

static void test_probed(void **state)
{
    (void)state;
    put_library();
    fault_registry_probe();
    fault_expect("bad.so", ATTN_VERDICT_OK, "");
}

static void test(void **state)
{
    (void)state;
    put_library();
    fault_registry(0);
    attn_host_op *op = fault_open(BAD_ID);
    fault_expect_right(op);
    assert_int_equal(attn_host_op_close(op), ATTN_OK);
}

FAULT_MAIN(FAULT_TEST(test_missing), FAULT_TEST(test_untrusted), FAULT_TEST(test_probed),
           FAULT_TEST(test))
