/* Breaks the contract in the function that the parameter "break" names: a status that there is not,
 * a text without an end, nothing where there should be an object, scratch without reason. */
#include "plain.h"

#include <string.h>

static char what[16];

static attn_status bad_create(const attn_host *host, const attn_device *device,
                              const attn_param *params, uint32_t n_params, attn_op **op,
                              attn_error *err)
{
    (void)snprintf(what, sizeof what, "%s", n_params ? params[0].text : "");
    if (!strcmp(what, "no op")) {
        return ATTN_OK;
    }
    return !strcmp(what, "create") ? 77 : plain_create(host, device, params, n_params, op, err);
}

static attn_status bad_supports(attn_op *op, const attn_op_call *c, attn_error *err)
{
    if (!strcmp(what, "text") && err) {
        memset(err->text, 'x', err->capacity);
        return ATTN_UNSUPPORTED;
    }
    if (!strcmp(what, "no text")) {
        return ATTN_UNSUPPORTED;
    }
    return !strcmp(what, "supports") ? -3 : plain_supports(op, c, err);
}

static attn_status bad_prepare(attn_op *op, const attn_op_call *c, attn_op_plan **plan,
                               uint64_t *scratch, attn_error *err)
{
    attn_status status = plain_prepare(op, c, plan, scratch, err);
    if (!strcmp(what, "scratch")) {
        *scratch = UINT64_MAX - 8;
    }
    if (!strcmp(what, "no plan")) {
        *plan = NULL;
    }
    return status;
}

static attn_status bad_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    return !strcmp(what, "run")      ? 1000
           : !strcmp(what, "device") ? ATTN_DEVICE
                                     : plain_run(plan, c, err);
}

const attn_op_api attn_op_v1 = {.head = PLAIN_HEAD("org.attnplug.test.bad", "1"),
                                .create = bad_create,
                                .destroy = plain_destroy,
                                .supports = bad_supports,
                                .prepare = bad_prepare,
                                .run = bad_run,
                                .release = plain_release};
