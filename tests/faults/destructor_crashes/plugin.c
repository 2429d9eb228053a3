/* Its destructor crashes when the process ends. */
#include "plain.h"

#include <stdlib.h>

__attribute__((destructor)) static void end(void)
{
    abort();
}

PLAIN_OP("org.attnplug.test.bad", "1");
