/* attn_host.h: libattnplug, which finds attention plugins, opens them, and chooses among them.
 *
 * For engines that want more than dlopen and attn_abi.h.  Needs libc alone.  Every function returns
 * an attn_status and, through `err` (may be NULL), one line that names the thing, its value and
 * what was expected.  Nothing here prints, exits or aborts.  A struct whose `size` is smaller than
 * the library's is read up to its size; the rest counts as zero.
 *
 * Thread tags as in attn_abi.h: [any], [plan], [owner].
 */
#ifndef ATTN_HOST_H
#define ATTN_HOST_H

#include "attn_abi.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ATTN_API __attribute__((visibility("default")))

/* What a host's own functions return besides the contract's codes. */
#define ATTN_NOT_FOUND 64 /* no such file, name or plugin */
#define ATTN_IO        65 /* reading or writing failed */
#define ATTN_BUSY      66 /* in use by a call or an object that is still open */
#define ATTN_CANCELLED 67 /* the caller asked to stop */

/* "0.1.0". [any] */
ATTN_API const char *attn_host_version(void);

/* "ok", "unsupported", ... for a status. Static. [any] */
ATTN_API const char *attn_status_name(attn_status status);

/* ---------------------------------------------------------------------------------------------
 * Threads: a pool that any engine may use as its attn_host.
 * ------------------------------------------------------------------------------------------ */

typedef struct attn_pool attn_pool;
/* n_threads 0: one per core that this process may run on; at most 4096. [any] */
ATTN_API attn_status attn_pool_open(uint32_t n_threads, attn_pool **pool, attn_error *err);
/* No call is in progress. NULL does nothing. [owner] */
ATTN_API void attn_pool_close(attn_pool *pool);
/* A host table with this pool's parallel_for, without log and query; lives as long as the pool.
 * Fill in a copy to add them. [any] */
ATTN_API const attn_host *attn_pool_host(attn_pool *pool);

/* ---------------------------------------------------------------------------------------------
 * Registry: the plugin files that there are, and what became of each.
 * ------------------------------------------------------------------------------------------ */

typedef struct attn_registry attn_registry;

typedef struct {
    uint32_t size; /* sizeof(attn_registry_options) */
    uint32_t flags;
    const char *const *paths; /* n_paths folders or files, searched first; copied */
    uint32_t n_paths;
    uint32_t reserved;
    /* One line of UTF-8, levels as in attn_host. May be NULL. [any] */
    void (*log)(void *ctx, int32_t level, const char *text);
    void *log_ctx;
} attn_registry_options;
#define ATTN_REGISTRY_ONLY_PATHS 1u /* no environment, user or installed folders */
#define ATTN_REGISTRY_PROBE      2u /* open each file in a child process first (as ATTNPLUG_PROBE=1) */
#define ATTN_REGISTRY_TRUST_ALL                                                                    \
    4u /* take files and folders that others may write, executable stacks, relative run paths */
#define ATTN_REGISTRY_IN_PLACE                                                                     \
    8u /* map the files themselves, so that profilers know them; overwriting one then kills */

/* What was made of one file. */
typedef struct {
    uint32_t size;
    uint32_t verdict;    /* ATTN_VERDICT_... */
    const char *path;    /* as found; UTF-8 as the file system has it */
    const char *reason;  /* one line; for ATTN_VERDICT_OK "", or that it was unregistered */
    const attn_head *op; /* NULL if the file has no op, or was not read that far */
    const attn_head *processor;
} attn_file_info;

#define ATTN_VERDICT_OK          0u
#define ATTN_VERDICT_NO_ENTRY    1u /* neither symbol */
#define ATTN_VERDICT_BAD_ABI     2u /* magic, abi or size */
#define ATTN_VERDICT_NO_V1       3u /* only symbols of later contracts */
#define ATTN_VERDICT_TRUNCATED   4u /* shorter than its own tables say */
#define ATTN_VERDICT_BAD_ELF     5u /* tables that contradict themselves */
#define ATTN_VERDICT_NOT_ELF     6u
#define ATTN_VERDICT_BAD_FILE    7u /* cannot be opened or read */
#define ATTN_VERDICT_NOT_REGULAR 8u /* FIFO, device, directory */
#define ATTN_VERDICT_WRONG_ARCH  9u
#define ATTN_VERDICT_UNRESOLVED  10u /* dlopen: a library or symbol is missing */
#define ATTN_VERDICT_BAD_HEAD    11u /* texts, functions or ids that cannot be */
#define ATTN_VERDICT_DUPLICATE   12u /* an earlier file has the id */
#define ATTN_VERDICT_UNTRUSTED                                                                     \
    13u                          /* somebody else may write it, or it asks for what is refused     \
                                  */
#define ATTN_VERDICT_CRASHED 14u /* the probe died, hung or lied */
#define ATTN_VERDICT_RETIRED 15u /* broke the contract while in use */

/* "OK", "NO_ENTRY", ... Static. [any] */
ATTN_API const char *attn_verdict_name(uint32_t verdict);

/* Looks through the folders: those of options->paths, ATTNPLUG_PATH, the user's and the installed
 * one (abi/ABI.md, rule on search order). Reads heads, runs no plugin code. A file that is no good
 * gets its verdict and stops nothing. options may be NULL. [any] */
ATTN_API attn_status attn_registry_open(const attn_registry_options *options,
                                        attn_registry **registry, attn_error *err);
/* Everything opened from it is closed. NULL does nothing. [owner] */
ATTN_API void attn_registry_close(attn_registry *registry);
/* Looks again: new files are taken up, changed ones serve what is opened from now on, deleted ones
 * are forgotten; objects that are open stay on the code that they were opened with. [any] */
ATTN_API attn_status attn_registry_refresh(attn_registry *registry, attn_error *err);
/* Takes the plugin with that id out of use: nothing opens it any more, until its file changes. With
 * objects of it open: ATTN_BUSY and nothing changes; with ATTN_UNREGISTER_WAIT it is taken out at
 * once and the call returns when the last of them is closed. Ops that a router keeps count (see
 * attn_router_trim). [any], but not from a thread that has such an object to close. */
ATTN_API attn_status attn_registry_unregister(attn_registry *registry, const char *id,
                                              uint32_t flags, attn_error *err);
#define ATTN_UNREGISTER_WAIT 1u
/* Files seen, in search order. Infos stay valid until close. [any] */
ATTN_API uint32_t attn_registry_count(attn_registry *registry);
ATTN_API attn_status attn_registry_file(attn_registry *registry, uint32_t index,
                                        attn_file_info *info);

/* ---------------------------------------------------------------------------------------------
 * Opened ops and processors: plugins behind a checked boundary. Results that the contract does not
 * allow become ATTN_INTERNAL and retire the plugin; `run` adds a few nanoseconds to a direct call.
 * Ids are whole ("org.attnplug.math"). `host` NULL is the registry's own thread pool.
 * ------------------------------------------------------------------------------------------ */

typedef struct attn_host_op attn_host_op;
typedef struct attn_host_op_plan attn_host_op_plan;

/* [any] dlopens the file when it is the first. Texts of refusals name the file. ATTN_NOT_FOUND: no
 * usable file has the id; the text says which were refused, or where it was looked for. */
ATTN_API attn_status attn_host_op_open(attn_registry *registry, const char *id,
                                       const attn_device *device, const attn_host *host,
                                       const attn_param *params, uint32_t n_params,
                                       attn_host_op **op, attn_error *err);
/* [owner] ATTN_BUSY while plans are not released. NULL does nothing. */
ATTN_API attn_status attn_host_op_close(attn_host_op *op);
ATTN_API const attn_head *attn_host_op_head(const attn_host_op *op);       /* [any] */
ATTN_API const char *attn_host_op_path(const attn_host_op *op);            /* [any] */
ATTN_API const void *attn_host_op_query(attn_host_op *op, const char *id); /* [any] */
ATTN_API attn_op *attn_host_op_instance(attn_host_op *op); /* [any] for what query returned */
/* [any] */
ATTN_API attn_status attn_host_op_supports(attn_host_op *op, const attn_op_call *call,
                                           attn_error *err);
/* [any] */
ATTN_API attn_status attn_host_op_prepare(attn_host_op *op, const attn_op_call *call,
                                          attn_host_op_plan **plan, uint64_t *scratch,
                                          attn_error *err);
/* [plan] */
ATTN_API attn_status attn_host_op_run(attn_host_op_plan *plan, const attn_op_call *call,
                                      attn_error *err);
/* [owner] NULL does nothing. */
ATTN_API void attn_host_op_release(attn_host_op_plan *plan);

typedef struct attn_host_processor attn_host_processor;
typedef struct attn_host_binding attn_host_binding;
typedef struct attn_host_layer_plan attn_host_layer_plan;

/* [any] As attn_host_op_open. */
ATTN_API attn_status attn_host_processor_open(attn_registry *registry, const char *id,
                                              const attn_device *device, const attn_host *host,
                                              const attn_param *params, uint32_t n_params,
                                              attn_host_processor **processor, attn_error *err);
/* [owner] ATTN_BUSY while bindings are not unbound. NULL does nothing. */
ATTN_API attn_status attn_host_processor_close(attn_host_processor *processor);
/* [any] */
ATTN_API const attn_head *attn_host_processor_head(const attn_host_processor *processor);
ATTN_API const char *attn_host_processor_path(const attn_host_processor *processor); /* [any] */
/* [any] */
ATTN_API const void *attn_host_processor_query(attn_host_processor *processor, const char *id);
/* [any] layer and all it points to stay as they are until unbind; work has the stream. */
ATTN_API attn_status attn_host_processor_bind(attn_host_processor *processor,
                                              const attn_layer *layer, const attn_param *params,
                                              uint32_t n_params, attn_work *work,
                                              attn_host_binding **binding, attn_error *err);
/* [owner] ATTN_BUSY while plans are not released. NULL does nothing. */
ATTN_API attn_status attn_host_processor_unbind(attn_host_binding *binding);
/* [any] The text of a failure, here and of run, goes to call->work->err. */
ATTN_API attn_status attn_host_processor_prepare(attn_host_binding *binding,
                                                 const attn_layer_call *call,
                                                 attn_host_layer_plan **plan);
/* [plan] */
ATTN_API attn_status attn_host_processor_run(attn_host_layer_plan *plan,
                                             const attn_layer_call *call);
/* [owner] NULL does nothing. */
ATTN_API void attn_host_processor_release(attn_host_layer_plan *plan);

#ifdef __cplusplus
}
#endif

#endif /* ATTN_HOST_H */
