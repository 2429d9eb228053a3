/* Its constructor never returns. */
#include "plain.h"

#include <unistd.h>

__attribute__((constructor)) static void start(void)
{
    for (;;) {
        pause();
    }
}

PLAIN_OP("org.attnplug.test.bad", "1");
