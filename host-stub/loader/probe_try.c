/* probe_try.c: create, ask, prepare, run and destroy on a CPU, against a plain attention. */
#include "probe_try.h"

#include "boundary_limits.h"
#include "error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 2, QUERIES = 3, KEYS = 5, DIM = 8 };

typedef struct {
    float q[HEADS * QUERIES * DIM], k[HEADS * KEYS * DIM], v[HEADS * KEYS * DIM];
    float out[HEADS * QUERIES * DIM];
} tiny;

static const attn_host host = {.size = sizeof host, .max_threads = 1};
static const attn_device cpu = {ATTN_DEVICE_CPU, 0, "cpu"};

static attn_status known(const char *function, attn_status status, attn_error *err)
{
    return status >= ATTN_OK && status <= ATTN_INTERNAL
               ? status
               : attn_fail(err, -1, "%s returned status %d, which attn_abi.h lacks", function,
                           status);
}

static attn_tensor tensor(float *data, int64_t n)
{
    return (attn_tensor){.data = data,
                         .shape = {1, HEADS, n, DIM},
                         .stride = {HEADS * n * DIM, n * DIM, DIM, 1},
                         .device_type = ATTN_DEVICE_CPU,
                         .code = ATTN_CODE_FLOAT,
                         .bits = 32,
                         .lanes = 1,
                         .rank = 4};
}

static void fill(tiny *t)
{
    for (int i = 0; i < HEADS * KEYS * DIM; i++) {
        t->k[i] = (float)(i * 7 % 13 - 6) / 6;
        t->v[i] = (float)(i * 5 % 11 - 5) / 5;
    }
    for (int i = 0; i < HEADS * QUERIES * DIM; i++) {
        t->q[i] = (float)(i * 3 % 17 - 8) / 8;
    }
    memset(t->out, 0xff, sizeof t->out);
}

/* The largest error of one row of `out`. */
static double row_error(const tiny *t, int h, int i)
{
    double s[KEYS], sum = 0, worst = 0;
    const float *q = t->q + (h * QUERIES + i) * DIM, *out = t->out + (h * QUERIES + i) * DIM;
    for (int j = 0; j < KEYS; j++) {
        s[j] = 0;
        for (int d = 0; d < DIM; d++) {
            s[j] += (double)q[d] * (double)t->k[(h * KEYS + j) * DIM + d];
        }
        s[j] = exp(s[j] / sqrt(DIM));
        sum += s[j];
    }
    for (int d = 0; d < DIM; d++) {
        double o = 0;
        for (int j = 0; j < KEYS; j++) {
            o += s[j] / sum * (double)t->v[(h * KEYS + j) * DIM + d];
        }
        double e = fabs(o - (double)out[d]);
        worst = e > worst || isnan(e) ? e : worst;
    }
    return worst;
}

static bool right(const tiny *t, bool approximate, attn_error *err)
{
    const double bound = approximate ? 0.1 : 1e-3; /* a fault of the code, not of its rounding */
    for (int h = 0; h < HEADS; h++) {
        for (int i = 0; i < QUERIES; i++) {
            double e = row_error(t, h, i);
            if (!(e < bound)) {
                attn_fail(err, -1,
                          "a tiny attention came out wrong: head %d, query %d is off by %g", h, i,
                          e);
                return false;
            }
        }
    }
    return true;
}

static bool run(const attn_op_api *api, attn_op_plan *plan, attn_op_call *call, uint64_t bytes,
                tiny *t, attn_error *err)
{
    call->scratch = aligned_alloc(256, (bytes + 256) & ~UINT64_C(255));
    call->scratch_bytes = bytes;
    if (!call->scratch) {
        return true;
    }
    attn_status status = known("run", api->run(plan, call, err), err);
    free(call->scratch);
    return status == ATTN_OK ? right(t, (api->head.flags & ATTN_HEAD_APPROXIMATE) != 0, err)
                             : status > 0;
}

static bool call_op(const attn_op_api *api, attn_op *op, attn_error *err)
{
    static tiny t;
    attn_op_call call = {.size = sizeof call};
    attn_op_plan *plan = NULL;
    uint64_t bytes = 0;
    fill(&t);
    call.q = tensor(t.q, QUERIES);
    call.k = tensor(t.k, KEYS);
    call.v = tensor(t.v, KEYS);
    call.out = tensor(t.out, QUERIES);
    attn_status status = known("supports", api->supports(op, &call, err), err);
    if (status != ATTN_OK) {
        return status > 0;
    }
    status = known("prepare", api->prepare(op, &call, &plan, &bytes, err), err);
    if (status != ATTN_OK) {
        return status > 0;
    }
    if (!plan || bytes > BOUNDARY_MAX_SCRATCH) {
        attn_fail(err, -1, "prepare returned ok and %s",
                  plan ? "a scratch size beyond reason" : "no plan");
        return false;
    }
    bool good = run(api, plan, &call, bytes, &t, err);
    api->release(plan);
    return good;
}

static bool try_op(const attn_op_api *api, attn_error *err)
{
    attn_op *op = NULL;
    if (api->query) {
        (void)api->query("attn.no-such-interface/1");
    }
    if (!(api->head.devices >> ATTN_DEVICE_CPU & 1)) {
        return true;
    }
    attn_status status = known("create", api->create(&host, &cpu, NULL, 0, &op, err), err);
    if (status != ATTN_OK) {
        return status > 0;
    }
    if (!op) {
        attn_fail(err, -1, "create returned ok and no op");
        return false;
    }
    bool good = !(api->head.dtypes & ATTN_DTYPE_F32) || call_op(api, op, err);
    api->destroy(op);
    return good;
}

static bool try_processor(const attn_processor_api *api, attn_error *err)
{
    attn_processor *processor = NULL;
    if (api->query) {
        (void)api->query("attn.no-such-interface/1");
    }
    if (!(api->head.devices >> ATTN_DEVICE_CPU & 1)) {
        return true;
    }
    attn_status status = known("create", api->create(&host, &cpu, NULL, 0, &processor, err), err);
    if (status != ATTN_OK) {
        return status > 0;
    }
    if (!processor) {
        attn_fail(err, -1, "create returned ok and no processor");
        return false;
    }
    api->destroy(processor);
    return true;
}

bool probe_try(const image *im, const elf_heads *heads, attn_error *err)
{
    return (!heads->has_op || try_op(image_op(im), err)) &&
           (!heads->has_processor || try_processor(image_processor(im), err));
}
