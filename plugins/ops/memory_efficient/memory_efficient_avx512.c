/* memory_efficient with AVX-512 (F, BW, DQ, VL): 48 queries by 8 keys in 24 registers. */
#include <immintrin.h>

#include "memory_efficient.h"

#define LANES 16
#define NV    3
#define GROUP 8

#include "v8_avx.h"
#include "vec_avx512.h"

#include "columns_avx512.h"

static int kernels_usable(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

#include "products.h"
#include "tiles.h"

const struct me_kernels memory_efficient_avx512 = {
    .name = "avx512",
    .usable = kernels_usable,
    .rows = ROWS,
    .block_rows = 384,
    .block_bytes = 1 << 20,
    .scratch = tiles_scratch,
    .attend = tiles_attend,
    .mass = tiles_mass,
};
