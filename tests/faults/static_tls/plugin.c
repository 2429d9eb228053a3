/* Wants more static thread-local storage than a process that already runs can give. */
#include "plain.h"

__attribute__((tls_model("initial-exec"))) static _Thread_local char huge[1 << 20];

static attn_status bad_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    huge[c->size % sizeof huge]++;
    return plain_run(plan, c, err);
}
#define plain_run bad_run

PLAIN_OP("org.attnplug.test.bad", "1");
