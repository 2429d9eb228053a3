/* Built for another draft of the contract. */
#include "plain.h"

const attn_op_api attn_op_v1 = {
    .head = {.magic = ATTN_MAGIC,
             .abi = 0x00990001u,
             .size = sizeof(attn_op_api),
             .devices = 2,
             .dtypes = ATTN_DTYPE_F32,
             .id = "org.attnplug.test.bad",
             .version = "1"},
    PLAIN_FUNCTIONS,
};
