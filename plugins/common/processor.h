/* processor.h: what every processor does alike, so that a processor's own file holds its formula
 * alone.
 *
 * A processor defines `processor_kind` and exports attn_processor_v1 with processor_create ..
 * processor_query below; it is compiled together with processor.c, forward.c, layer_check.c and
 * params.c.  prepare and run both call kind.forward, dry and real: steps that fail leave the reason
 * in work->status, and the steps after them do nothing, so that forward is straight code.
 */
#ifndef ATTN_COMMON_PROCESSOR_H
#define ATTN_COMMON_PROCESSOR_H

#include "attn_abi.h"
#include "tensor.h"

#include <stddef.h>

struct forward;

struct attn_processor {
    const attn_host *host;
    const attn_compute *compute;
    attn_device device;
};

/* Read-only once bound. */
struct attn_binding {
    attn_processor *processor;
    const attn_layer *layer; /* the host's, or a copy that kind.bind changed */
    void *state;             /* kind.state_bytes of the processor's own, zeroed before kind.bind */
    char who[160];           /* "standard: layer <name>", opens every text */
};

/* Keys and values that a plan keeps from a run for those with ATTN_LAYER_CALL_SAME. */
struct attn_layer_plan {
    const attn_binding *binding;
    void *kept; /* device memory */
    uint64_t kept_bytes;
    uint32_t filled; /* a run has filled it */
};

struct processor_kind {
    const char *name;              /* "standard" */
    const attn_param_list *params; /* what bind takes */
    size_t state_bytes;
    /* Checks the layer and its parameters and fills b->state; may point b->layer at a copy.  After
     * a failure unbind is called as well, on what there is. */
    attn_status (*bind)(attn_binding *b, const attn_param *params, uint32_t n, attn_work *work,
                        attn_error *err);
    void (*unbind)(attn_binding *b); /* may be NULL */
    void (*forward)(struct forward *f);
    const void *(*query)(const char *id); /* besides "attn.params/1"; may be NULL */
};
extern const struct processor_kind processor_kind;

/* The functions of attn_processor_api. */
attn_status processor_create(const attn_host *host, const attn_device *device,
                             const attn_param *params, uint32_t n_params,
                             attn_processor **processor, attn_error *err);
void processor_destroy(attn_processor *processor);
attn_status processor_bind(attn_processor *processor, const attn_layer *layer,
                           const attn_param *params, uint32_t n_params, attn_work *work,
                           attn_binding **binding, attn_error *err);
void processor_unbind(attn_binding *binding);
attn_status processor_prepare(attn_binding *binding, const attn_layer_call *call,
                              attn_layer_plan **plan);
attn_status processor_run(attn_layer_plan *plan, const attn_layer_call *call);
void processor_release(attn_layer_plan *plan);
const void *processor_query(const char *id);

#define PROCESSOR_DEVICES                                                                          \
    (UINT64_C(1) << ATTN_DEVICE_CPU | UINT64_C(1) << ATTN_DEVICE_CUDA |                            \
     UINT64_C(1) << ATTN_DEVICE_EXT)
#define PROCESSOR_DTYPES (ATTN_DTYPE_F32 | ATTN_DTYPE_F16 | ATTN_DTYPE_BF16)

/* The exported table.  flags_: besides CAPTURABLE and NEEDS_COMPUTE. */
/* NOLINTBEGIN(bugprone-macro-parentheses): string literals join only without them */
#define PROCESSOR_EXPORT(name_, flags_, summary_)                                                  \
    ATTN_EXPORT const attn_processor_api attn_processor_v1 = {                                     \
        .head = {.magic = ATTN_MAGIC,                                                              \
                 .abi = ATTN_ABI,                                                                  \
                 .size = sizeof(attn_processor_api),                                               \
                 .flags = ATTN_HEAD_CAPTURABLE | ATTN_HEAD_NEEDS_COMPUTE | (flags_),               \
                 .devices = PROCESSOR_DEVICES,                                                     \
                 .dtypes = PROCESSOR_DTYPES,                                                       \
                 .id = "org.attnplug." name_,                                                      \
                 .version = ATTNPLUG_VERSION,                                                      \
                 .vendor = "attnplug",                                                             \
                 .summary = summary_},                                                             \
        .create = processor_create,                                                                \
        .destroy = processor_destroy,                                                              \
        .bind = processor_bind,                                                                    \
        .unbind = processor_unbind,                                                                \
        .prepare = processor_prepare,                                                              \
        .run = processor_run,                                                                      \
        .release = processor_release,                                                              \
        .query = processor_query,                                                                  \
    }
/* NOLINTEND(bugprone-macro-parentheses) */

/* -- checks at bind (layer_check.c) ------------------------------------------------------------ */

/* The layer's numbers, and the shape of every weight that it has.  INVALID names layer and key. */
attn_status layer_check(const attn_binding *b, attn_error *err);
/* to_k and to_v are there. */
attn_status layer_check_keys(const attn_binding *b, attn_error *err);
/* One linear: `key` is diffusers' ("to_k").  out and in of the weight; in 0 is any. */
attn_status linear_check(const char *who, const char *key, const attn_linear *l, int64_t out,
                         int64_t in, attn_error *err);

#endif
