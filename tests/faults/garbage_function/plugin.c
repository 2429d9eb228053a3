/* One function is missing, or points to nothing that runs. */
#include "plain.h"

const attn_op_api attn_op_v1 = {.head = PLAIN_HEAD("org.attnplug.test.bad", "1"),
                                .create = plain_create,
                                .destroy = plain_destroy,
                                .supports = plain_supports,
                                .prepare = (void *)&attn_op_v1,
                                .run = NULL,
                                .release = plain_release};
