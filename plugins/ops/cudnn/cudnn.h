/* What the files of this plugin share. */
#ifndef CUDNN_PLUGIN_H
#define CUDNN_PLUGIN_H

#include "attn_abi.h"
#include "cudnn_abi.h"
#include "op_call.h"

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

struct cudnn_graph {
    const struct cudnn_api *api;
    cudnnBackendDescriptor_t made[CUDNN_MOST_DESCRIPTORS];
    int n_made;
    cudnnBackendDescriptor_t plan; /* one of them */
    int64_t workspace;             /* bytes of device memory that a run takes */
};

/* Builds and compiles; on failure nothing is left. `handle` is of the current device. */
attn_status cudnn_graph_open(struct cudnn_graph *graph, const struct cudnn_api *api,
                             cudnnHandle_t handle, const attn_op_call *call,
                             const struct cudnn_call *what, attn_error *err);
void cudnn_graph_close(struct cudnn_graph *graph);

#endif
