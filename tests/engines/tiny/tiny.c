/* tiny.c: an engine that uses the header alone: no libattnplug, no registry.  Compiles as C and as
 * C++.
 *
 *   tiny FILE.so...    opens each, takes the first op that serves the call, attends, prints the
 * result's checksum
 *
 * What a host owes a plugin, in order: look at the head before anything else; create once; ask
 * supports; prepare for the shapes; give scratch; run; release; destroy.  The file stays open. */
#include "attn_abi.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { B = 2, H = 4, NQ = 33, NK = 77, D = 40 };

static attn_tensor tensor(float *data, int64_t n)
{
    attn_tensor t;
    memset(&t, 0, sizeof t);
    t.data = data;
    t.rank = 4;
    t.shape[0] = B, t.shape[1] = H, t.shape[2] = n, t.shape[3] = D;
    /* [B, n, H, D], as projections leave it: strides say so, nothing is copied */
    t.stride[0] = n * H * D, t.stride[1] = D, t.stride[2] = (int64_t)H * D, t.stride[3] = 1;
    t.device_type = ATTN_DEVICE_CPU;
    t.code = ATTN_CODE_FLOAT, t.bits = 32, t.lanes = 1;
    return t;
}

/* The op of a file, if its head is one that this engine was built for. */
static const attn_op_api *open_op(const char *path)
{
    void *file = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const attn_op_api *op = file ? (const attn_op_api *)dlsym(file, "attn_op_v1") : NULL;
    if (!file)
        fprintf(stderr, "%s\n", dlerror());
    else if (!op)
        fprintf(stderr, "%s: no attn_op_v1\n", path);
    else if (op->head.magic != ATTN_MAGIC || op->head.abi != ATTN_ABI || op->head.size < sizeof *op)
        fprintf(stderr, "%s: abi %#x, this engine has %#x\n", path, op->head.abi, ATTN_ABI);
    else if (op->head.devices & (UINT64_C(1) << ATTN_DEVICE_CPU))
        return op;
    return NULL;
}

static attn_status attend(const attn_op_api *op, attn_op_call *call, attn_error *err)
{
    attn_host host;
    attn_device device;
    attn_op *instance = NULL;
    attn_op_plan *plan = NULL;
    memset(&host, 0, sizeof host);
    memset(&device, 0, sizeof device);
    host.size = sizeof host;
    host.max_threads = 1; /* no parallel_for: the plugin runs in this thread */
    device.type = ATTN_DEVICE_CPU;
    strcpy(device.runtime, "cpu");
    call->scratch = NULL;
    attn_status s = op->create(&host, &device, NULL, 0, &instance, err);
    if (s == ATTN_OK)
        s = op->supports(instance, call, err);
    if (s == ATTN_OK)
        s = op->prepare(instance, call, &plan, &call->scratch_bytes, err);
    if (s == ATTN_OK && posix_memalign(&call->scratch, 256, call->scratch_bytes + 1))
        s = ATTN_NOMEM;
    if (s == ATTN_OK)
        s = op->run(plan, call, err);
    op->release(plan);
    op->destroy(instance);
    free(call->scratch);
    return s;
}

int main(int argc, char **argv)
{
    static float q[B * NQ * H * D], k[B * NK * H * D], v[B * NK * H * D], out[B * NQ * H * D];
    for (int i = 0; i < B * NQ * H * D; i++)
        q[i] = sinf((float)i);
    for (int i = 0; i < B * NK * H * D; i++)
        k[i] = cosf((float)i), v[i] = 1;

    attn_op_call call;
    memset(&call, 0, sizeof call); /* what is not set is absent */
    call.size = sizeof call;
    call.q = tensor(q, NQ), call.k = tensor(k, NK), call.v = tensor(v, NK),
    call.out = tensor(out, NQ);

    for (int i = 1; i < argc; i++) {
        char text[256] = "";
        attn_error err = {sizeof(attn_error), sizeof text, text, 0};
        const attn_op_api *op = open_op(argv[i]);
        attn_status s = op ? attend(op, &call, &err) : ATTN_UNSUPPORTED;
        if (s != ATTN_OK) {
            fprintf(stderr, "%s: %s\n", argv[i], text);
            continue;
        }
        double worst = 0; /* every value is 1, so every result is, whatever the weights */
        for (int e = 0; e < B * NQ * H * D; e++) {
            const double off = fabs(out[e] - 1.0);
            if (!(off <= worst)) /* a NaN counts */
                worst = off;
        }
        printf("%s %s: largest error %.2g\n", op->head.id, op->head.version, worst);
        return worst < 1e-5 ? 0 : 1;
    }
    return 1;
}
