/* Compiled graphs, shared by plans of equal calls. To compile takes far longer than a run, and some
 * memory that cuDNN does not give back, while a model has many layers of one shape and a host may
 * hold a plan for each set of buffers. An engine may release all and prepare it again: so those
 * that were released last are kept as well.
 *
 * They are kept to the end of the process, as the device's handle is: plugins are never unloaded
 * (abi/ABI.md, A7), and at exit cuDNN's own destructors may have run before any of this file could,
 * so that nothing is destroyed there.
 */
#include "cudnn.h"

#include <stdlib.h>
#include <string.h>

static struct cudnn_shared *find(const struct cudnn_device *device, const struct cudnn_key *key)
{
    struct cudnn_shared *at = device->graphs;
    while (at && memcmp(&at->key, key, sizeof *key) != 0)
        at = at->next;
    return at;
}

static void push(struct cudnn_device *device, struct cudnn_shared *shared)
{
    shared->next = device->graphs;
    device->graphs = shared;
}

static void detach(struct cudnn_device *device, const struct cudnn_shared *shared)
{
    struct cudnn_shared **at = &device->graphs;
    while (*at != shared)
        at = &(*at)->next;
    *at = shared->next;
}

static void drop(struct cudnn_device *device, struct cudnn_shared *shared)
{
    detach(device, shared);
    device->idle--;
    cudnn_graph_close(&shared->graph);
    free(shared);
}

/* Destroys those without users, the longest released first, until `most` are left. */
static void trim(struct cudnn_device *device, int most)
{
    while (device->idle > most) {
        struct cudnn_shared *oldest = NULL;
        for (struct cudnn_shared *at = device->graphs; at; at = at->next)
            if (at->users == 0)
                oldest = at;
        drop(device, oldest);
    }
}

static attn_status compile(struct cudnn_device *device, const struct cudnn_key *key,
                           struct cudnn_shared **shared, attn_error *err)
{
    struct cudnn_shared *made = calloc(1, sizeof *made);
    if (!made)
        return attn_fail(err, ATTN_NOMEM, NAME ": no memory for %zu bytes", sizeof *made);
    made->key = *key;
    attn_status status = cudnn_graph_open(&made->graph, device->api, device->handle, key, err);
    if (status != ATTN_OK) {
        free(made);
        return status;
    }
    push(device, made);
    device->idle++;
    *shared = made;
    return ATTN_OK;
}

attn_status cudnn_cache_get(struct cudnn_device *device, const struct cudnn_key *key,
                            struct cudnn_shared **shared, attn_error *err)
{
    attn_status status = ATTN_OK;
    (void)pthread_mutex_lock(&device->lock);
    struct cudnn_shared *got = find(device, key);
    if (!got) {
        status = compile(device, key, &got, err);
        if (status == ATTN_NOMEM && device->idle > 0) { /* what is only kept gives way */
            trim(device, 0);
            status = compile(device, key, &got, err);
        }
    }
    if (status == ATTN_OK) {
        if (got->users++ == 0)
            device->idle--;
        *shared = got;
    }
    (void)pthread_mutex_unlock(&device->lock);
    return status;
}

void cudnn_cache_put(struct cudnn_device *device, struct cudnn_shared *shared)
{
    (void)pthread_mutex_lock(&device->lock);
    if (--shared->users == 0) {
        detach(device, shared);
        push(device, shared);
        device->idle++;
        trim(device, CUDNN_MOST_IDLE);
    }
    (void)pthread_mutex_unlock(&device->lock);
}
