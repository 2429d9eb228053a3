/* attnplug attend: one op on stored tensors. */
#include "cli.h"
#include "commands.h"
#include "stored.h"

#include "attn_router.h"
#include "error.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *op, *device, *dtype, *in, *out;
} arguments;

/* One run on a device: the plan, its op's memory and what was taken of it. */
typedef struct {
    attn_router *router;
    attn_plan *plan;
    const attn_memory *memory; /* NULL on a CPU */
    attn_op *instance;
    void *data[STORED_N];
    void *scratch;
} work;

static attn_status find_memory(work *w, attn_error *err)
{
    attn_host_op *op = NULL;
    attn_status status = attn_router_op(w->router, attn_plan_op(w->plan), NULL, 0, &op, err);
    if (status != ATTN_OK) {
        return status;
    }
    w->memory = attn_host_op_query(op, "attn.memory/1");
    w->instance = attn_host_op_instance(op);
    return w->memory ? ATTN_OK
                     : attn_fail(err, ATTN_UNSUPPORTED,
                                 "%s gives no attn.memory/1: its device's memory is out of reach",
                                 attn_plan_op(w->plan));
}

static attn_status copy_in(work *w, const stored_call *call, attn_error *err)
{
    attn_status status = ATTN_OK;
    for (int i = 0; i < STORED_N && status == ATTN_OK; i++) {
        const stored_tensor *t = &call->tensors[i];
        if (!t->view.rank) {
            continue;
        }
        status = w->memory->alloc(w->instance, t->bytes ? t->bytes : 1, &w->data[i], err);
        if (status == ATTN_OK && i < STORED_OUT) {
            status = w->memory->copy_in(w->instance, w->data[i], t->view.data, t->bytes, NULL, err);
        }
    }
    return status;
}

static attn_status copy_out(work *w, const stored_call *call, attn_error *err)
{
    attn_status status = ATTN_OK;
    for (int i = STORED_OUT; i < STORED_N && status == ATTN_OK; i++) {
        const stored_tensor *t = &call->tensors[i];
        if (t->view.rank) {
            status =
                w->memory->copy_out(w->instance, t->view.data, w->data[i], t->bytes, NULL, err);
        }
    }
    return status == ATTN_OK ? w->memory->synchronize(w->instance, NULL, err) : status;
}

static attn_status run_on_device(work *w, const attn_device *device, const stored_call *call,
                                 uint64_t scratch, attn_error *err)
{
    attn_status status = find_memory(w, err);
    if (status == ATTN_OK) {
        status = copy_in(w, call, err);
    }
    if (status == ATTN_OK && scratch) {
        status = w->memory->alloc(w->instance, scratch, &w->scratch, err);
    }
    if (status == ATTN_OK) {
        attn_op_call c = stored_op_call(call, device, w->data);
        c.scratch = w->scratch;
        c.scratch_bytes = scratch;
        status = attn_plan_run(w->plan, &c, err);
    }
    if (status == ATTN_OK) {
        status = copy_out(w, call, err);
    }
    for (int i = 0; i < STORED_N && w->memory; i++) {
        w->memory->free(w->instance, w->data[i]);
    }
    if (w->memory) {
        w->memory->free(w->instance, w->scratch);
    }
    return status;
}

static attn_status run_on_cpu(work *w, const attn_op_call *call, uint64_t scratch, attn_error *err)
{
    attn_op_call c = *call;
    w->scratch = aligned_alloc(256, (scratch + 256) & ~UINT64_C(255));
    if (!w->scratch) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %llu bytes of scratch",
                         (unsigned long long)scratch);
    }
    c.scratch = w->scratch;
    c.scratch_bytes = scratch;
    attn_status status = attn_plan_run(w->plan, &c, err);
    free(w->scratch);
    return status;
}

static void drop(stored_call *call, int which)
{
    free(call->tensors[which].view.data);
    memset(&call->tensors[which], 0, sizeof call->tensors[which]);
}

/* The outputs that an op may lack; tried without each and without both. */
static const int optional[] = {STORED_KEY_MASS, STORED_LSE};
enum { OPTIONAL = sizeof optional / sizeof *optional };

static attn_status prepare_without(work *w, const arguments *a, const attn_device *device,
                                   const stored_call *call, unsigned without, uint64_t *scratch,
                                   attn_error *err)
{
    stored_call less = *call;
    void *data[STORED_N];
    for (int k = 0; k < OPTIONAL; k++) {
        if (without >> k & 1) {
            memset(&less.tensors[optional[k]], 0, sizeof less.tensors[optional[k]]);
        }
    }
    for (int k = 0; k < STORED_N; k++) {
        data[k] = less.tensors[k].view.data;
    }
    attn_op_call c = stored_op_call(&less, device, data);
    return attn_router_prepare(w->router, a->op, NULL, 0, 0, &c, &w->plan, scratch, err);
}

/* Asks for every output; an op that cannot give key_mass or lse is asked without, and that is said.
 */
static attn_status prepare(work *w, const arguments *a, const attn_device *device,
                           stored_call *call, uint64_t *scratch, attn_error *err)
{
    ATTN_ERROR_ON(why, 1024);
    unsigned without = 0;
    attn_status status = prepare_without(w, a, device, call, 0, scratch, &why);
    while (status == ATTN_UNSUPPORTED && ++without < 1u << OPTIONAL) {
        status = prepare_without(w, a, device, call, without, scratch, err);
    }
    if (status != ATTN_OK) {
        return without ? status : attn_fail(err, status, "%s", why.text);
    }
    for (int k = 0; k < OPTIONAL; k++) {
        if (without >> k & 1) {
            (void)fprintf(stderr, "attnplug: note: written without %s, which the op refuses: %s\n",
                          call->tensors[optional[k]].name, why.text);
            drop(call, optional[k]);
        }
    }
    return ATTN_OK;
}

static attn_status attend(attn_registry *registry, const arguments *a, const attn_device *device,
                          stored_call *call, attn_error *err)
{
    work w = {0};
    uint64_t scratch = 0;
    attn_status status = attn_router_open(registry, device, NULL, &w.router, err);
    if (status == ATTN_OK) {
        status = prepare(&w, a, device, call, &scratch, err);
    }
    if (status == ATTN_OK && device->type == ATTN_DEVICE_CPU) {
        void *data[STORED_N];
        for (int i = 0; i < STORED_N; i++) {
            data[i] = call->tensors[i].view.data;
        }
        attn_op_call c = stored_op_call(call, device, data);
        status = run_on_cpu(&w, &c, scratch, err);
    } else if (status == ATTN_OK) {
        status = run_on_device(&w, device, call, scratch, err);
    }
    if (status == ATTN_OK) {
        status = stored_write(a->out, call, attn_plan_op(w.plan), err);
    }
    attn_plan_release(w.plan);
    (void)attn_router_close(w.router);
    return status;
}

static int run(arguments *a, const attn_device *device, uint8_t code, uint8_t bits)
{
    ATTN_ERROR_ON(err, 1024);
    attn_registry *registry = NULL;
    stored_call call;
    int failed = cli_op_file(a->op);
    failed = failed ? failed : cli_registry(&registry);
    failed = failed ? failed : cli_op_of_file(registry, &a->op);
    failed = failed ? failed : cli_op_known(registry, a->op);
    if (failed) {
        attn_registry_close(registry);
        return failed;
    }
    attn_status status = stored_read(a->in, code, bits, &call, &err);
    if (status == ATTN_OK) {
        status = attend(registry, a, device, &call, &err);
        stored_free(&call);
    }
    attn_registry_close(registry);
    return status == ATTN_OK ? CLI_OK : cli_fail("%s", err.text);
}

int cmd_attend(int argc, char **argv)
{
    arguments a = {.device = "cpu"};
    attn_device device;
    uint8_t code = 0, bits = 0;
    int first = 0;
    const cli_option options[] = {
        {"op", CLI_TEXT, &a.op, "NAME",
         "the op: a name (attnplug names), a plugin's id or its file (auto)"},
        {"in", CLI_TEXT, &a.in, "F", "the inputs, a .safetensors file"},
        {"out", CLI_TEXT, &a.out, "G", "where to write the outputs"},
        {"device", CLI_TEXT, &a.device, "D", "cpu, cuda, cuda:1, cann (default cpu)"},
        {"dtype", CLI_TEXT, &a.dtype, "T", "compute in f32, f16, bf16 or f64 (default: as q is)"},
    };
    const cli_command command = {
        "attnplug attend --op NAME --in F --out G [OPTIONS]",
        "Runs one op: q, k, v [B,H,N,D], optional bias and mask (uint8, non-zero may be seen), "
        "both\n"
        "broadcast to [B,H,Nq,Nk] -> out, lse [B,H,Nq] (natural logarithm), key_mass [B,Nk].\n"
        "Metadata: scale (default 1/sqrt(D)), causal (0, top-left, bottom-right), window (L,R; -1 "
        "is\n"
        "no bound).",
        options,
        sizeof options / sizeof *options,
        0,
        0};
    int status = cli_parse(&command, argc, argv, &first);
    if (status != CLI_GO) {
        return status;
    }
    if (!a.in || !a.out) {
        return cli_misuse("%s is missing; usage: %s", a.in ? "--out" : "--in", command.usage);
    }
    if (!cli_device(a.device, &device) || (a.dtype && !cli_dtype(a.dtype, &code, &bits))) {
        return CLI_USAGE;
    }
    return run(&a, &device, code, bits);
}
