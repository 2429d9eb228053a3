/* A right plugin whose run path names many folders, as package managers write it. */
#include "plain.h"

PLAIN_OP("org.attnplug.test.bad", "1");
