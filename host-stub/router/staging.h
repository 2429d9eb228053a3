/* staging.h: ops that cannot read the router's tensors as they are, served from copies.
 *
 * A router for the CPU has tensors in host memory.  An op of another device that gives
 * "attn.memory/1" is run on copies there; one that does not take fp32 is given halves, where the
 * caller says that those stand for the same values.  The copies are dense, and one allocation on
 * either side, taken when the plan is made: a run copies in, runs, copies out and waits. */
#ifndef ATTNPLUG_ROUTER_STAGING_H
#define ATTNPLUG_ROUTER_STAGING_H

#include "router.h"

typedef struct staging staging;

/* The device that an op of the registry is opened for: the router's, or its own where that is not
 * one of the op's and the router has host tensors. */
attn_device staging_device(attn_router *router, const char *id);

/* Whether this call needs copies. flags: ATTN_ROUTE_AS_... */
bool staging_needed(const attn_router *router, const op_entry *entry, uint32_t flags,
                    const attn_op_call *call);
/* The call as the op gets it, without data. */
void staging_call(const op_entry *entry, uint32_t flags, const attn_op_call *call,
                  attn_op_call *staged);

/* scratch: what the op asked for. */
attn_status staging_create(op_entry *entry, const attn_op_call *staged, uint64_t scratch,
                           staging **out, attn_error *err);
attn_status staging_run(staging *s, attn_host_op_plan *plan, const attn_op_call *call,
                        attn_error *err);
void staging_free(staging *s); /* NULL does nothing */

/* staging_copy.c: elements of one strided host tensor into another of the same shape, converted
 * between fp32 and the halves, or of one type. */
void staging_copy(const attn_tensor *from, const attn_tensor *to);

#endif
