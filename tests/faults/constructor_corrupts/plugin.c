/* Its constructor writes over the heap's own data. */
#include "plain.h"

#include <stdlib.h>

__attribute__((constructor)) static void start(void)
{
    volatile char *block = malloc(24); /* volatile: a compiler may leave out what cannot be right */
    for (int i = -16; i < 4096; i++) {
        block[i] = 0x41;
    }
}

PLAIN_OP("org.attnplug.test.bad", "1");
