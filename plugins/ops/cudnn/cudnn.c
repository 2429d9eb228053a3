/* cudnn: cuDNN 9's fused attention as an op, the second choice on NVIDIA GPUs and the one that
 * others are measured against.  fp16 and bf16, no bias or mask, causal from either corner, lse,
 * grouped heads.
 *
 *   cudnn.c        this file: the op
 *   cudnn_take.c   which calls it takes
 *   cudnn_graph.c  a call as cuDNN's graph of operations
 *   cudnn_cache.c  which plans share a compiled graph, and for how long it is kept
 *   cudnn_load.c   the library, found at run time, and its errors
 *   cudnn_abi.h    the part of its interface that is used
 *
 * Check: meson test -C build cudnn cudnn_cache (no GPU needed); tools/check-gpu build (on a GPU).
 * Time: attnplug bench --device cuda.
 */
#include "cudnn.h"
#include "cuda_device.h"

#include <float.h>
#include <stdlib.h>

#define LIBRARY "libcudnn.so.9"

struct attn_op {
    struct cuda_op_head head; /* first: cuda_device.h reads it */
    const struct cudnn_api *api;
    size_t version;
    int chip; /* 90 is compute capability 9.0 */
    struct cudnn_device *device;
};

enum { MOST_DEVICES = 64 };

static struct cudnn_device devices[MOST_DEVICES];
static pthread_once_t devices_once = PTHREAD_ONCE_INIT;

static void devices_init(void)
{
    for (int i = 0; i < MOST_DEVICES; i++)
        (void)pthread_mutex_init(&devices[i].lock, NULL);
}

/* The device is current. */
static attn_status device_open(const struct cudnn_api *api, int id, struct cudnn_device **device,
                               attn_error *err)
{
    int code = CUDNN_STATUS_SUCCESS;
    if (id >= MOST_DEVICES)
        return attn_fail(err, ATTN_UNSUPPORTED, NAME ": device %d, expected at most %d", id,
                         MOST_DEVICES - 1);
    (void)pthread_once(&devices_once, devices_init);
    *device = &devices[id];
    (void)pthread_mutex_lock(&(*device)->lock);
    (*device)->api = api;
    if (!(*device)->handle)
        code = api->cudnnCreate(&(*device)->handle);
    if (code != CUDNN_STATUS_SUCCESS)
        (*device)->handle = NULL;
    (void)pthread_mutex_unlock(&(*device)->lock);
    return code == CUDNN_STATUS_SUCCESS ? ATTN_OK
                                        : cudnn_fail(api, err, "opening cuDNN on the device", code);
}

enum { PACK_TENSORS = 9 };

/* Addresses as cuDNN takes them: a finished pack cannot be changed, so a run with other addresses
 * makes another one. */
struct pack {
    cudnnBackendDescriptor_t descriptor; /* NULL: none yet */
    void *data[PACK_TENSORS];
    void *workspace;
};

struct attn_op_plan {
    struct attn_op *op;
    struct cudnn_shared *shared; /* NULL: no queries, run does nothing */
    uint64_t scratch;
    float scale, hidden;
    int32_t nq, nk;
    struct pack pack;
};

static attn_status op_create(const attn_host *host, const attn_device *device,
                             const attn_param *params, uint32_t n_params, attn_op **op,
                             attn_error *err)
{
    struct cudaDeviceProp properties;
    int before;
    attn_status status = cuda_create_check(NAME, host, device, params, n_params, &properties, err);
    if (status != ATTN_OK)
        return status;
    struct attn_op *made = calloc(1, sizeof *made);
    if (!made)
        return attn_fail(err, ATTN_NOMEM, NAME ": no memory for %zu bytes", sizeof *made);
    made->head.device = device->id;
    made->chip = properties.major * 10 + properties.minor;
    status = cudnn_load(LIBRARY, &made->api, err);
    if (status == ATTN_OK)
        status = cuda_enter(NAME, device->id, &before, err);
    if (status == ATTN_OK) {
        status = device_open(made->api, device->id, &made->device, err);
        made->version = made->api->cudnnGetVersion();
        cuda_leave(device->id, before);
    }
    if (status == ATTN_OK)
        *op = made;
    else
        free(made);
    return status;
}

static void op_destroy(attn_op *op)
{
    free(op);
}

static attn_status op_supports(attn_op *op, const attn_op_call *call, attn_error *err)
{
    struct cudnn_call what;
    return cudnn_take(call, op->head.device, op->chip, op->version, &what, err);
}

static attn_status graph_get(struct attn_op *op, const attn_op_call *call,
                             const struct cudnn_call *what, struct cudnn_shared **shared,
                             attn_error *err)
{
    const struct cudnn_key key = cudnn_graph_key(call, what);
    int before;
    attn_status status = cuda_enter(NAME, op->head.device, &before, err);
    if (status != ATTN_OK)
        return status;
    status = cudnn_cache_get(op->device, &key, shared, err);
    cuda_leave(op->head.device, before);
    return status;
}

/* Also where the device cannot be made current: a graph must not lose count of its users. */
static void graph_put(struct attn_op *op, struct cudnn_shared *shared)
{
    int before = op->head.device;
    if (cuda_enter(NAME, op->head.device, &before, NULL) != ATTN_OK)
        before = op->head.device;
    cudnn_cache_put(op->device, shared);
    cuda_leave(op->head.device, before);
}

static attn_status op_prepare(attn_op *op, const attn_op_call *call, attn_op_plan **plan,
                              uint64_t *scratch, attn_error *err)
{
    struct cudnn_call what;
    attn_status status = cudnn_take(call, op->head.device, op->chip, op->version, &what, err);
    if (status != ATTN_OK)
        return status;
    struct attn_op_plan *made = calloc(1, sizeof *made);
    if (!made)
        return attn_fail(err, ATTN_NOMEM, NAME ": no memory for %zu bytes", sizeof *made);
    made->op = op;
    made->scale = what.shape.scale;
    made->hidden = -FLT_MAX;
    made->nq = (int32_t)what.shape.nq;
    made->nk = (int32_t)what.shape.nk;
    if (!op_tensor_empty(&call->q))
        status = graph_get(op, call, &what, &made->shared, err);
    if (status != ATTN_OK) {
        free(made);
        return status;
    }
    made->scratch = made->shared ? (uint64_t)made->shared->graph.workspace : 0;
    *scratch = made->scratch;
    *plan = made;
    return ATTN_OK;
}

/* Numbers and addresses of the tensors of a plan that has a graph, in the order of their numbers;
 * how many. */
static int64_t pack_fill(struct attn_op_plan *plan, const attn_op_call *call, int64_t *uids,
                         void **data)
{
    const struct cudnn_key *key = &plan->shared->key;
    const struct {
        int64_t uid;
        void *data;
        int there;
    } all[PACK_TENSORS] = {
        {UID_Q, call->q.data, 1},
        {UID_K, call->k.data, 1},
        {UID_V, call->v.data, 1},
        {UID_OUT, call->out.data, 1},
        {UID_STATS, call->lse.data, key->wants_stats},
        {UID_SCALE, &plan->scale, 1},
        {UID_HIDDEN, &plan->hidden, key->causal},
        {UID_NK, &plan->nk, key->shifted},
        {UID_NQ, &plan->nq, key->shifted},
    };
    int64_t n = 0;
    for (int i = 0; i < PACK_TENSORS; i++)
        if (all[i].there) {
            uids[n] = all[i].uid;
            data[n++] = all[i].data;
        }
    return n;
}

static attn_status pack_make(const struct cudnn_api *api, struct pack *pack, const int64_t *uids,
                             int64_t n, attn_error *err)
{
    int code = api->cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK, &pack->descriptor);
    if (code != CUDNN_STATUS_SUCCESS)
        return cudnn_fail(api, err, "making a variant pack", code);
    code = api->cudnnBackendSetAttribute(pack->descriptor, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS,
                                         CUDNN_TYPE_INT64, n, uids);
    if (code == CUDNN_STATUS_SUCCESS)
        code =
            api->cudnnBackendSetAttribute(pack->descriptor, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                                          CUDNN_TYPE_VOID_PTR, n, pack->data);
    if (code == CUDNN_STATUS_SUCCESS)
        code = api->cudnnBackendSetAttribute(pack->descriptor, CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
                                             CUDNN_TYPE_VOID_PTR, 1, &pack->workspace);
    if (code == CUDNN_STATUS_SUCCESS)
        code = api->cudnnBackendFinalize(pack->descriptor);
    return code == CUDNN_STATUS_SUCCESS ? ATTN_OK
                                        : cudnn_fail(api, err, "filling a variant pack", code);
}

static void pack_close(const struct cudnn_api *api, struct pack *pack)
{
    if (pack->descriptor)
        (void)api->cudnnBackendDestroyDescriptor(pack->descriptor);
    pack->descriptor = NULL;
}

/* The pack of the run before serves where no address changed. */
static attn_status pack_for(struct attn_op_plan *plan, const attn_op_call *call, attn_error *err)
{
    int64_t uids[PACK_TENSORS];
    struct pack wanted = {.workspace = call->scratch};
    const int64_t n = pack_fill(plan, call, uids, wanted.data);
    struct pack *have = &plan->pack;
    if (have->descriptor && have->workspace == wanted.workspace &&
        memcmp(have->data, wanted.data, sizeof have->data) == 0)
        return ATTN_OK;
    pack_close(plan->op->api, have);
    *have = wanted;
    attn_status status = pack_make(plan->op->api, have, uids, n, err);
    if (status != ATTN_OK)
        pack_close(plan->op->api, have);
    return status;
}

static attn_status execute(struct attn_op_plan *plan, void *stream, attn_error *err)
{
    struct attn_op *op = plan->op;
    int before, code;
    attn_status status = cuda_enter(NAME, op->head.device, &before, err);
    if (status != ATTN_OK)
        return status;
    (void)pthread_mutex_lock(&op->device->lock);
    code = op->api->cudnnSetStream(op->device->handle, stream);
    if (code == CUDNN_STATUS_SUCCESS)
        code = op->api->cudnnBackendExecute(op->device->handle, plan->shared->graph.plan,
                                            plan->pack.descriptor);
    if (code != CUDNN_STATUS_SUCCESS) /* under the lock: the text is of the last error */
        status = cudnn_fail(op->api, err, "running the plan", code);
    (void)pthread_mutex_unlock(&op->device->lock);
    cuda_leave(op->head.device, before);
    return status == ATTN_UNSUPPORTED ? ATTN_DEVICE : status;
}

static attn_status op_run(attn_op_plan *plan, const attn_op_call *call, attn_error *err)
{
    attn_status status = op_run_check(NAME, call, plan->scratch, err);
    if (status != ATTN_OK || !plan->shared)
        return status;
    const uintptr_t all = (uintptr_t)call->q.data | (uintptr_t)call->k.data |
                          (uintptr_t)call->v.data | (uintptr_t)call->out.data;
    if (all & 15)
        return attn_fail(err, ATTN_INVALID,
                         NAME ": q, k, v or out is not aligned to 16 bytes, which was promised");
    status = pack_for(plan, call, err);
    return status == ATTN_OK ? execute(plan, call->stream, err) : status;
}

static void op_release(attn_op_plan *plan)
{
    if (!plan)
        return;
    pack_close(plan->op->api, &plan->pack);
    if (plan->shared)
        graph_put(plan->op, plan->shared);
    free(plan);
}

ATTN_EXPORT const attn_op_api attn_op_v1 = {
    .head =
        {
            .magic = ATTN_MAGIC,
            .abi = ATTN_ABI,
            .size = sizeof(attn_op_api),
            .flags = ATTN_HEAD_CAPTURABLE,
            .devices = UINT64_C(1) << ATTN_DEVICE_CUDA,
            .dtypes = ATTN_DTYPE_F16 | ATTN_DTYPE_BF16,
            .id = "org.attnplug.cudnn",
            .version = ATTNPLUG_VERSION,
            .vendor = "attnplug",
            .summary = "NVIDIA GPUs: cuDNN 9's fused attention, found at run time",
        },
    .create = op_create,
    .destroy = op_destroy,
    .supports = op_supports,
    .prepare = op_prepare,
    .run = op_run,
    .release = op_release,
    .query = cuda_query,
};
