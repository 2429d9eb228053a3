/* Computes something else. */
#include "plain.h"

static attn_status bad_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    attn_status status = plain_run(plan, c, err);
    *(float *)c->out.data += 1;
    return status;
}
#define plain_run bad_run

PLAIN_OP("org.attnplug.test.bad", "1");
