/* fp32 attention on the tensor cores: shapes, and how an operand becomes parts.
 *
 * HALF: two fp16 parts, x = x0 + x1 to 2^-24, and a product is x0 y0 + (x0 y1 + x1 y0). fp16 spans
 * few magnitudes, so operands are scaled by powers of two: a row of Q by its own largest element, K
 * and V by the largest of FLASH_SPLIT_TILE keys, P by its row's largest in a tile. Where the keys
 * of such a tile lie too many magnitudes apart for that, the queries that see it are left to BRAIN:
 * three bf16 parts, x = x0 + x1 + x2 exactly (each is what is left, cut to 8 bits), six products;
 * bf16 has the exponents of fp32, so nothing wants a scale.
 *
 * Measured on an H100 (tools/microbench): mma.sync multiplies 2427 FLOP a clock and multiprocessor
 * in fp16 and bf16, 1213 in TF32, whose three products would take as long as six of bf16 and twice
 * the shared memory. Tensor cores cut where they add (an addend under 2^-24 of the largest is
 * lost). Parts of different size therefore have accumulators of their own, and what a chunk or a
 * key tile gives is added in fp32 with ordinary rounding.
 */
#ifndef FLASH_SPLIT_F32_CUH
#define FLASH_SPLIT_F32_CUH

#include "flash_split.h"
#include "generic_common.cuh"

#define SPLIT_DEVICE __device__ __forceinline__

enum SplitParts { SPLIT_HALF = 2, SPLIT_BRAIN = 3 };

/* D columns in chunks of CW; BN keys a tile; RG groups of warps with MT x 16 rows each, whose CG
 * warps share the keys of Q K^T and the columns of P V; BLOCKS a multiprocessor. */
template <SplitParts PARTS_, int D_, int CW_, int BN_, int RG_, int CG_, int MT_, int BLOCKS_>
struct SplitShape {
    static constexpr int PARTS = PARTS_;
    static constexpr bool HALF = PARTS_ == SPLIT_HALF;
    static constexpr int D = D_, CW = CW_, BN = BN_, RG = RG_, CG = CG_, MT = MT_, BLOCKS = BLOCKS_;
    static constexpr int CHUNKS = D / CW, STEPS = (CW + 15) / 16, COLUMNS = CHUNKS * STEPS * 16;
    /* steps between two additions in fp32: the same in every shape of a D, so that a second pass
     * meets the scores of the first to the last bits */
    static constexpr int GROUP = STEPS % 5 == 0 ? 5 : STEPS % 4 == 0 ? 4 : STEPS;
    static constexpr int WARP_ROWS = MT * 16, ROWS = RG * WARP_ROWS, THREADS = RG * CG * 32;
    static constexpr int SK = BN / CG, CV = CW / CG; /* a warp's keys; its columns of a chunk */
    static constexpr int S = MT * SK / 8, O = MT * CHUNKS * CV / 8; /* a thread's matrix tiles */
    /* pitches: an odd number of 16-byte pieces, so that ldmatrix meets no bank twice */
    static constexpr int QP = COLUMNS + 8, CP = STEPS * 16 + 8, PP = BN + 8;
    static constexpr int Q_PART = ROWS * QP, C_PART = BN * CP, P_PART = CG > 1 ? ROWS *PP : 0;
    static constexpr int SLOTS = HALF ? 2 : 1; /* chunks in shared memory */
    /* what undoes the scales of the rows' chunks; maxima of rows */
    static constexpr int BACK = HALF ? CHUNKS * ROWS : 0, EXCHANGE = CG > 1 ? CG *ROWS : 0;
    static constexpr int SMEM =
        PARTS * (Q_PART + SLOTS * C_PART + P_PART) * 2 + (BACK + EXCHANGE) * 4;
    static constexpr float UP = HALF ? 14.f : 0.f; /* log2 of what P is multiplied by */
    static_assert(D % CW == 0 && SK % 16 == 0 && CV % 8 == 0 && BN % 32 == 0, "whole matrix tiles");
    static_assert(FLASH_SPLIT_TILE % BN == 0, "a tile's values have one scale");
};

SPLIT_DEVICE float split_power(int e)
{
    return __uint_as_float((uint32_t)(127 + e) << 23);
}

/* The power of two that brings values up to `most` (as bits) into fp16's upper range, [2^14, 2^15);
 * tiny ones stay below. */
SPLIT_DEVICE int split_scale(uint32_t most)
{
    return 14 - max((int)(most >> 23) - 127, -100);
}

/* two neighbours' parts, packed */
SPLIT_DEVICE void split_pair(float x, float y, uint32_t (&p)[SPLIT_HALF])
{
    const __half2 h = __floats2half2_rn(x, y);
    const float2 back = __half22float2(h);
    const __half2 l = __floats2half2_rn(x - back.x, y - back.y);
    p[0] = *(const uint32_t *)&h;
    p[1] = *(const uint32_t *)&l;
}

SPLIT_DEVICE void split_pair(float x, float y, uint32_t (&p)[SPLIT_BRAIN])
{
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        const uint32_t a = __float_as_uint(x), b = __float_as_uint(y);
        p[i] = __byte_perm(a, b, 0x7632);
        x -= __uint_as_float(a & 0xffff0000u);
        y -= __uint_as_float(b & 0xffff0000u);
    }
}

/* One matrix: [n, d] of this batch and head. */
struct SplitSource {
    const float *data;
    int64_t row, col;
    int n, d;
    bool whole;

    SPLIT_DEVICE SplitSource(const flash_view &v, int b, int h, int rows, int cols)
        : data((const float *)v.data + b * v.batch + h * v.head), row(v.row), col(v.col), n(rows),
          d(cols), whole(generic_whole(v, cols, 4))
    {
    }
};

/* ROWS x COLS on their way from global memory through THREADS threads' registers to their parts.
 * LANES neighbouring threads share a row. */
template <int PARTS, int ROWS, int COLS, int THREADS> struct SplitFetch {
    static constexpr int SHARE = THREADS / ROWS, PER = COLS / 4;
    static constexpr int LANES = SHARE <= 4 ? 4 : SHARE <= 8 ? 8 : 16;
    static constexpr int STEP = THREADS / LANES, DOWN = (ROWS + STEP - 1) / STEP,
                         ACROSS = (PER + LANES - 1) / LANES;
    float4 x[DOWN][ACROSS];

    static SPLIT_DEVICE int row(int n)
    {
        return threadIdx.x / LANES + n * STEP;
    }

    static SPLIT_DEVICE int column(int i)
    {
        return (threadIdx.x % LANES + i * LANES) * 4;
    }

    SPLIT_DEVICE void load(const SplitSource &s, int first, int left)
    {
        const float *src = s.data + (first + row(0)) * s.row + (left + column(0)) * s.col;
        const int rows = min(s.n - first, ROWS) - row(0), cols = min(s.d - left, COLS) - column(0);
#pragma unroll
        for (int n = 0; n < DOWN; ++n)
#pragma unroll
            for (int i = 0; i < ACROSS; ++i)
                x[n][i] = make_float4(0.f, 0.f, 0.f, 0.f);
        if (s.whole) {
#pragma unroll
            for (int n = 0; n < DOWN; ++n, src += STEP * s.row)
#pragma unroll
                for (int i = 0; i < ACROSS; ++i)
                    if (n * STEP < rows && i * LANES * 4 < cols)
                        x[n][i] = *(const float4 *)(src + i * LANES * 4);
            return;
        }
#pragma unroll
        for (int n = 0; n < DOWN; ++n, src += STEP * s.row)
#pragma unroll
            for (int i = 0; i < ACROSS; ++i)
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    if (n * STEP < rows && i * LANES * 4 + e < cols)
                        (&x[n][i].x)[e] = src[(i * LANES * 4 + e) * s.col];
    }

    /* the largest magnitude in this thread's row n, as bits */
    SPLIT_DEVICE uint32_t most(int n) const
    {
        float m = 0.f;
#pragma unroll
        for (int i = 0; i < ACROSS; ++i)
            m = fmaxf(fmaxf(m, fmaxf(fabsf(x[n][i].x), fabsf(x[n][i].y))),
                      fmaxf(fabsf(x[n][i].z), fabsf(x[n][i].w)));
#pragma unroll
        for (int l = 1; l < LANES; l *= 2)
            m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, l));
        return __float_as_uint(m);
    }

    SPLIT_DEVICE void store_row(uint16_t *dst, int pitch, int64_t part, int n, float scale) const
    {
#pragma unroll
        for (int i = 0; i < ACROSS; ++i) {
            uint32_t lo[PARTS], hi[PARTS];
            split_pair(x[n][i].x * scale, x[n][i].y * scale, lo);
            split_pair(x[n][i].z * scale, x[n][i].w * scale, hi);
            if (row(n) < ROWS && column(i) < COLS)
#pragma unroll
                for (int p = 0; p < PARTS; ++p)
                    *(uint2 *)(dst + p * part + row(n) * pitch + column(i)) =
                        make_uint2(lo[p], hi[p]);
        }
    }

    /* each row with its own scale; `back` receives what undoes it */
    SPLIT_DEVICE void store_scaled(uint16_t *dst, int pitch, int64_t part, float *back) const
    {
#pragma unroll
        for (int n = 0; n < DOWN; ++n) {
            const int e = split_scale(most(n));
            store_row(dst, pitch, part, n, split_power(e));
            if (threadIdx.x % LANES == 0 && row(n) < ROWS)
                back[row(n)] = split_power(-e);
        }
    }

    SPLIT_DEVICE void store(uint16_t *dst, int pitch, int64_t part) const
    {
#pragma unroll
        for (int n = 0; n < DOWN; ++n)
            store_row(dst, pitch, part, n, 1.f);
    }
};

/* Launched while the kernel before may still run (programmatic dependent launch): waits for it, and
 * lets the next one come. */
SPLIT_DEVICE void split_begin()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#endif
