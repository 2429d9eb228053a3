/* wrong_layer.c: a right processor with one fault, chosen at build time; see wrong.c. */
#include "attn_abi.h"

#define attn_processor_v1 right_processor
#include "right_layer.c"
#undef attn_processor_v1

#include <fenv.h>
#include <string.h>
#include <unistd.h>

static attn_status wrong_bind(attn_processor *p, const attn_layer *l, const attn_param *params,
                              uint32_t n_params, attn_work *work, attn_binding **out,
                              attn_error *err)
{
#if defined(FAULT_takes_any_parameter)
    (void)params, (void)n_params;
    return bind(p, l, NULL, 0, work, out, err);
#elif defined(FAULT_refuses_everything)
    (void)p, (void)l, (void)params, (void)n_params, (void)work, (void)out;
    if (err && err->capacity >= sizeof "not")
        memcpy(err->text, "not", sizeof "not");
    return ATTN_UNSUPPORTED;
#elif defined(FAULT_keeps_device_memory)
    void *lost = NULL;
    (void)p->compute->alloc(p->compute->ctx, 64, &lost, NULL);
#endif
    return bind(p, l, params, n_params, work, out, err);
}

#if defined(FAULT_ignores_strides)
/* Hidden states as if they lay packed. */
static attn_layer_call packed_call(const attn_layer_call *call)
{
    attn_layer_call packed = *call;
    int64_t step = 1;
    for (uint32_t i = packed.hidden.rank; i-- > 0;) {
        packed.hidden.stride[i] = step;
        step *= packed.hidden.shape[i];
    }
    return packed;
}
#endif

#if defined(FAULT_remembers_one_layer)
/* The layer that was planned last, whichever binding runs. */
static const attn_layer *latest;
#endif

static attn_status wrong_prepare(attn_binding *b, const attn_layer_call *call,
                                 attn_layer_plan **plan)
{
#if defined(FAULT_plans_less)
    attn_layer_call other = *call;
    attn_status s = prepare(b, &other, plan);
    call->work->peak /= 2;
    return s;
#elif defined(FAULT_leaks)
    void *volatile lost = malloc(500);
    (void)lost;
#endif
#if defined(FAULT_remembers_one_layer)
    latest = b->layer;
    return prepare(b, call, plan);
#elif defined(FAULT_takes_any_call)
    attn_layer_call known = *call;
    known.size = sizeof known;
    known.flags = 0;
    known.ext = NULL;
    return prepare(b, &known, plan);
#elif defined(FAULT_wants_its_own_size)
    if (call->size != sizeof *call)
        return ATTN_INVALID;
    return prepare(b, call, plan);
#elif defined(FAULT_forgets_lse)
    attn_layer_call other = *call;
    other.lse.rank = 0;
    return prepare(b, &other, plan);
#elif defined(FAULT_ignores_mask)
    attn_layer_call other = *call;
    other.mask.rank = 0;
    return prepare(b, &other, plan);
#elif defined(FAULT_ignores_strides)
    const attn_layer_call packed = packed_call(call);
    return prepare(b, &packed, plan);
#else
    return prepare(b, call, plan);
#endif
}

#if defined(FAULT_shares_a_call)
/* One call for all threads: what the binding is bound to changes under a run. */
static attn_layer_call shared;
#endif

static attn_status wrong_run(attn_layer_plan *plan, const attn_layer_call *call)
{
#if defined(FAULT_forgets_the_residual)
    attn_layer other = *plan->binding->layer;
    attn_binding binding = {plan->binding->processor, &other};
    other.flags &= ~ATTN_LAYER_RESIDUAL;
    forward(&binding, call);
    return call->work->status;
#elif defined(FAULT_drops_the_bias)
    attn_layer_call other = *call;
    other.bias.rank = 0;
    return run(plan, &other);
#elif defined(FAULT_forgets_lse)
    attn_layer_call other = *call;
    other.lse.rank = 0;
    return run(plan, &other);
#elif defined(FAULT_ignores_mask)
    attn_layer_call other = *call;
    other.mask.rank = 0;
    return run(plan, &other);
#elif defined(FAULT_ignores_strides)
    const attn_layer_call packed = packed_call(call);
    return run(plan, &packed);
#elif defined(FAULT_remembers_one_layer)
    usleep(2000);
    attn_binding other = {plan->binding->processor, latest};
    forward(&other, call);
    return call->work->status;
#elif defined(FAULT_writes_to_hidden)
    attn_status s = run(plan, call);
    if (call->hidden.data != call->out.data)
        *(float *)call->hidden.data += 1;
    return s;
#elif defined(FAULT_writes_past_out)
    attn_status s = run(plan, call);
    int64_t last = 1;
    for (uint32_t a = 0; a < call->out.rank; a++)
        last += (call->out.shape[a] - 1) * call->out.stride[a];
    ((volatile float *)call->out.data)[last] = 1;
    return s;
#elif defined(FAULT_counts_its_runs)
    static float runs;
    attn_status s = run(plan, call);
    if (s == ATTN_OK)
        *(float *)call->out.data += (runs += 1e-7f);
    return s;
#elif defined(FAULT_allocates_in_run)
    void *volatile p = malloc(100);
    free(p);
#elif defined(FAULT_shares_a_call)
    shared = *call;
    usleep(2000);
    return run(plan, &shared);
#endif
    return run(plan, call);
}

static attn_status wrong_create(const attn_host *host, const attn_device *device,
                                const attn_param *params, uint32_t n_params,
                                attn_processor **processor, attn_error *err)
{
#if defined(FAULT_leaves_a_file)
    (void)dup(2);
#elif defined(FAULT_changes_rounding)
    static int lives;
    if (++lives > 25)
        fesetround(FE_UPWARD);
#endif
    return create(host, device, params, n_params, processor, err);
}

const attn_processor_api attn_processor_v1 = {
    .head = {.magic = ATTN_MAGIC,
             .abi = ATTN_ABI,
             .size = sizeof(attn_processor_api),
             .flags = ATTN_HEAD_NEEDS_COMPUTE,
             .devices = UINT64_C(1) << ATTN_DEVICE_CPU,
             .dtypes = ATTN_DTYPE_F32,
             .id = "org.attnplug.test.wrong_layer",
             .version = "1.0.0",
             .vendor = "attnplug",
             .summary = "one fault"},
    .create = wrong_create,
    .destroy = destroy,
    .bind = wrong_bind,
    .unbind = unbind,
    .prepare = wrong_prepare,
    .run = wrong_run,
    .release = release,
};
