/* Attention in fp32 for any chip and any call, on the ordinary multiply-add units: 256 threads, 64
 * query rows, BN keys at a time. A thread holds 4 rows x 4 keys of the scores and 4 rows x DV / 16
 * columns of the result.
 */
#ifndef FLASH_GENERIC_F32_CUH
#define FLASH_GENERIC_F32_CUH

#include "generic_common.cuh"

template <int DQ_, int DV_> struct FloatShape {
    static constexpr int DQ = DQ_, DV = DV_, BN = 64, ROWS = 64, THREADS = 256;
    static constexpr int STEP = 32; /* columns of Q and K in shared memory at a time */
    static constexpr int SP = STEP + 4, PP = BN + 4, VP = DV + 4;
    static constexpr int VROWS = DV > 128 ? 16 : 32; /* rows of V in shared memory at a time */
    static constexpr int SMEM = (ROWS * SP + BN * SP + ROWS * PP + VROWS * VP) * 4,
                         MASS_SMEM = (ROWS * SP + BN * SP + 16 * BN) * 4;
};

/* s[i][j]: row 16 i + threadIdx / 16, key 16 j + threadIdx % 16 */
template <class T>
__device__ __forceinline__ void float_scores(float (&s)[4][4], float *q, float *k, const float *qp,
                                             int64_t q_row, int64_t q_col, int rows, bool qw,
                                             const float *kp, int64_t k_row, int64_t k_col,
                                             int keys, bool kw, int d)
{
    const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
            s[i][j] = 0.f;
    for (int x = 0; x < d; x += T::STEP) {
        __syncthreads();
        generic_load<float, T::ROWS, T::STEP, T::THREADS>(q, T::SP, qp + x * q_col, q_row, q_col,
                                                          rows, d - x, qw);
        generic_load<float, T::BN, T::STEP, T::THREADS>(k, T::SP, kp + x * k_col, k_row, k_col,
                                                        keys, d - x, kw);
        __syncthreads();
#pragma unroll
        for (int c = 0; c < T::STEP; c += 4) {
            float4 qa[4], kb[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                qa[i] = *(const float4 *)(q + (i * 16 + ty) * T::SP + c);
                kb[i] = *(const float4 *)(k + (i * 16 + tx) * T::SP + c);
            }
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    s[i][j] += qa[i].x * kb[j].x + qa[i].y * kb[j].y +
                               (qa[i].z * kb[j].z + qa[i].w * kb[j].w);
        }
    }
}

/* over the 16 threads that share a row */
__device__ __forceinline__ float row_max16(float x)
{
#pragma unroll
    for (int m = 1; m < 16; m *= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, m));
    return x;
}

__device__ __forceinline__ float row_sum16(float x)
{
#pragma unroll
    for (int m = 1; m < 16; m *= 2)
        x += __shfl_xor_sync(0xffffffffu, x, m);
    return x;
}

template <class T>
__global__ void __launch_bounds__(T::THREADS)
    float_attention_kernel(const __grid_constant__ flash_problem a)
{
    extern __shared__ __align__(16) float memory[];
    float *q = memory, *k = q + T::ROWS * T::SP, *p = k + T::BN * T::SP, *v = p + T::ROWS * T::PP;
    const int row_tiles = (a.nq + T::ROWS - 1) / T::ROWS, bh = blockIdx.x / row_tiles, b = bh / a.h,
              h = bh % a.h, hk = h / (a.h / a.hkv);
    const int row0 = (blockIdx.x % row_tiles) * T::ROWS, col0 = blockIdx.z * T::DV,
              dv = min(a.dv - col0, T::DV);
    const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    const GenericScore score(a, b, h);
    const bool qw = generic_whole(a.q, a.d, 4), kw = generic_whole(a.k, a.d, 4),
               vw = generic_whole(a.v, a.dv, 4);
    const float *qp = (const float *)a.q.data + b * a.q.batch + h * a.q.head + row0 * a.q.row,
                *kp = (const float *)a.k.data + b * a.k.batch + hk * a.k.head;
    const float *vp = (const float *)a.v.data + b * a.v.batch + hk * a.v.head + col0 * a.v.col;
    float o[4][T::DV / 16], shift[4], sum[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        shift[i] = -INFINITY;
        sum[i] = 0.f;
#pragma unroll
        for (int c = 0; c < T::DV / 16; ++c)
            o[i][c] = 0.f;
    }
    int first, last;
    generic_key_range(a, row0, T::ROWS, T::BN, first, last);
    for (int key0 = first; key0 < last; key0 += T::BN) {
        float s[4][4];
        float_scores<T>(s, q, k, qp, a.q.row, a.q.col, a.nq - row0, qw, kp + key0 * a.k.row,
                        a.k.row, a.k.col, a.nk - key0, kw, a.d);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float m = shift[i];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                s[i][j] = score(s[i][j], row0 + i * 16 + ty, key0 + j * 16 + tx);
                m = fmaxf(m, s[i][j]);
            }
            m = row_max16(m);
            const float safe = m == -INFINITY ? 0.f : m, factor = exp2f(shift[i] - safe);
            shift[i] = m;
            float z = 0.f;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const float x = exp2f(s[i][j] - safe);
                z += x;
                p[(i * 16 + ty) * T::PP + j * 16 + tx] = x;
            }
            sum[i] = sum[i] * factor + z;
#pragma unroll
            for (int c = 0; c < T::DV / 16; ++c)
                o[i][c] *= factor;
        }
        for (int y = 0; y < T::BN; y += T::VROWS) {
            __syncthreads();
            generic_load<float, T::VROWS, T::DV, T::THREADS>(
                v, T::VP, vp + (key0 + y) * a.v.row, a.v.row, a.v.col, a.nk - key0 - y, dv, vw);
            __syncthreads();
#pragma unroll 4
            for (int z = 0; z < T::VROWS; ++z) {
                float x[4];
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    x[i] = p[(i * 16 + ty) * T::PP + y + z];
#pragma unroll
                for (int c = 0; c < T::DV / 16; ++c) {
                    const float w = v[z * T::VP + c * 16 + tx];
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        o[i][c] += x[i] * w;
                }
            }
        }
    }
    float *out = (float *)a.out.data + b * a.out.batch + h * a.out.head + col0 * a.out.col;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int row = row0 + i * 16 + ty;
        const float z = row_sum16(sum[i]);
        if (row >= a.nq)
            continue;
#pragma unroll
        for (int c = 0; c < T::DV / 16; ++c)
            if (c * 16 + tx < dv)
                out[row * a.out.row + (c * 16 + tx) * a.out.col] =
                    shift[i] == -INFINITY ? 0.f : o[i][c] / z;
        if (a.lse.data && tx == 0 && blockIdx.z == 0)
            ((float *)a.lse.data)[b * a.lse.batch + h * a.lse.head + row * a.lse.row] =
                (shift[i] + log2f(z)) * FLASH_LN2;
        if (a.stats && tx == 0 && blockIdx.z == 0)
            ((float2 *)a.stats)[(int64_t)bh * a.nq + row] = make_float2(shift[i], z);
    }
}

/* as generic_mass_kernel */
template <class T>
__global__ void __launch_bounds__(T::THREADS)
    float_mass_kernel(const __grid_constant__ flash_problem a)
{
    extern __shared__ __align__(16) float memory[];
    float *q = memory, *k = q + T::ROWS * T::SP, *parts = k + T::BN * T::SP;
    const int key_tiles = (a.nk + T::BN - 1) / T::BN, bh = blockIdx.x / key_tiles, b = bh / a.h,
              h = bh % a.h, hk = h / (a.h / a.hkv);
    const int key0 = (blockIdx.x % key_tiles) * T::BN, ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    const GenericScore score(a, b, h);
    const bool qw = generic_whole(a.q, a.d, 4), kw = generic_whole(a.k, a.d, 4);
    const float *qp = (const float *)a.q.data + b * a.q.batch + h * a.q.head,
                *kp = (const float *)a.k.data + b * a.k.batch + hk * a.k.head + key0 * a.k.row;
    const float2 *stats = (const float2 *)a.stats + (int64_t)bh * a.nq;
    float column[4] = {};
    for (int row0 = 0; row0 < a.nq; row0 += T::ROWS) {
        float s[4][4];
        float_scores<T>(s, q, k, qp + row0 * a.q.row, a.q.row, a.q.col, a.nq - row0, qw, kp,
                        a.k.row, a.k.col, a.nk - key0, kw, a.d);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = row0 + i * 16 + ty;
            const float2 stat = row < a.nq ? stats[row] : make_float2(-INFINITY, 0.f);
            const float shift = stat.x == -INFINITY ? 0.f : stat.x,
                        factor = stat.x == -INFINITY ? 0.f : 1.f / stat.y;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int key = key0 + j * 16 + tx;
                const float p = exp2f(score(s[i][j], row, key) - shift) * factor;
                column[j] += p;
                if (a.probs.data && row < a.nq && key < a.nk)
                    ((float *)a.probs.data)[b * a.probs.batch + h * a.probs.head +
                                            row * a.probs.row + key * a.probs.col] = p;
            }
        }
    }
    if (!a.key_mass.data)
        return;
#pragma unroll
    for (int j = 0; j < 4; ++j)
        parts[ty * T::BN + j * 16 + tx] = column[j];
    __syncthreads();
    for (int j = threadIdx.x; j < T::BN && key0 + j < a.nk; j += T::THREADS) {
        float x = 0.f;
#pragma unroll
        for (int t = 0; t < 16; ++t)
            x += parts[t * T::BN + j];
        ((float *)a.scratch)[(int64_t)bh * a.nk + key0 + j] = x;
    }
}

#endif
