/* Brings a library of its own in a folder beside it, found through $ORIGIN. */
#include "plain.h"

double beside(double x);

static attn_status beside_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    return beside(20) == 42 ? plain_run(plan, c, err) : ATTN_INTERNAL;
}
#define plain_run beside_run

PLAIN_OP("org.attnplug.test.bad", "1");
