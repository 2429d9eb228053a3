/* sliced: another op, run on a few heads of one batch entry at a time.
 *
 * diffusers' SlicedAttnProcessor (v0.26.3, src/diffusers/models/attention_processor.py) as an op:
 * where the inner op keeps all its scores, only a slice's worth is alive at a time.  The inner op
 * comes from the host ("attn.attend/1"), so this works on any device that it works on.  Slices
 * write their heads of out, lse and probs in place; key_mass, a mean over heads, is added up with
 * each slice weighing its share of the heads.
 *
 * Parameters of create: op, the inner op's name (default "math"); slice_size, heads in a slice: a
 * number, "auto" (half the heads, the default) or "max" (one head, the most slices).
 *
 *   sliced.c      this file
 *   ../../common  op_call.h (what a call must look like), tensor.h (slices)
 *
 * Check: meson test -C build ops
 */
#include "attn_abi.h"
#include "op_call.h"
#include "tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME      "sliced"
#define ALIGNMENT 256

#define SLICE_AUTO 0
#define SLICE_MAX  (-1)

struct attn_op {
    const attn_attend *attend;
    char inner[64];
    int64_t slice_size; /* SLICE_AUTO, SLICE_MAX or heads */
};

/* Slices have at most two sizes: a plan of the inner op for each. */
struct attn_op_plan {
    const struct attn_op *op;
    int whole;                   /* one slice is everything: the call goes through as it is */
    int64_t batch, heads, group; /* group: query heads that share a KV head */
    int64_t slice;               /* heads in a full slice */
    int64_t run;                 /* heads that slices divide: all of them, or a group */
    attn_inner *full, *rest;
    uint64_t mass_bytes;
    uint64_t scratch;
};

static uint64_t round_up(uint64_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static attn_status read_slice_size(const attn_param *p, int64_t *size, attn_error *err)
{
    if (p->kind == ATTN_PARAM_INT && p->i > 0) {
        *size = p->i;
        return ATTN_OK;
    }
    if (p->kind == ATTN_PARAM_TEXT && p->text) {
        char *end;
        long long n = strtoll(p->text, &end, 10);
        if (strcmp(p->text, "auto") == 0)
            *size = SLICE_AUTO;
        else if (strcmp(p->text, "max") == 0)
            *size = SLICE_MAX;
        else if (end != p->text && *end == '\0' && n > 0)
            *size = n;
        else
            return attn_fail(err, ATTN_INVALID,
                             NAME ": slice_size is '%s', expected auto, max or a number above 0",
                             p->text);
        return ATTN_OK;
    }
    return attn_fail(err, ATTN_INVALID,
                     NAME ": slice_size has kind %u and value %lld, expected auto, max or a number "
                          "above 0",
                     p->kind, (long long)p->i);
}

static attn_status read_params(struct attn_op *op, const attn_param *params, uint32_t n,
                               attn_error *err)
{
    attn_status status = ATTN_OK;
    for (uint32_t i = 0; i < n && status == ATTN_OK; i++) {
        const char *name = params[i].name ? params[i].name : "(no name)";
        if (strcmp(name, "slice_size") == 0) {
            status = read_slice_size(&params[i], &op->slice_size, err);
        } else if (strcmp(name, "op") == 0) {
            const char *text = params[i].kind == ATTN_PARAM_TEXT ? params[i].text : NULL;
            if (!text || !*text || strlen(text) >= sizeof op->inner)
                return attn_fail(err, ATTN_INVALID,
                                 NAME ": op is '%s' of kind %u, expected a name of 1 to %zu bytes",
                                 text ? text : "", params[i].kind, sizeof op->inner - 1);
            memcpy(op->inner, text, strlen(text) + 1);
        } else {
            status = attn_fail(err, ATTN_INVALID,
                               NAME ": unknown parameter %s, expected op or slice_size", name);
        }
    }
    return status;
}

static attn_status op_create(const attn_host *host, const attn_device *device,
                             const attn_param *params, uint32_t n_params, attn_op **op,
                             attn_error *err)
{
    if (device->type != ATTN_DEVICE_CPU && device->type != ATTN_DEVICE_CUDA)
        return attn_fail(err, ATTN_UNSUPPORTED, NAME ": device type is %d, expected %d or %d",
                         device->type, ATTN_DEVICE_CPU, ATTN_DEVICE_CUDA);
    if (!host || host->size < sizeof *host)
        return attn_fail(err, ATTN_INVALID, NAME ": the host table's size is %u, expected %zu",
                         host ? host->size : 0, sizeof *host);
    const attn_attend *attend = host->query ? host->query(host->ctx, "attn.attend/1") : NULL;
    if (!attend || attend->size < sizeof *attend)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         NAME ": the host gives no attn.attend/1, through which other ops run");
    struct attn_op *made = malloc(sizeof *made);
    if (!made)
        return attn_fail(err, ATTN_NOMEM, NAME ": no memory for %zu bytes", sizeof *made);
    *made = (struct attn_op){.attend = attend, .inner = "math", .slice_size = SLICE_AUTO};
    attn_status status = read_params(made, params, n_params, err);
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

/* Heads [h, h + count) of batch entry b.  One plan serves slices that begin anywhere: none promises
 * more alignment than an element's. */
static attn_tensor slice_of(const attn_tensor *t, int64_t b, int64_t h, int64_t count)
{
    if (t->rank == 0)
        return *t;
    const attn_tensor entry = tensor_slice(t, 0, b, 1);
    attn_tensor slice = tensor_slice(&entry, 1, h, count);
    slice.align = t->bits / 8;
    return slice;
}

/* The call of heads [h, h + count) of batch entry b. */
static attn_op_call slice_call(const struct attn_op_plan *plan, const attn_op_call *call, int64_t b,
                               int64_t h, int64_t count)
{
    attn_op_call slice = *call;
    int64_t kv = h / plan->group, n_kv = (count + plan->group - 1) / plan->group;
    slice.size = sizeof slice;
    slice.q = slice_of(&call->q, b, h, count);
    slice.k = slice_of(&call->k, b, kv, n_kv);
    slice.v = slice_of(&call->v, b, kv, n_kv);
    slice.out = slice_of(&call->out, b, h, count);
    slice.bias = slice_of(&call->bias, b, h, count);
    slice.mask = slice_of(&call->mask, b, h, count);
    slice.lse = slice_of(&call->lse, b, h, count);
    slice.probs = slice_of(&call->probs, b, h, count);
    if (call->key_mass.rank != 0) {
        int64_t nk = call->key_mass.shape[1];
        slice.key_mass.shape[0] = 1;
        slice.key_mass.stride[0] = nk;
        slice.key_mass.stride[1] = 1;
        slice.key_mass.align = ALIGNMENT;
        slice.key_mass.data = call->scratch;
    }
    if (call->scratch) {
        slice.scratch = (char *)call->scratch + plan->mass_bytes;
        slice.scratch_bytes = plan->scratch - plan->mass_bytes;
    }
    return slice;
}

/* How slices divide the heads. One never straddles groups of heads that share a KV head unless it
 * holds whole groups, since the inner op must see a multiple. */
static void plan_slices(struct attn_op_plan *plan, int64_t slice_size)
{
    int64_t size = slice_size == SLICE_AUTO  ? plan->heads / 2
                   : slice_size == SLICE_MAX ? 1
                                             : slice_size;
    size = size < 1 ? 1 : size > plan->heads ? plan->heads : size;
    plan->slice = size >= plan->group ? size / plan->group * plan->group : size;
    plan->run = size >= plan->group ? plan->heads : plan->group;
}

static void op_release(attn_op_plan *plan)
{
    if (!plan)
        return;
    if (plan->full)
        plan->op->attend->release(plan->full);
    if (plan->rest)
        plan->op->attend->release(plan->rest);
    free(plan);
}

/* The inner op's plans: of a full slice and of the remainder. */
static attn_status prepare_inner(struct attn_op_plan *plan, const attn_op_call *call,
                                 attn_error *err)
{
    const attn_attend *attend = plan->op->attend;
    uint64_t full = 0, rest = 0;
    if (plan->whole)
        return attend->prepare(attend->ctx, plan->op->inner, call, &plan->full, &plan->scratch,
                               err);
    if (call->key_mass.rank != 0)
        plan->mass_bytes = round_up((uint64_t)call->key_mass.shape[1] * sizeof(float));
    attn_op_call slice = slice_call(plan, call, 0, 0, plan->slice);
    attn_status status =
        attend->prepare(attend->ctx, plan->op->inner, &slice, &plan->full, &full, err);
    if (status == ATTN_OK && plan->run % plan->slice != 0) {
        slice = slice_call(plan, call, 0, 0, plan->run % plan->slice);
        status = attend->prepare(attend->ctx, plan->op->inner, &slice, &plan->rest, &rest, err);
    }
    plan->scratch = plan->mass_bytes + (full > rest ? full : rest);
    return status;
}

static attn_status op_prepare(attn_op *op, const attn_op_call *call, attn_op_plan **plan,
                              uint64_t *scratch, attn_error *err)
{
    struct op_shape shape;
    attn_status status = op_call_check(NAME, call, &shape, err);
    if (status != ATTN_OK)
        return status;
    if (shape.heads > 0 && shape.batch > 0 && op->slice_size > shape.batch * shape.heads)
        return attn_fail(err, ATTN_INVALID,
                         NAME ": slice_size is %lld, larger than batch %lld times heads %lld",
                         (long long)op->slice_size, (long long)shape.batch, (long long)shape.heads);
    struct attn_op_plan *made = calloc(1, sizeof *made);
    if (!made)
        return attn_fail(err, ATTN_NOMEM, NAME ": no memory for %zu bytes", sizeof *made);
    made->op = op;
    made->batch = shape.batch;
    made->heads = shape.heads;
    made->group = shape.heads > 0 ? shape.heads / shape.kv_heads : 1;
    if (made->heads > 0)
        plan_slices(made, op->slice_size);
    made->whole =
        made->batch == 0 || made->heads == 0 || (made->batch == 1 && made->slice == made->heads);
    status = prepare_inner(made, call, err);
    if (status == ATTN_OK) {
        *scratch = made->scratch;
        *plan = made;
    } else {
        op_release(made);
    }
    return status;
}

/* The host plans the inner op to say whether it takes a call, so this does so too. */
static attn_status op_supports(attn_op *op, const attn_op_call *call, attn_error *err)
{
    attn_op_plan *plan = NULL;
    uint64_t scratch;
    attn_status status = op_prepare(op, call, &plan, &scratch, err);
    if (status == ATTN_OK)
        op_release(plan);
    return status;
}

static attn_status run_slice(struct attn_op_plan *plan, const attn_op_call *call, int64_t b,
                             int64_t h, int64_t count, attn_error *err)
{
    const attn_attend *attend = plan->op->attend;
    attn_op_call slice = slice_call(plan, call, b, h, count);
    attn_status status = attend->run(count == plan->slice ? plan->full : plan->rest, &slice, err);
    if (status != ATTN_OK || call->key_mass.rank == 0)
        return status;
    const attn_tensor sum = tensor_slice(&call->key_mass, 0, b, 1);
    return attend->sum(attend->ctx, call->stream, (float)count / (float)plan->heads,
                       &slice.key_mass, h == 0 ? 0.0f : 1.0f, &sum, err);
}

static attn_status op_run(attn_op_plan *plan, const attn_op_call *call, attn_error *err)
{
    if (plan->whole)
        return plan->op->attend->run(plan->full, call, err);
    attn_status status = op_run_check(NAME, call, plan->scratch, err);
    for (int64_t b = 0; b < plan->batch && status == ATTN_OK; b++)
        for (int64_t h = 0; h < plan->heads && status == ATTN_OK;) {
            int64_t left = plan->run - h % plan->run;
            int64_t count = left < plan->slice ? left : plan->slice;
            status = run_slice(plan, call, b, h, count, err);
            h += count;
        }
    return status;
}

static const void *op_query(const char *id)
{
    static const attn_param_info infos[] = {
        {"op", ATTN_PARAM_TEXT, 0, "the op that runs each slice; default math"},
        {"slice_size", ATTN_PARAM_TEXT, 0,
         "heads in a slice: a number, auto (half, the default) or max (one)"},
    };
    static const attn_param_list list = {sizeof list, 2, infos};
    return strcmp(id, "attn.params/1") == 0 ? &list : NULL;
}

ATTN_EXPORT const attn_op_api attn_op_v1 = {
    .head =
        {
            .magic = ATTN_MAGIC,
            .abi = ATTN_ABI,
            .size = sizeof(attn_op_api),
            .devices = UINT64_C(1) << ATTN_DEVICE_CPU | UINT64_C(1) << ATTN_DEVICE_CUDA,
            .dtypes = ATTN_DTYPE_F32 | ATTN_DTYPE_F16 | ATTN_DTYPE_BF16,
            .id = "org.attnplug.sliced",
            .version = ATTNPLUG_VERSION,
            .vendor = "attnplug",
            .summary = "another op, a few heads at a time; parameters op and slice_size",
        },
    .create = op_create,
    .destroy = op_destroy,
    .supports = op_supports,
    .prepare = op_prepare,
    .run = op_run,
    .release = op_release,
    .query = op_query,
};
