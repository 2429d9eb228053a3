/* linear.h: a linear, checked, and how it runs: by oneDNN (linear_onednn.c) or, in a build without
 * it, by gemm.c (linear_gemm.c). */
#ifndef ATTNPLUG_CPU_LINEAR_H
#define ATTNPLUG_CPU_LINEAR_H

#include "cpu.h"

#define TERMS_MAX 64 /* as many adapters as a layer can have */

/* y = alpha act(x weight' + bias + terms) + beta c; gated: y = a gelu(g), [a | g] = the sum. */
struct linear_call {
    attn_work *w;
    const attn_tensor *x;
    const attn_linear *linear;
    const attn_tensor *y;
    const attn_tensor *c; /* NULL: none */
    float alpha, beta;
    enum activation activation;
    bool gated;
    int64_t columns, depth, rank; /* of y, of x, of all terms together */
};

attn_status linear_run(struct linear_call *l);

#endif
