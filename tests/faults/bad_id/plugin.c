/* An id without an end. */
#include "plain.h"

const attn_op_api attn_op_v1 = {
    .head = {.magic = ATTN_MAGIC,
             .abi = ATTN_ABI,
             .size = sizeof(attn_op_api),
             .devices = 2,
             .dtypes = ATTN_DTYPE_F32,
             .id = "org.attnplug.test.bad.and.then.it.goes.on.and.on.until.no.room.i",
             .version = "1"},
    PLAIN_FUNCTIONS,
};
