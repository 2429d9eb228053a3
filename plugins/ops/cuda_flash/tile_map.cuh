/* A tensor map of q, k or v for boxes of 64 columns under the 128-byte swizzle. */
#ifndef FLASH_TILE_MAP_CUH
#define FLASH_TILE_MAP_CUH

#include <cstring>
#include <cudaTypedefs.h>

#include "flash_launch.h"

/* `n` rows and `heads` of the view in boxes of `rows`. `promotion`: how much L2 fetches at once;
 * the short kernels, which read everything once, do better with 128 bytes. 0, or FLASH_NO_MAP. */
static inline int tile_map(CUtensorMap *map, bool bf, const flash_view &v, int n, int heads,
                           const flash_problem &p, int rows, void *encode,
                           CUtensorMapL2promotion promotion = CU_TENSOR_MAP_L2_PROMOTION_L2_256B)
{
    /* a broadcast dimension has one element: the kernel then asks for index 0 */
    const cuuint64_t dims[4] = {(cuuint64_t)p.d, (cuuint64_t)n, (cuuint64_t)(v.head ? heads : 1),
                                (cuuint64_t)(v.batch ? p.b : 1)};
    const cuuint64_t strides[3] = {(cuuint64_t)v.row * 2, (cuuint64_t)(v.head ? v.head * 2 : 16),
                                   (cuuint64_t)(v.batch ? v.batch * 2 : 16)};
    const cuuint32_t box[4] = {64, (cuuint32_t)rows, 1, 1}, ones[4] = {1, 1, 1, 1};
    if (v.row <= 0 || v.head < 0 || v.batch < 0)
        return FLASH_NO_MAP;
    const CUresult r = ((PFN_cuTensorMapEncodeTiled_v12000)encode)(
        map, bf ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4, v.data,
        dims, strides, box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        promotion, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return r == CUDA_SUCCESS ? 0 : FLASH_NO_MAP;
}

#endif
