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

/* A run path that leads where nothing is yet: whoever may make the folder has the plugin load a
 * library from it.  (The plugin's leads to /tmp/attnplug-is-not-here/lib.) */
static void test_run_path(void **state)
{
    (void)state;
    fault_registry(0);
    fault_expect("bad.so", ATTN_VERDICT_UNTRUSTED,
                 "its run path: others may write folder /tmp (mode 1777)");
    fault_expect_good();
}

/* A file whose folder's own path is longer than a path can be, reached through links. */
static void test_untold_folder(void **state)
{
    char name[201], here[1024];
    (void)state;
    assert_non_null(getcwd(here, sizeof here));
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    assert_int_equal(chdir(the_fault.folder), 0);
    for (int i = 0; i < 24; i++) {
        assert_int_equal(mkdir(name, 0700), 0);
        assert_int_equal(chdir(name), 0);
    }
    assert_int_equal(rename(fault_path("bad.so"), "deep.so"), 0);
    for (int i = 0; i < 24; i += 8) { /* so many folders up, by a link there to the one below */
        char path[8 * sizeof name + 8];
        (void)snprintf(path, sizeof path, "%s/%s/%s/%s/%s/%s/%s/%s%s", name, name, name, name, name,
                       name, name, name, i ? "/down" : "");
        assert_int_equal(chdir("../../../../../../../.."), 0);
        assert_int_equal(symlink(path, "down"), 0);
    }
    fault_registry(0);
    const char *deep = fault_path("down/deep.so");
    attn_registry *registry = NULL;
    attn_registry_options options = {
        .size = sizeof options, .flags = ATTN_REGISTRY_ONLY_PATHS, .paths = &deep, .n_paths = 1};
    attn_file_info info = {.size = sizeof info};
    assert_int_equal(attn_registry_open(&options, &registry, NULL), ATTN_OK);
    assert_int_equal(attn_registry_file(registry, 0, &info), ATTN_OK);
    if (info.verdict != ATTN_VERDICT_UNTRUSTED || !strstr(info.reason, "its folder")) {
        fail_msg("%s: %s (%s)", info.path, attn_verdict_name(info.verdict), info.reason);
    }
    attn_registry_close(registry);
    assert_int_equal(system("rm -rf nnn*"), 0); /* nftw would want paths */
    assert_int_equal(chdir(here), 0);
}

FAULT_MAIN(FAULT_TEST(test_file), FAULT_TEST(test_folder), FAULT_TEST(test_link),
           FAULT_TEST(test_owner), FAULT_TEST(test_run_path), FAULT_TEST(test_untold_folder))
