/* golden.h: a stored call of tests/golden/ops and its results. */
#ifndef TESTS_OPS_GOLDEN_H
#define TESTS_OPS_GOLDEN_H

#include "harness.h"

struct golden {
    struct data data;
    attn_tensor out, lse, key_mass; /* fp32, of float64 results */
    char *bytes;
};

void golden_open(struct golden *golden, const char *path);
void golden_close(struct golden *golden);

#endif
