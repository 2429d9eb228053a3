/* Ends the process in run, as some kernels do on a chip that they do not know. */
#include "plain.h"

#include <stdlib.h>

static attn_status bad_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    (void)plan, (void)c, (void)err;
    exit(1);
}
#define plain_run bad_run

PLAIN_OP("org.attnplug.test.bad", "1");
