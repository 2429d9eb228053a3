/* Throws a C++ exception through C. */
#include "attn_abi.h"

static int instance;

extern "C" {
static attn_status bad_create(const attn_host *, const attn_device *, const attn_param *, uint32_t,
                              attn_op **op, attn_error *)
{
    *op = reinterpret_cast<attn_op *>(&instance);
    return ATTN_OK;
}
static void bad_destroy(attn_op *) {}
static attn_status bad_supports(attn_op *, const attn_op_call *, attn_error *)
{
    throw 1;
}
static attn_status bad_prepare(attn_op *, const attn_op_call *, attn_op_plan **, uint64_t *,
                               attn_error *)
{
    return ATTN_UNSUPPORTED;
}
static attn_status bad_run(attn_op_plan *, const attn_op_call *, attn_error *)
{
    return ATTN_INTERNAL;
}
static void bad_release(attn_op_plan *) {}

const attn_op_api attn_op_v1 = {{ATTN_MAGIC, ATTN_ABI, sizeof(attn_op_api), 0,
                                 1u << ATTN_DEVICE_CPU, ATTN_DTYPE_F32, "org.attnplug.test.bad",
                                 "1", "", ""},
                                bad_create,
                                bad_destroy,
                                bad_supports,
                                bad_prepare,
                                bad_run,
                                bad_release,
                                nullptr};
}
