/* Attention for any chip from sm_80 on and for any call in fp16 or bf16, through mma.sync.
 *
 * A block of four warps owns 64 query rows, each warp 16 of them, and walks over BN keys at a time
 * with the online softmax. Head dimensions are padded to DQ in shared memory; values come in column
 * chunks of DV, one grid plane each.
 */
#ifndef FLASH_GENERIC_MMA_CUH
#define FLASH_GENERIC_MMA_CUH

#include "generic_common.cuh"

template <int DQ_, int DV_, int BN_, bool BF_> struct GenericShape {
    static constexpr int DQ = DQ_, DV = DV_, BN = BN_, ROWS = 64, THREADS = 128;
    static constexpr bool BF = BF_;
    static constexpr int QP = DQ + 8, VP = DV + 8; /* pitches: rows start 4 banks apart */
    static constexpr int SMEM = (ROWS * QP + BN * QP + BN * VP) * 2,
                         MASS_SMEM = (ROWS * QP + BN * QP) * 2 + 4 * BN * 4;
};

template <bool BF> struct GenericElement {
    typedef __half type;
};
template <> struct GenericElement<true> {
    typedef __nv_bfloat16 type;
};

__device__ __forceinline__ void ldmatrix4(uint32_t (&r)[4], const void *p)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

__device__ __forceinline__ void ldmatrix4_transposed(uint32_t (&r)[4], const void *p)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

template <bool BF>
__device__ __forceinline__ void mma_16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                          uint32_t b1)
{
    if constexpr (BF)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                     "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
                     "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <bool BF> __device__ __forceinline__ uint32_t generic_pack(float lo, float hi)
{
    uint32_t r;
    if constexpr (BF)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    else
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}

/* s[j] = rows of the warp x keys j*8.. : values 0,1 in row lane/4, 2,3 in row lane/4+8, columns
 * lane%4*2 + (0,1) */
template <class T, class E>
__device__ __forceinline__ void generic_scores(float (&s)[T::BN / 8][4], const E *q, const E *k)
{
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
    for (int j = 0; j < T::BN / 8; ++j)
        s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.f;
#pragma unroll 4
    for (int x = 0; x < T::DQ; x += 16) {
        uint32_t qa[4];
        ldmatrix4(qa, q + (warp * 16 + (lane & 15)) * T::QP + x + (lane >> 4) * 8);
#pragma unroll
        for (int j = 0; j < T::BN / 16; ++j) {
            uint32_t kb[4];
            ldmatrix4(kb, k + (j * 16 + (lane & 7) + (lane >> 4) * 8) * T::QP + x +
                              ((lane >> 3) & 1) * 8);
            mma_16816<T::BF>(s[j * 2], qa, kb[0], kb[1]);
            mma_16816<T::BF>(s[j * 2 + 1], qa, kb[2], kb[3]);
        }
    }
}

template <class T>
__global__ void __launch_bounds__(T::THREADS)
    generic_attention_kernel(const __grid_constant__ flash_problem a)
{
    typedef typename GenericElement<T::BF>::type E;
    extern __shared__ __align__(16) uint8_t raw[];
    E *q = (E *)raw, *k = q + T::ROWS * T::QP, *v = k + T::BN * T::QP;
    const int row_tiles = (a.nq + T::ROWS - 1) / T::ROWS, bh = blockIdx.x / row_tiles, b = bh / a.h,
              h = bh % a.h, hk = h / (a.h / a.hkv);
    const int row0 = (blockIdx.x % row_tiles) * T::ROWS, col0 = blockIdx.z * T::DV,
              dv = min(a.dv - col0, T::DV);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const GenericScore score(a, b, h);
    const bool qw = generic_whole(a.q, a.d, 2), kw = generic_whole(a.k, a.d, 2),
               vw = generic_whole(a.v, a.dv, 2);
    const E *kp = (const E *)a.k.data + b * a.k.batch + hk * a.k.head,
            *vp = (const E *)a.v.data + b * a.v.batch + hk * a.v.head + col0 * a.v.col;
    generic_load<E, T::ROWS, T::DQ, T::THREADS>(
        q, T::QP, (const E *)a.q.data + b * a.q.batch + h * a.q.head + row0 * a.q.row, a.q.row,
        a.q.col, a.nq - row0, a.d, qw);

    float o[T::DV / 8][4], shift[2] = {-INFINITY, -INFINITY}, sum[2] = {0.f, 0.f};
#pragma unroll
    for (int j = 0; j < T::DV / 8; ++j)
        o[j][0] = o[j][1] = o[j][2] = o[j][3] = 0.f;
    int first, last;
    generic_key_range(a, row0, T::ROWS, T::BN, first, last);
    for (int key0 = first; key0 < last; key0 += T::BN) {
        __syncthreads();
        generic_load<E, T::BN, T::DQ, T::THREADS>(k, T::QP, kp + key0 * a.k.row, a.k.row, a.k.col,
                                                  a.nk - key0, a.d, kw);
        generic_load<E, T::BN, T::DV, T::THREADS>(v, T::VP, vp + key0 * a.v.row, a.v.row, a.v.col,
                                                  a.nk - key0, dv, vw);
        __syncthreads();
        float s[T::BN / 8][4];
        generic_scores<T, E>(s, q, k);
        float factor[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int i = row0 + warp * 16 + (lane >> 2) + r * 8;
            float m = shift[r];
#pragma unroll
            for (int j = 0; j < T::BN / 8; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    float &x = s[j][r * 2 + e];
                    x = score(x, i, key0 + j * 8 + (lane & 3) * 2 + e);
                    m = fmaxf(m, x);
                }
            m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 1));
            m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 2));
            const float safe = m == -INFINITY ? 0.f : m; /* a row that has seen no key yet */
            factor[r] = exp2f(shift[r] - safe);
            shift[r] = m;
            float z = 0.f;
#pragma unroll
            for (int j = 0; j < T::BN / 8; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    float &x = s[j][r * 2 + e];
                    x = exp2f(x - safe);
                    z += x;
                }
            sum[r] = sum[r] * factor[r] + z;
        }
#pragma unroll
        for (int j = 0; j < T::DV / 8; ++j) {
            o[j][0] *= factor[0], o[j][1] *= factor[0];
            o[j][2] *= factor[1], o[j][3] *= factor[1];
        }
#pragma unroll
        for (int t = 0; t < T::BN / 16; ++t) {
            const uint32_t p[4] = {generic_pack<T::BF>(s[t * 2][0], s[t * 2][1]),
                                   generic_pack<T::BF>(s[t * 2][2], s[t * 2][3]),
                                   generic_pack<T::BF>(s[t * 2 + 1][0], s[t * 2 + 1][1]),
                                   generic_pack<T::BF>(s[t * 2 + 1][2], s[t * 2 + 1][3])};
#pragma unroll
            for (int j = 0; j < T::DV / 16; ++j) {
                uint32_t vb[4];
                ldmatrix4_transposed(vb,
                                     v + (t * 16 + (lane & 15)) * T::VP + j * 16 + (lane >> 4) * 8);
                mma_16816<T::BF>(o[j * 2], p, vb[0], vb[1]);
                mma_16816<T::BF>(o[j * 2 + 1], p, vb[2], vb[3]);
            }
        }
    }
    E *out = (E *)a.out.data + b * a.out.batch + h * a.out.head + col0 * a.out.col;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int i = row0 + warp * 16 + (lane >> 2) + r * 8;
        float z = sum[r];
        z += __shfl_xor_sync(0xffffffffu, z, 1);
        z += __shfl_xor_sync(0xffffffffu, z, 2);
        if (i >= a.nq)
            continue;
        const float f = z > 0.f ? 1.f / z : shift[r] == -INFINITY ? 0.f : 1.f / z;
#pragma unroll
        for (int j = 0; j < T::DV / 8; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const int c = j * 8 + (lane & 3) * 2 + e;
                if (c < dv)
                    out[i * a.out.row + c * a.out.col] =
                        generic_round<E>(shift[r] == -INFINITY ? 0.f : o[j][r * 2 + e] * f);
            }
        if (a.lse.data && (lane & 3) == 0 && blockIdx.z == 0)
            ((float *)a.lse.data)[b * a.lse.batch + h * a.lse.head + i * a.lse.row] =
                (shift[r] + log2f(z)) * FLASH_LN2;
    }
}

/* Second pass: probabilities from the scores and the first pass's log-sum-exp; stores them and adds
 * up the columns of BN keys, [B, H, Nk] partial sums in scratch. No N x N map is needed for the
 * sums. */
template <class T>
__global__ void __launch_bounds__(T::THREADS)
    generic_mass_kernel(const __grid_constant__ flash_problem a)
{
    typedef typename GenericElement<T::BF>::type E;
    extern __shared__ __align__(16) uint8_t raw[];
    E *q = (E *)raw, *k = q + T::ROWS * T::QP;
    float *parts = (float *)(k + T::BN * T::QP);
    const int key_tiles = (a.nk + T::BN - 1) / T::BN, bh = blockIdx.x / key_tiles, b = bh / a.h,
              h = bh % a.h, hk = h / (a.h / a.hkv);
    const int key0 = (blockIdx.x % key_tiles) * T::BN, lane = threadIdx.x & 31,
              warp = threadIdx.x >> 5;
    const GenericScore score(a, b, h);
    const bool qw = generic_whole(a.q, a.d, 2), kw = generic_whole(a.k, a.d, 2);
    const E *qp = (const E *)a.q.data + b * a.q.batch + h * a.q.head;
    const float *lse = (const float *)a.lse.data + b * a.lse.batch + h * a.lse.head;
    generic_load<E, T::BN, T::DQ, T::THREADS>(
        k, T::QP, (const E *)a.k.data + b * a.k.batch + hk * a.k.head + key0 * a.k.row, a.k.row,
        a.k.col, a.nk - key0, a.d, kw);
    float column[T::BN / 8][2];
#pragma unroll
    for (int j = 0; j < T::BN / 8; ++j)
        column[j][0] = column[j][1] = 0.f;
    for (int row0 = 0; row0 < a.nq; row0 += T::ROWS) {
        __syncthreads();
        generic_load<E, T::ROWS, T::DQ, T::THREADS>(q, T::QP, qp + row0 * a.q.row, a.q.row, a.q.col,
                                                    a.nq - row0, a.d, qw);
        __syncthreads();
        float s[T::BN / 8][4];
        generic_scores<T, E>(s, q, k);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int i = row0 + warp * 16 + (lane >> 2) + r * 8;
            const float l = i < a.nq ? lse[i * a.lse.row] : -INFINITY,
                        shift = l == -INFINITY ? 0.f : l * FLASH_LOG2E;
#pragma unroll
            for (int j = 0; j < T::BN / 8; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const int key = key0 + j * 8 + (lane & 3) * 2 + e;
                    const float p = exp2f(score(s[j][r * 2 + e], i, key) - shift);
                    column[j][e] += p;
                    if (a.probs.data && i < a.nq && key < a.nk)
                        ((float *)a.probs.data)[b * a.probs.batch + h * a.probs.head +
                                                i * a.probs.row + key * a.probs.col] = p;
                }
        }
    }
    if (!a.key_mass.data)
        return;
#pragma unroll
    for (int j = 0; j < T::BN / 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            float x = column[j][e];
            x += __shfl_xor_sync(0xffffffffu, x, 4);
            x += __shfl_xor_sync(0xffffffffu, x, 8);
            x += __shfl_xor_sync(0xffffffffu, x, 16);
            if (lane < 4)
                parts[warp * T::BN + j * 8 + lane * 2 + e] = x;
        }
    __syncthreads();
    for (int j = threadIdx.x; j < T::BN && key0 + j < a.nk; j += T::THREADS)
        ((float *)a.scratch)[(int64_t)bh * a.nk + key0 + j] =
            parts[j] + parts[T::BN + j] + parts[2 * T::BN + j] + parts[3 * T::BN + j];
}

#endif
