/* memory_efficient with AVX-512 (F, BW, DQ, VL): 48 queries by 8 keys in 24 registers. */
#include <immintrin.h>

#include "memory_efficient.h"

#define KERNELS      memory_efficient_avx512
#define KERNELS_NAME "avx512"
#define LANES        16
#define NV           3
#define GROUP        8

#include "v8_avx.h"
#include "vec_avx512.h"

static int kernels_usable(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

#include "tiles.h"
