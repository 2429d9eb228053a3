/* Its constructor writes through a null pointer. */
#include "plain.h"

__attribute__((constructor)) static void start(void)
{
    volatile int *volatile nowhere = NULL;
    *nowhere = 1;
}

PLAIN_OP("org.attnplug.test.bad", "1");
