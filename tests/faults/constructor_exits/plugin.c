/* Its constructor ends the process with status 0. */
#include "plain.h"

#include <stdlib.h>

__attribute__((constructor)) static void start(void)
{
    exit(0);
}

PLAIN_OP("org.attnplug.test.bad", "1");
