/* A right plugin; the test damages its dynamic table. */
#include "plain.h"

PLAIN_OP("org.attnplug.test.bad", "1");
