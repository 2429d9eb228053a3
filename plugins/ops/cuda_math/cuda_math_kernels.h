/* cuda_math_kernels.h: the kernels of cuda_math as a C function. */
#ifndef CUDA_MATH_KERNELS_H
#define CUDA_MATH_KERNELS_H

#include "flash_kernel.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Queues all of p on the stream; p->scratch holds B * H * Nq doubles. Returns a cudaError_t. */
int cuda_math_launch(const flash_problem *p, void *stream);

#ifdef __cplusplus
}
#endif

#endif
