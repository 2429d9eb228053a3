/* kernels_avx512.c: the kernels for AVX-512 (F, BW, DQ, VL). */
#define KERNELS      kernels_avx512
#define KERNELS_NAME "avx512"
#define LANES        16
#define TILE_ROWS    12
#include "kernels_body.h"
