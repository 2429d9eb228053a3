/* Asks for an executable stack (linked with -z execstack). */
#include "plain.h"

PLAIN_OP("org.attnplug.test.bad", "1");
