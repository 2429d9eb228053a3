/* A right plugin, its relative relocations packed (DT_RELR) where the linker can. */
#include "plain.h"

PLAIN_OP("org.attnplug.test.bad", "1");
