/* Wants its code written to while it is loaded. */
#include "plain.h"

#if defined(__x86_64__)
__asm__(".text\n.quad attn_op_v1\n");
#endif

PLAIN_OP("org.attnplug.test.bad", "1");
