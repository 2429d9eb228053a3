/* Its constructor aborts. */
#include "plain.h"

#include <stdlib.h>

__attribute__((constructor)) static void start(void)
{
    abort();
}

PLAIN_OP("org.attnplug.test.bad", "1");
