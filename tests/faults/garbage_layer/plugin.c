/* A processor that breaks the contract in the function that the parameter "break" names: a status
 * that there is not, a text without an end, nothing where there should be an object, an arena
 * without reason. */
#include "attn_abi.h"

#include <stdio.h>
#include <string.h>

static char what[16];
static int object;

static attn_status create(const attn_host *host, const attn_device *device,
                          const attn_param *params, uint32_t n_params, attn_processor **processor,
                          attn_error *err)
{
    (void)host, (void)device, (void)err;
    (void)snprintf(what, sizeof what, "%s", n_params ? params[0].text : "");
    if (strcmp(what, "no processor") != 0) {
        *processor = (attn_processor *)&object;
    }
    return strcmp(what, "create") != 0 ? ATTN_OK : 77;
}

static void destroy(attn_processor *processor)
{
    (void)processor;
}

static attn_status bind(attn_processor *processor, const attn_layer *layer,
                        const attn_param *params, uint32_t n_params, attn_work *work,
                        attn_binding **binding, attn_error *err)
{
    (void)processor, (void)layer, (void)params, (void)n_params, (void)work;
    if (!strcmp(what, "text") && err) {
        memset(err->text, 'x', err->capacity);
        return ATTN_UNSUPPORTED;
    }
    if (strcmp(what, "no binding") != 0) {
        *binding = (attn_binding *)&object;
    }
    return strcmp(what, "bind") != 0 ? ATTN_OK : -3;
}

static void unbind(attn_binding *binding)
{
    (void)binding;
}

static attn_status prepare(attn_binding *binding, const attn_layer_call *call,
                           attn_layer_plan **plan)
{
    (void)binding;
    call->work->peak = strcmp(what, "arena") != 0 ? 256 : UINT64_MAX - 8;
    if (strcmp(what, "no plan") != 0) {
        *plan = (attn_layer_plan *)&object;
    }
    return strcmp(what, "prepare") != 0 ? ATTN_OK : 1000;
}

static attn_status run(attn_layer_plan *plan, const attn_layer_call *call)
{
    (void)plan, (void)call;
    return strcmp(what, "run") != 0 ? ATTN_OK : 1000;
}

static void release(attn_layer_plan *plan)
{
    (void)plan;
}

const attn_processor_api attn_processor_v1 = {.head = {.magic = ATTN_MAGIC,
                                                       .abi = ATTN_ABI,
                                                       .size = sizeof(attn_processor_api),
                                                       .devices = 1u << ATTN_DEVICE_CPU,
                                                       .dtypes = ATTN_DTYPE_F32,
                                                       .id = "org.attnplug.test.bad",
                                                       .version = "1"},
                                              .create = create,
                                              .destroy = destroy,
                                              .bind = bind,
                                              .unbind = unbind,
                                              .prepare = prepare,
                                              .run = run,
                                              .release = release};
