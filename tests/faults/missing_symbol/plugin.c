/* Calls a function that nothing defines. */
#include "plain.h"

double function_that_nobody_has(double x);

static attn_status bad_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    return function_that_nobody_has(1) > 0 ? plain_run(plan, c, err) : ATTN_INTERNAL;
}

const attn_op_api attn_op_v1 = {.head = PLAIN_HEAD("org.attnplug.test.bad", "1"),
                                .create = plain_create,
                                .destroy = plain_destroy,
                                .supports = plain_supports,
                                .prepare = plain_prepare,
                                .run = bad_run,
                                .release = plain_release};
