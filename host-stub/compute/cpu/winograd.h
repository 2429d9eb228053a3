/* winograd.h: 3 x 3 convolutions of stride 1 by fewer multiplications. */
#ifndef ATTNPLUG_CPU_WINOGRAD_H
#define ATTNPLUG_CPU_WINOGRAD_H

#include "gemm.h"

/* Is a convolution of these channels worth the larger weights? */
bool winograd_pays(int64_t in_channels, int64_t out_channels);
/* The transformed weights in panels, from weight [out, in, 3, 3] of any float type; NULL without
 * memory.  Free with free. */
float *winograd_pack(const struct cpu *c, const attn_tensor *weight);

/* Bytes of scratch that a run takes for this many channels. */
uint64_t winograd_scratch(const struct cpu *c, int64_t in_channels);
/* g as for gemm_run, with a window of kernel 3 and stride 1, and panels of winograd_pack. */
void winograd_run(const struct gemm *g, float *scratch);

#endif
