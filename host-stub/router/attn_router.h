/* attn_router.h: libattnplug's names and choice: which plugin serves a call.
 *
 * People know attention processors by many names; each stands for a processor and an op. `auto` is
 * the fastest op that takes the call. Conventions as in attn_host.h.
 */
#ifndef ATTN_ROUTER_H
#define ATTN_ROUTER_H

#include "attn_host.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------
 * Names
 * ------------------------------------------------------------------------------------------ */

typedef struct {
    uint32_t size; /* sizeof(attn_name) */
    uint32_t flags;
    const char *name; /* as people type it */
    const char
        *processor; /* short name of the processor, "+" between two; NULL: a name of an op alone */
    const char *op; /* short name of the op, or "auto" */
    const char *note; /* "" or one line of what is particular */
} attn_name;
#define ATTN_NAME_SDPA                                                                             \
    1u /* scale is 1/sqrt(D) and the upcast flags are cleared, as in torch's SDPA */
#define ATTN_NAME_EXACT 2u /* approximate ops are never taken */
#define ATTN_NAME_F32_AUTO                                                                         \
    4u /* fp32 takes auto, said once (AttnProcessorNPU); not where it stands for halves */

#define ATTN_NAME_TERMS                                                                            \
    8u /* "lora+ID": `processor` alone is the id, and its layers' linears get LoRA's terms */

/* Every name, in a fixed order; ATTN_NOT_FOUND past the end. Static. [any] */
ATTN_API attn_status attn_name_get(uint32_t index, attn_name *name);
/* Short names of processors and ops count too, and the ids of our own processors. An unknown one is
 * an error that says where the list is, and names the nearest where one is near. [any] */
ATTN_API attn_status attn_name_find(const char *text, attn_name *name, attn_error *err);
/* The plugin id that an op's short name (or whole id) means on a device: "memory_efficient" on CUDA
 * is "org.attnplug.cuda_flash". Written to id[64]. [any] */
ATTN_API attn_status attn_op_id(const char *op, const char *runtime, char id[64], attn_error *err);
/* "standard" -> "org.attnplug.standard". [any] */
ATTN_API attn_status attn_processor_id(const char *processor, char id[64], attn_error *err);

/* attn_name_find, and then the plugins that the registry found: by a whole id
 * ("com.example.flash"), or by an id's last part ("flash") where only one plugin has it and no name
 * of ours is the same. kinds: ATTN_NAME_OPS, ATTN_NAME_PROCESSORS, 0 for both; what names of ours
 * stand for is the caller's to look at. An id that no plugin has is an error that says which
 * folders were searched; a last part of several ids is one that lists them (ATTN_INVALID). The
 * texts live as long as the registry. [any] */
ATTN_API attn_status attn_name_find_in(attn_registry *registry, const char *text, uint32_t kinds,
                                       attn_name *name, attn_error *err);
#define ATTN_NAME_OPS        1u
#define ATTN_NAME_PROCESSORS 2u
/* attn_op_id, and the last part of an id that the registry found. [any] */
ATTN_API attn_status attn_op_id_in(attn_registry *registry, const char *op, const char *runtime,
                                   char id[64], attn_error *err);

/* ---------------------------------------------------------------------------------------------
 * Router: the ops of one device, opened when first asked for.
 * ------------------------------------------------------------------------------------------ */

typedef struct attn_router attn_router;
typedef struct attn_plan attn_plan; /* of one op, for one set of shapes */

/* host NULL: the registry's own thread pool. The router answers query("attn.attend/1") for the
 * plugins that it creates and passes other ids on to host->query. registry and host outlive it.
 * [any] */
ATTN_API attn_status attn_router_open(attn_registry *registry, const attn_device *device,
                                      const attn_host *host, attn_router **router, attn_error *err);
/* ATTN_BUSY while plans are not released. NULL does nothing. [owner] */
ATTN_API attn_status attn_router_close(attn_router *router);
/* Closes what it keeps for later and no call uses: plans and scratch of attn_attend_call, and ops
 * that the registry would not open again (replaced, retired or unregistered files). [any] */
ATTN_API void attn_router_trim(attn_router *router);
/* The host table that the router gives to plugins; also for opening processors. [any] */
ATTN_API const attn_host *attn_router_host(attn_router *router);
ATTN_API attn_registry *attn_router_registry(attn_router *router); /* [any] */

/* What a host of a device other than a CPU may offer by its query "attnplug.sum/1", so that ops
 * which work through others can add up what those gave ("attn.attend/1" hands it on). */
typedef struct {
    uint32_t size;
    uint32_t reserved;
    void *ctx;
    /* [any] y = a x + b y on the stream; fp32, same shapes, any strides; with b == 0 y is not read.
     */
    attn_status (*sum)(void *ctx, void *stream, float a, const attn_tensor *x, float b,
                       const attn_tensor *y, attn_error *err);
} attn_device_sum;

/* Chooses and prepares. op: a short name, an id or the last part of one (attn_name_find_in), or a
 * name as people know it (attn_name); NULL or "auto" leaves the choice to the router, in the order:
 * ATTNPLUG_OP, DIFFSYNTH_ATTENTION_IMPLEMENTATION, the measured order, the built-in one. An op
 * named by the caller that refuses the call is an error quoting its reason; with
 * ATTN_ROUTE_FALL_BACK another is taken, and said to the log once. params: for the op's create; ops
 * are kept per (op, params). [any] */
ATTN_API attn_status attn_router_prepare(attn_router *router, const char *op,
                                         const attn_param *params, uint32_t n_params,
                                         uint32_t flags, const attn_op_call *call, attn_plan **plan,
                                         uint64_t *scratch, attn_error *err);
#define ATTN_ROUTE_FALL_BACK                                                                       \
    1u /* for the layer that is asked for key_mass, and in fp32 for names with F32_AUTO */
#define ATTN_ROUTE_APPROXIMATE 2u /* auto may take approximate ops */
/* fp32 tensors in host memory that stand for halves: an op named by the caller which takes halves
 * alone gets them converted. (On a CPU, a model of halves is computed in fp32.) */
#define ATTN_ROUTE_AS_F16  4u
#define ATTN_ROUTE_AS_BF16 8u
ATTN_API const char *attn_plan_op(const attn_plan *plan); /* id of the op that was taken. [any] */
ATTN_API attn_status attn_plan_run(attn_plan *plan, const attn_op_call *call,
                                   attn_error *err); /* [plan] */
ATTN_API void attn_plan_release(attn_plan *plan);    /* [owner] NULL does nothing */

/* Checks that an op of that name is there and opens; the text says which file is missing. [any] */
ATTN_API attn_status attn_router_op(attn_router *router, const char *op, const attn_param *params,
                                    uint32_t n_params, attn_host_op **opened, attn_error *err);

/* One call, all in one: plans and scratch are kept by the router for the next call of the same
 * shapes and stream. CPU tensors, or device tensors where the op gives "attn.memory/1" for the
 * scratch. A stream that it was given lives until the router is trimmed or closed, which waits for
 * the work that was queued there before it lets go of plans and scratch. [any] */
ATTN_API attn_status attn_attend_call(attn_router *router, const char *op, const attn_op_call *call,
                                      attn_error *err);

/* A timing of `attnplug bench --tune`. The file is
 * ${XDG_CACHE_HOME:-~/.cache}/attnplug/order-<host name>: text, one row a line. Rows of another
 * version of an op count as not measured. */
typedef struct {
    uint32_t size;
    uint32_t reserved;
    char runtime[24]; /* "cpu", "cuda" */
    char dtype[8];    /* "f32", "f16", "bf16" */
    int64_t shape[5]; /* B, H, Nq, Nk, D */
    char op[64];      /* id */
    char version[16];
    double us; /* median */
} attn_order_row;
/* Replaces the file as a whole. path NULL: the user's. [any] */
ATTN_API attn_status attn_order_save(const char *path, const attn_order_row *rows, uint32_t n_rows,
                                     attn_error *err);
/* *n_rows gets how many the file has; no file is none. Routers read theirs when they open. [any] */
ATTN_API attn_status attn_order_load(const char *path, attn_order_row *rows, uint32_t capacity,
                                     uint32_t *n_rows, attn_error *err);

/* Why: each op in the order in which auto would ask, and what it said. Rows and texts are the
 * caller's: rows[capacity]; *n_rows gets how many there are in all. [any] */
typedef struct {
    uint32_t size;
    uint32_t taken;     /* 1 for the one that auto takes */
    char op[64];        /* id */
    char reason[256];   /* "" or why not */
    char source[64];    /* which rule put it at this place */
    double measured_us; /* 0 where nothing was measured */
} attn_why;
ATTN_API attn_status attn_router_why(attn_router *router, const attn_op_call *call, uint32_t flags,
                                     attn_why *rows, uint32_t capacity, uint32_t *n_rows,
                                     attn_error *err);

#ifdef __cplusplus
}
#endif

#endif /* ATTN_ROUTER_H */
