/* A right plugin, linked by lld where there is one. */
#include "plain.h"

PLAIN_OP("org.attnplug.test.bad", "1");
