/* The smallest plugin, for the seed corpus. */
#include "attn_abi.h"

#ifndef MAGIC
#define MAGIC ATTN_MAGIC
#endif

#define HEAD(type)                                                                                 \
    {                                                                                              \
        .magic = MAGIC, .abi = ATTN_ABI, .size = sizeof(type), .devices = 2, .dtypes = 1,          \
        .id = "org.attnplug.seed", .version = "1"                                                  \
    }

#ifdef LINKED
/* With functions, a constructor and calls into libc: relocations and versions. */
#include <stdio.h>

__attribute__((constructor)) static void start(void)
{
    (void)puts("seed");
}

static void nothing(attn_op *op)
{
    (void)op;
}

const attn_op_api attn_op_v1 = {.head = HEAD(attn_op_api), .destroy = nothing};
#elif defined(LATER)
extern ATTN_EXPORT const attn_head attn_op_v2;
const attn_head attn_op_v2 = HEAD(attn_op_api);
#else
const attn_op_api attn_op_v1 = {.head = HEAD(attn_op_api)};
#ifdef PROCESSOR
const attn_processor_api attn_processor_v1 = {.head = HEAD(attn_processor_api)};
#endif
#endif
