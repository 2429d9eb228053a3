/* Its constructor leaves a process behind that keeps every descriptor. */
#include "plain.h"

#include <unistd.h>

__attribute__((constructor)) static void start(void)
{
    if (fork() == 0) {
        for (;;) {
            pause();
        }
    }
}

PLAIN_OP("org.attnplug.test.bad", "1");
