/* replay.c: queued work that comes again and again, as a CUDA graph.
 *
 * A recording belongs to its pass, as plans do.  It is made at the first real run of the work that
 * it stands for, when everything that the work needs has been loaded by an earlier run of the same
 * operations, and made anew when an address changes.  Work that cannot be recorded (an op that
 * waits for the device) runs as it is. */
#include "cuda.h"

#include <stdlib.h>

#define KEY_MAX 2048

struct recording {
    cudaGraphExec_t graph; /* NULL: not recorded yet */
    bool refused;
    uint64_t base, used; /* of the arena when it was recorded */
    size_t key_bytes;
    unsigned char key[KEY_MAX];
};

static void recording_release(struct compute *c, void *value)
{
    struct recording *r = value;
    (void)c;
    if (r->graph)
        (void)cudaGraphExecDestroy(r->graph);
    free(r);
}

static struct recording *recording_of(attn_work *w, const char *name)
{
    struct plan_key key;
    key_begin(&key, "replay");
    key_text(&key, name);
    struct recording *r = plan_find(work_pass(w), &key);
    if (r || !work_dry(w) || w->status != ATTN_OK)
        return r;
    r = calloc(1, sizeof *r);
    if (!r)
        work_fail(w, ATTN_NOMEM, "no memory for a recording");
    else if (plan_keep(w, &key, r, recording_release) != ATTN_OK)
        r = NULL;
    return r;
}

static bool is_of(const struct recording *r, const attn_work *w, const void *key, size_t bytes)
{
    return r->graph && r->base == w->base && r->used == w->used && r->key_bytes == bytes &&
           memcmp(r->key, key, bytes) == 0;
}

/* Records body on a stream of its own, so that other threads' work on the compute's stream stays
 * out of it.  Not recorded is not an error: NULL, and the work as before. */
static cudaGraph_t record(attn_work *w, attn_status (*body)(attn_work *w, void *arg), void *arg)
{
    const attn_work before = *w;
    cudaStream_t stream = NULL;
    cudaGraph_t graph = NULL;
    attn_status status = ATTN_DEVICE;
    if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess)
        goto done;
    if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess) {
        w->stream = stream;
        w->err = NULL;
        status = body(w, arg);
        if (cudaStreamEndCapture(stream, &graph) != cudaSuccess)
            status = ATTN_DEVICE;
    }
    if (status != ATTN_OK && graph) {
        (void)cudaGraphDestroy(graph);
        graph = NULL;
    }
    (void)cudaStreamDestroy(stream);
done:
    (void)cudaGetLastError();
    *w = before;
    return graph;
}

static void recording_make(struct recording *r, attn_work *w, const void *key, size_t bytes,
                           attn_status (*body)(attn_work *w, void *arg), void *arg)
{
    if (r->graph)
        (void)cudaGraphExecDestroy(r->graph);
    r->graph = NULL;
    cudaGraph_t graph = record(w, body, arg);
    if (graph && cudaGraphInstantiate(&r->graph, graph, 0) != cudaSuccess) {
        (void)cudaGetLastError();
        r->graph = NULL;
    }
    if (graph)
        (void)cudaGraphDestroy(graph);
    r->refused = r->graph == NULL;
    r->base = w->base;
    r->used = w->used;
    r->key_bytes = bytes;
    memcpy(r->key, key, bytes);
}

attn_status cuda_replay(attn_work *w, const char *name, const void *key, size_t bytes,
                        attn_status (*body)(attn_work *w, void *arg), void *arg)
{
    if (w->status == ATTN_OK && bytes > KEY_MAX)
        return work_fail(w, ATTN_INTERNAL, "replay of %s: a key of %zu bytes, expected at most %d",
                         name, bytes, KEY_MAX);
    struct recording *r = recording_of(w, name);
    if (w->status != ATTN_OK || work_dry(w) || !r || r->refused)
        return body(w, arg);
    if (!is_of(r, w, key, bytes))
        recording_make(r, w, key, bytes, body, arg);
    if (!r->graph) {
        if (work_compute(w)->log)
            work_compute(w)->log(work_compute(w)->log_ctx, 1,
                                 "device cuda: the work could not be recorded in a graph and is "
                                 "queued piece by piece");
        return body(w, arg);
    }
    return work_check(w, "launching a graph", cudaGraphLaunch(r->graph, stream_of(w)));
}
