/* A plugin of a later contract alone. */
#include "attn_abi.h"

extern ATTN_EXPORT const attn_head attn_op_v2;
const attn_head attn_op_v2 = {
    .magic = ATTN_MAGIC, .abi = 2, .size = 1000, .id = "org.attnplug.test.bad"};
