/* kernels_c.c: the kernels for any processor, four lanes. */
#define KERNELS      kernels_c
#define KERNELS_NAME "c"
#define LANES        4
#define TILE_ROWS    6
#include "kernels_body.h"
