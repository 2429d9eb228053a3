/* Looks for libraries from the current folder. */
#include "plain.h"

PLAIN_OP("org.attnplug.test.bad", "1");
