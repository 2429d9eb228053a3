/* Links that lead to nothing, to themselves, or to a folder. */
#include "fault.h"

static void link_to(const char *target, const char *name)
{
    assert_int_equal(symlink(target, fault_path(name)), 0);
}

static void test(void **state)
{
    (void)state;
    link_to("/nonexistent/plugin.so", "dangling.so");
    link_to("loop.so", "loop.so");
    link_to("/tmp", "folder.so");
    fault_registry(0);
    fault_expect("dangling.so", ATTN_VERDICT_BAD_FILE, "a link to nowhere");
    fault_expect("loop.so", ATTN_VERDICT_BAD_FILE, "a link that leads to itself");
    fault_expect("folder.so", ATTN_VERDICT_NOT_REGULAR, "a folder");
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
