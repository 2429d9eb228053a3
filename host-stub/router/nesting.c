/* nesting.c: an op may work through another op, but not through itself, and not without end. */
#include "router.h"

#include <string.h>

enum { MAX_DEPTH = 4 };

static _Thread_local const nesting *innermost;

attn_status nesting_enter(nesting *n, const char *id, attn_error *err)
{
    int depth = 0;
    for (const nesting *o = innermost; o; o = o->outer) {
        if (strcmp(o->id, id) == 0) {
            return attn_fail(err, ATTN_INVALID, "%s works through itself", id);
        }
        depth++;
    }
    if (depth >= MAX_DEPTH) {
        return attn_fail(err, ATTN_INVALID, "%s: the %dth op inside another, expected at most %d",
                         id, depth + 1, MAX_DEPTH);
    }
    n->outer = innermost;
    n->id = id;
    innermost = n;
    return ATTN_OK;
}

void nesting_leave(const nesting *n)
{
    innermost = n->outer;
}
