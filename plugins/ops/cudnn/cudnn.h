/* What the files of this plugin share. */
#ifndef CUDNN_PLUGIN_H
#define CUDNN_PLUGIN_H

#include "attn_abi.h"
#include "cudnn_abi.h"
#include "op_call.h"

#include <pthread.h>

#define NAME "cudnn"

/* ---- cudnn_load.c ---- */

struct cudnn_api {
#define CUDNN_MEMBER(result, name, arguments) result(*name) arguments;
    CUDNN_FUNCTIONS(CUDNN_MEMBER)
#undef CUDNN_MEMBER
};

/* The library, opened once for the process and kept. `library` is what dlopen is asked for. */
attn_status cudnn_load(const char *library, const struct cudnn_api **api, attn_error *err);

/* `what` failed with cuDNN's `code`: a status of the contract, and a text with cuDNN's own. */
attn_status cudnn_fail(const struct cudnn_api *api, attn_error *err, const char *what, int code);

/* ---- cudnn_take.c: which calls; plain C, needs neither GPU nor library ---- */

struct cudnn_call {
    struct op_shape shape;
    int causal;    /* key j is seen where j <= i + shift */
    int64_t shift; /* Nk - Nq (bottom right) or 0 */
    int stats;     /* lse is wanted */
};

/* Reads no data. `chip` is major * 10 + minor of the compute capability, `version` cuDNN's. */
attn_status cudnn_take(const attn_op_call *call, int device, int chip, size_t version,
                       struct cudnn_call *out, attn_error *err);

/* ---- cudnn_graph.c: the call as a graph of operations, and its compiled plan ---- */

/* Numbers of the tensors that run gives addresses to. */
enum {
    UID_Q = 1,
    UID_K,
    UID_V,
    UID_OUT,
    UID_STATS,
    UID_SCALE,
    UID_HIDDEN,
    UID_NK,
    UID_NQ,
    UID_VIRTUAL
};

enum { CUDNN_MOST_DESCRIPTORS = 80 };

/* A tensor of four dimensions as cuDNN is told of it, one stride for each memory layout: what a
 * caller wrote as the stride of a dimension of one element is not read. */
struct cudnn_view {
    int64_t dims[4], strides[4];
};

/* All that a graph is made from: calls of equal keys can run one compiled plan. Addresses, the
 * scale and the numbers of rows that causal rows are shifted by come with each run. Compared as
 * bytes, so that there is no padding. */
struct cudnn_key {
    struct cudnn_view q, k, v, out, stats; /* stats: zeros where lse is not wanted */
    int32_t type;                          /* CUDNN_DATA_HALF or CUDNN_DATA_BFLOAT16 */
    int32_t causal, shifted, wants_stats;  /* 0 or 1 */
};

struct cudnn_graph {
    const struct cudnn_api *api;
    cudnnBackendDescriptor_t made[CUDNN_MOST_DESCRIPTORS];
    int n_made;
    cudnnBackendDescriptor_t plan; /* one of them */
    int64_t workspace;             /* bytes of device memory that a run takes */
};

/* Of a call that cudnn_take took and that has queries. */
struct cudnn_key cudnn_graph_key(const attn_op_call *call, const struct cudnn_call *what);

/* Builds and compiles; on failure nothing is left. `handle` is of the current device. */
attn_status cudnn_graph_open(struct cudnn_graph *graph, const struct cudnn_api *api,
                             cudnnHandle_t handle, const struct cudnn_key *key, attn_error *err);
void cudnn_graph_close(struct cudnn_graph *graph);

/* ---- cudnn_cache.c: one compiled graph for all plans of equal calls ---- */

struct cudnn_shared {
    struct cudnn_graph graph; /* unchanged while it has users */
    struct cudnn_key key;
    int users;
    struct cudnn_shared *next;
};

/* A device's part of cuDNN, for the process's whole life: closing a handle leaves memory of cuDNN's
 * behind. */
struct cudnn_device {
    pthread_mutex_t lock; /* of what follows and of each call that takes the handle */
    const struct cudnn_api *api;
    cudnnHandle_t handle;        /* NULL: not opened yet */
    struct cudnn_shared *graphs; /* what was released last comes first */
    int idle;                    /* how many of them have no users */
};

/* Graphs without users that a device keeps. The U-Net of SD 1.5 has 8 kinds of attention, that of
 * SDXL 4: an engine that sets up two models again, each at two batch sizes, compiles nothing. */
enum { CUDNN_MOST_IDLE = 32 };

/* The graph of that key, compiled now if none is there; its user hands it back with
 * cudnn_cache_put. Both take the lock, from any thread; the device is current. On failure nothing
 * is left. */
attn_status cudnn_cache_get(struct cudnn_device *device, const struct cudnn_key *key,
                            struct cudnn_shared **shared, attn_error *err);
void cudnn_cache_put(struct cudnn_device *device, struct cudnn_shared *shared);

#endif
