/* router.h: the router's inside. */
#ifndef ATTNPLUG_ROUTER_ROUTER_H
#define ATTNPLUG_ROUTER_ROUTER_H

#include "attn_router.h"
#include "error.h"
#include "opened.h"
#include "order.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* An op opened with its parameters.  Entries stay in the list until the router closes, so that it
 * can be read without a lock; the op of one that is out of date closes with its last user. */
typedef struct op_entry {
    struct op_entry *next;
    attn_host_op *op;
    attn_device device; /* that the op was opened for: the router's, or see staging.h */
    char id[64];
    attn_param *params; /* own copies */
    uint32_t n_params;
    _Atomic uint64_t generation; /* of the registry, when the op was last known to be current */
    _Atomic uint32_t refs;       /* 1 for being current, 1 for each user; 0: closed */
    _Atomic uint32_t stale;
    _Atomic uint32_t lent; /* to a caller of attn_router_op: open until the router closes */
} op_entry;

struct attn_plan {
    attn_router *router;
    op_entry *entry;
    attn_host_op_plan *inner;
    struct staging *staging; /* NULL: the op takes the tensors as they are */
};

struct attend_cache; /* attend.c */

struct attn_router {
    attn_registry *registry;
    attn_device device;
    const attn_host *base; /* the caller's, or the pool's */
    attn_host host;        /* what plugins get */
    attn_attend attend;    /* "attn.attend/1" */
    op_entry *_Atomic entries;
    _Atomic uint32_t plans; /* not yet released */
    char op_wanted[96];     /* ATTNPLUG_OP when the router was opened, "" if it was not set */
    char diffsynth_wanted[96];
    measured_order order;
    pthread_mutex_t lock; /* adding entries, `said`; never held while plugin code runs */
    uint64_t said[32];    /* hashes of what the log was told once */
    uint32_t n_said;
    struct attend_cache *cache;
};

/* ops.c --------------------------------------------------------------------------------------- */

/* The op of that id with these parameters, opened when first wanted; counted. */
attn_status ops_get(attn_router *router, const char *id, const attn_param *params,
                    uint32_t n_params, op_entry **entry, attn_error *err);
void ops_put(op_entry *entry);
void ops_trim(attn_router *router); /* those that are out of date */
void ops_close(attn_router *router);

/* choice.c ------------------------------------------------------------------------------------ */

typedef struct {
    char id[64];
    bool approximate;
    char source[64]; /* the rule that put it at its place */
    double measured_us;
    int place;      /* in the built-in order */
    uint32_t found; /* position among the files */
} candidate;

/* What is to be taken, by the order of precedence. */
typedef struct {
    char id[64];        /* "": auto */
    char said[96];      /* the name as it was given */
    const char *source; /* "the caller", "ATTNPLUG_OP", ... */
    bool falls_back;    /* a refusal lets auto choose, said once */
    bool exact;         /* auto takes no approximate op */
} request;

attn_status choice_request(attn_router *router, const char *op, uint32_t flags,
                           const attn_op_call *call, request *r, attn_error *err);
/* All ops for the router's device, in the order in which auto asks.  The caller frees *out. */
attn_status choice_candidates(attn_router *router, const attn_op_call *call, candidate **out,
                              uint32_t *n, attn_error *err);

/* plan.c -------------------------------------------------------------------------------------- */

/* Opens the op, asks it, and prepares. flags: ATTN_ROUTE_AS_... */
attn_status plan_try(attn_router *router, const char *id, const attn_param *params,
                     uint32_t n_params, uint32_t flags, const attn_op_call *call, attn_plan **plan,
                     uint64_t *scratch, attn_error *err);
/* Opens the op and asks it. */
attn_status plan_ask(attn_router *router, const char *id, const attn_op_call *call,
                     attn_error *err);
/* To the log, unless the same was said before. */
__attribute__((format(printf, 3, 4))) void router_say_once(attn_router *router, int32_t level,
                                                           const char *format, ...);

/* nesting.c ----------------------------------------------------------------------------------- */

/* Ops that this thread is inside of, so that one that works through itself is found out. */
typedef struct nesting {
    const struct nesting *outer;
    const char *id;
} nesting;
attn_status nesting_enter(nesting *n, const char *id, attn_error *err);
void nesting_leave(const nesting *n);

/* attend.c, interface.c ----------------------------------------------------------------------- */

attn_status attend_cache_create(attn_router *router, attn_error *err);
/* Releases what no call is using. */
void attend_cache_trim(attn_router *router);
void attend_cache_destroy(attn_router *router);
void interface_init(attn_router *router);

/* call_check.c -------------------------------------------------------------------------------- */

/* Shapes, types and flags of a call against attn_abi.h section 3: INVALID names the tensor. */
attn_status call_check(const attn_op_call *call, const attn_device *device, attn_error *err);
/* "f32", "f16", ... of the call's query. */
const char *call_dtype_name(const attn_op_call *call);
/* Its bit in attn_head.dtypes, 0 if it has none. */
uint64_t call_dtype_bit(const attn_op_call *call);

#endif
