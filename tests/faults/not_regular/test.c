/* A FIFO hangs whoever opens it, a device may act: neither is ever opened. */
#include "fault.h"

#include <sys/socket.h>
#include <sys/un.h>

static void make_socket(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%.100s", fault_path(name));
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
}

static void test(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(fault_path("fifo.so"), 0600), 0);
    assert_int_equal(mkdir(fault_path("folder.so"), 0700), 0);
    assert_int_equal(symlink("/dev/zero", fault_path("device.so")), 0);
    make_socket("socket.so");
    fault_registry(0);
    fault_expect("fifo.so", ATTN_VERDICT_NOT_REGULAR, "a FIFO");
    fault_expect("folder.so", ATTN_VERDICT_NOT_REGULAR, "a folder");
    fault_expect("device.so", ATTN_VERDICT_NOT_REGULAR, "a device or socket");
    fault_expect("socket.so", ATTN_VERDICT_NOT_REGULAR, "a device or socket");
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
