/* A host with raised privileges asks neither the environment nor the user where plugins are.  The
 * test makes itself such a host: a copy of it, owned by another user, setuid.  Only root can do
 * that; without root, or where files of /tmp may not raise privileges, it is skipped, and says so.
 */
#include "fault.h"

#include <sys/auxv.h>
#include <sys/wait.h>

enum { NOT_RAISED = 3, ASKED = 4 };

static const char *self;

/* In the copy: is anything of the environment's folder seen? */
static int inside(const char *folder)
{
    attn_registry *registry = NULL;
    attn_file_info info = {.size = sizeof info};
    int status = 0;
    if (!getauxval(AT_SECURE)) {
        return NOT_RAISED;
    }
    if (attn_registry_open(NULL, &registry, NULL) != ATTN_OK) {
        return 1;
    }
    for (uint32_t i = 0; attn_registry_file(registry, i, &info) == ATTN_OK; i++) {
        if (strncmp(info.path, folder, strlen(folder)) == 0) {
            status = ASKED;
        }
    }
    attn_registry_close(registry);
    return status;
}

static int run_copy(void)
{
    char copy[128], command[512];
    (void)snprintf(copy, sizeof copy, "%s", fault_path("host"));
    fault_put(self, "host");
    assert_int_equal(chmod(the_fault.folder, 0755), 0);
    assert_int_equal(chmod(fault_path("good.so"), 0644), 0);
    assert_int_equal(chown(copy, 65534, 65534), 0);
    assert_int_equal(chmod(copy, 04755), 0);
    (void)snprintf(command, sizeof command, "%s --inside %s", copy, the_fault.folder);
    int status = system(command); /* NOLINT: the command is this test's own */
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test(void **state)
{
    (void)state;
    if (geteuid() != 0 || FAULT_SANITIZED) {
        print_message("skipped: needs root, and a program without a sanitizer's runtime\n");
        skip();
    }
    setenv("ATTNPLUG_PATH", the_fault.folder, 1);
    setenv("XDG_DATA_HOME", the_fault.folder, 1);
    attn_registry *registry = NULL;
    attn_file_info info = {.size = sizeof info};
    assert_int_equal(attn_registry_open(NULL, &registry, NULL), ATTN_OK);
    assert_int_equal(attn_registry_file(registry, 0, &info), ATTN_OK);
    assert_string_equal(info.path, fault_path("good.so")); /* asked without raised privileges */
    attn_registry_close(registry);
    int status = run_copy();
    if (status == NOT_RAISED) {
        print_message("skipped: files of %s do not raise privileges\n", the_fault.folder);
        skip();
    }
    assert_int_equal(status, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {FAULT_TEST(test)};
    if (argc == 3 && strcmp(argv[1], "--inside") == 0) {
        return inside(argv[2]);
    }
    self = argv[0];
    return fault_main(argc, argv, tests, 1);
}
