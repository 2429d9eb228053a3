/* Looks for its libraries in a folder that is not there, and that anybody may make. */
#include "plain.h"

PLAIN_OP("org.attnplug.test.bad", "1");
