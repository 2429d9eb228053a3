/* Dies in its constructor, which leaves a byte in the file that the environment names. */
#include "plain.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("ATTNPLUG_TEST_LIVES");
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (fd >= 0) {
        (void)!write(fd, ".", 1);
        close(fd);
    }
    abort();
}

PLAIN_OP("org.attnplug.test.bad", "1");
