/* A magic number of somebody else's. */
#include "plain.h"

const attn_op_api attn_op_v1 = {
    .head = {.magic = 0x12345678u,
             .abi = ATTN_ABI,
             .size = sizeof(attn_op_api),
             .devices = 2,
             .dtypes = ATTN_DTYPE_F32,
             .id = "org.attnplug.test.bad",
             .version = "1"},
    PLAIN_FUNCTIONS,
};
