/* kernels_avx2.c: the kernels for AVX2 and FMA. */
#define KERNELS      kernels_avx2
#define KERNELS_NAME "avx2"
#define LANES        8
#define TILE_ROWS    6
#include "kernels_body.h"
