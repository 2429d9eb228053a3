/* Files and folders that somebody else may write are refused, unless the caller says otherwise in
 * code.  (Foreign owners can only be made by root; without root that part is skipped, and said.) */
#include "fault.h"

static void test_file(void **state)
{
    (void)state;
    fault_put(the_fault.good, "written.so");
    assert_int_equal(chmod(fault_path("written.so"), 0666), 0);
    fault_registry(0);
    fault_expect("written.so", ATTN_VERDICT_UNTRUSTED, "others may write the file (mode 0666)");
    fault_expect_good();
    assert_int_equal(chmod(fault_path("written.so"), 0644), 0);
    assert_int_equal(attn_registry_refresh(the_fault.registry, NULL), ATTN_OK);
    fault_expect("written.so", ATTN_VERDICT_DUPLICATE, GOOD_ID);
}

static void test_folder(void **state)
{
    (void)state;
    assert_int_equal(chmod(the_fault.folder, 0777), 0);
    fault_registry(0);
    fault_expect("good.so", ATTN_VERDICT_UNTRUSTED, "others may write folder");
    fault_expect_refused(GOOD_ID, ATTN_NOT_FOUND, "");
    assert_int_equal(chmod(the_fault.folder, 01777), 0); /* anybody may still add a file */
    fault_registry(0);
    fault_expect("good.so", ATTN_VERDICT_UNTRUSTED, "(mode 1777)");
    fault_registry(ATTN_REGISTRY_TRUST_ALL);
    fault_expect("good.so", ATTN_VERDICT_OK, "");
    fault_expect_good();
    assert_int_equal(chmod(the_fault.folder, 0700), 0);
}

/* A link in a trusted folder to a file in one that is not. */
static void test_link(void **state)
{
    (void)state;
    char target[160];
    assert_int_equal(mkdir(fault_path("open"), 0700), 0);
    (void)snprintf(target, sizeof target, "%s/plugin.so", fault_path("open"));
    fault_put(the_fault.good, "open/plugin.so");
    assert_int_equal(chmod(fault_path("open"), 0777), 0);
    unlink(fault_path("good.so"));
    assert_int_equal(symlink(target, fault_path("good.so")), 0);
    fault_registry(0);
    fault_expect("good.so", ATTN_VERDICT_UNTRUSTED, "/open (mode 0777)");
    assert_int_equal(chmod(fault_path("open"), 0700), 0);
    fault_registry(0);
    fault_expect_good();
}

static void test_owner(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        print_message("foreign owners: skipped, only root can make them\n");
        skip();
    }
    fault_put(the_fault.good, "foreign.so");
    assert_int_equal(chown(fault_path("foreign.so"), 65534, 65534), 0);
    fault_registry(0);
    fault_expect("foreign.so", ATTN_VERDICT_UNTRUSTED, "belongs to user 65534, expected root or 0");
    fault_expect_good();
    assert_int_equal(chown(the_fault.folder, 65534, 65534), 0);
    fault_registry(0);
    fault_expect("good.so", ATTN_VERDICT_UNTRUSTED, "belongs to user 65534");
    assert_int_equal(chown(the_fault.folder, 0, 0), 0);
}

FAULT_MAIN(FAULT_TEST(test_file), FAULT_TEST(test_folder), FAULT_TEST(test_link),
           FAULT_TEST(test_owner))
