/* What the kernels for any chip and any call share: how a score is masked and biased, and how tiles
 * are loaded. */
#ifndef FLASH_GENERIC_COMMON_CUH
#define FLASH_GENERIC_COMMON_CUH

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "flash_kernel.h"

#define FLASH_LOG2E 1.4426950408889634f
#define FLASH_LN2   0.69314718055994531f

__device__ __forceinline__ float generic_float(const void *data, int64_t at, int dtype)
{
    if (dtype == FLASH_F32)
        return ((const float *)data)[at];
    if (dtype == FLASH_F16)
        return __half2float(((const __half *)data)[at]);
    return __bfloat162float(((const __nv_bfloat16 *)data)[at]);
}

/* The score in log2 units with bias, or minus infinity where the query may not see the key. */
struct GenericScore {
    const flash_problem &a;
    int64_t bias, mask; /* offsets of this batch and head */
    float scale;

    __device__ __forceinline__ GenericScore(const flash_problem &p, int b, int h)
        : a(p), bias(b * p.bias.batch + h * p.bias.head), mask(b * p.mask.batch + h * p.mask.head),
          scale(p.scale * FLASH_LOG2E)
    {
    }

    __device__ __forceinline__ float operator()(float dot, int i, int j) const
    {
        if (i >= a.nq || j >= a.nk)
            return -INFINITY;
        if (a.band && ((int64_t)j - i < a.band_lo || (int64_t)j - i > a.band_hi))
            return -INFINITY;
        if (a.mask.data && !((const uint8_t *)a.mask.data)[mask + i * a.mask.row + j * a.mask.col])
            return -INFINITY;
        float s = dot * scale;
        if (a.bias.data)
            s += generic_float(a.bias.data, bias + i * a.bias.row + j * a.bias.col, a.bias_dtype) *
                 FLASH_LOG2E;
        return s;
    }
};

/* Keys [first, last) hold all that rows [row0, row0 + rows) may see of the band; first is a
 * multiple of `tile`. */
__device__ __forceinline__ void generic_key_range(const flash_problem &a, int row0, int rows,
                                                  int tile, int &first, int &last)
{
    first = 0;
    last = a.nk;
    if (!a.band)
        return;
    const int64_t bottom = min((int64_t)row0 + rows, (int64_t)a.nq) - 1;
    if (a.band_lo > -(int64_t)a.nq && row0 + a.band_lo > 0)
        first = (int)min((row0 + a.band_lo) / tile * tile, (int64_t)a.nk);
    if (a.band_hi < (int64_t)a.nk && bottom + a.band_hi + 1 < a.nk)
        last = (int)max(bottom + a.band_hi + 1, (int64_t)0);
}

/* Copies rows x cols elements of a strided matrix to shared memory, zeros where there are none.
 * `whole`: rows may be read in 16-byte pieces. */
template <class E, int ROWS, int COLS, int THREADS>
__device__ __forceinline__ void generic_load(E *dst, int pitch, const E *src, int64_t row_stride,
                                             int64_t col_stride, int rows, int cols, bool whole)
{
    constexpr int PER = 16 / sizeof(E);
    if (whole) {
#pragma unroll 4
        for (int id = threadIdx.x; id < ROWS * COLS / PER; id += THREADS) {
            const int r = id / (COLS / PER), c = id % (COLS / PER) * PER;
            uint4 x = make_uint4(0, 0, 0, 0);
            if (r < rows && c < cols)
                x = *(const uint4 *)(src + r * row_stride + c);
            *(uint4 *)(dst + r * pitch + c) = x;
        }
    } else {
        for (int id = threadIdx.x; id < ROWS * COLS; id += THREADS) {
            const int r = id / COLS, c = id % COLS;
            dst[r * pitch + c] =
                r < rows && c < cols ? src[r * row_stride + c * col_stride] : E(0.f);
        }
    }
}

/* May rows of this view be read in 16-byte pieces of `bytes`-sized elements, `cols` of them valid?
 */
__device__ __forceinline__ bool generic_whole(const flash_view &v, int cols, int bytes)
{
    const int64_t per = 16 / bytes;
    return v.col == 1 && cols % per == 0 && v.row % per == 0 && v.head % per == 0 &&
           v.batch % per == 0 && ((uintptr_t)v.data & 15) == 0;
}

template <class E> __device__ __forceinline__ E generic_round(float x)
{
    return E(x);
}

#endif
