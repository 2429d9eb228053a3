/* A symbol smaller than the contract's. */
#include "plain.h"

const attn_op_api attn_op_v1 = {
    .head = {.magic = ATTN_MAGIC,
             .abi = ATTN_ABI,
             .size = 100,
             .devices = 2,
             .dtypes = ATTN_DTYPE_F32,
             .id = "org.attnplug.test.bad",
             .version = "1"},
    PLAIN_FUNCTIONS,
};
