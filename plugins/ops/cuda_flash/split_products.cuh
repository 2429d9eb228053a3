/* fp32 attention on the tensor cores: both products, by parts. */
#ifndef FLASH_SPLIT_PRODUCTS_CUH
#define FLASH_SPLIT_PRODUCTS_CUH

#include "split_f32.cuh"

SPLIT_DEVICE void split_ldmatrix(uint32_t (&r)[4], const uint16_t *p)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

SPLIT_DEVICE void split_ldmatrix_transposed(uint32_t (&r)[4], const uint16_t *p)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

template <bool HALF>
SPLIT_DEVICE void split_mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    if constexpr (HALF)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
            "{%8,%9}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
            "{%8,%9}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <int N> SPLIT_DEVICE void split_zero(float (&x)[N][4])
{
#pragma unroll
    for (int i = 0; i < N; ++i)
        x[i][0] = x[i][1] = x[i][2] = x[i][3] = 0.f;
}

/* The products in ascending size: the part of the first operand and of the second. */
template <class T> struct SplitProducts {
    static constexpr int FIRST = T::HALF ? 3 : 0, LAST = 5; /* LAST: of the large parts */
    int first[6] = {2, 0, 1, 1, 0, 0}, second[6] = {0, 2, 1, 0, 1, 0};
};

/* The products [BEGIN, END) of 16 columns of the warp's rows and keys, on s. */
template <class T, int BEGIN, int END>
SPLIT_DEVICE void split_score_step(float (&s)[T::S][4], const uint16_t *q, const uint16_t *k,
                                   int keys)
{
    constexpr SplitProducts<T> list;
    constexpr int N = T::SK / 8, GROUP = N % 4 ? 2 : 4, PARTS = END - BEGIN == 1 ? 1 : T::PARTS;
    const int lane = threadIdx.x & 31;
    uint32_t qa[T::MT][PARTS][4];
#pragma unroll
    for (int m = 0; m < T::MT; ++m)
#pragma unroll
        for (int i = 0; i < PARTS; ++i)
            split_ldmatrix(qa[m][i],
                           q + i * T::Q_PART + (m * 16 + (lane & 15)) * T::QP + (lane >> 4) * 8);
#pragma unroll
    for (int n = 0; n < N; n += GROUP) {
        if (n * 8 >= keys)
            break;
        uint32_t kb[GROUP / 2][PARTS][4];
#pragma unroll
        for (int j = 0; j < GROUP / 2; ++j)
#pragma unroll
            for (int i = 0; i < PARTS; ++i)
                split_ldmatrix(kb[j][i],
                               k + i * T::C_PART +
                                   ((n + j * 2) * 8 + (lane & 7) + (lane >> 4) * 8) * T::CP +
                                   ((lane >> 3) & 1) * 8);
#pragma unroll
        for (int p = BEGIN; p < END; ++p)
#pragma unroll
            for (int m = 0; m < T::MT; ++m)
#pragma unroll
                for (int u = 0; u < GROUP; ++u)
                    split_mma<T::HALF>(s[m * N + n + u], qa[m][list.first[p]],
                                       kb[u / 2][list.second[p]][(u & 1) * 2],
                                       kb[u / 2][list.second[p]][(u & 1) * 2 + 1]);
    }
}

/* s = rows x keys over GROUP steps, the small products first */
template <class T>
SPLIT_DEVICE void split_score_group(float (&s)[T::S][4], const uint16_t *q, const uint16_t *k,
                                    int keys)
{
    typedef SplitProducts<T> P;
    split_zero(s);
#pragma unroll
    for (int x = 0; x < T::GROUP; ++x)
        split_score_step<T, P::FIRST, P::LAST>(s, q + x * 16, k + x * 16, keys);
#pragma unroll
    for (int x = 0; x < T::GROUP; ++x)
        split_score_step<T, P::LAST, P::LAST + 1>(s, q + x * 16, k + x * 16, keys);
}

/* s = this chunk's part of the warp's rows x its keys. `q` are the rows at the chunk's first
 * column, `k` the keys, of which the first `keys` are there. */
template <class T>
SPLIT_DEVICE void split_scores(float (&s)[T::S][4], const uint16_t *q, const uint16_t *k, int keys)
{
    split_score_group<T>(s, q, k, keys);
#pragma unroll
    for (int x = T::GROUP; x < T::STEPS; x += T::GROUP) {
        float part[T::S][4];
        split_score_group<T>(part, q + x * 16, k + x * 16, keys);
#pragma unroll
        for (int i = 0; i < T::S; ++i)
#pragma unroll
            for (int e = 0; e < 4; ++e)
                s[i][e] += part[i][e];
    }
}

/* o = o * before + now * P V for U column tiles of the warp from `v` on; p is [row tile][part][16
 * keys], o the first of a row tile's T::O / MT. */
template <class T, int U>
SPLIT_DEVICE void split_values(float (*o)[4], const uint32_t (&p)[T::MT][T::PARTS][T::BN / 16][4],
                               const float (&before)[T::MT][2], const float (&now)[T::MT][2],
                               const uint16_t *v, int keys)
{
    constexpr SplitProducts<T> list;
    constexpr int SUMS = 3, LAST = list.LAST;
    const int lane = threadIdx.x & 31;
    float sum[SUMS][T::MT * U][4];
#pragma unroll
    for (int i = 0; i < SUMS; ++i)
        split_zero(sum[i]);
#pragma unroll
    for (int t = 0; t < T::BN / 32; ++t) {
        if (t * 32 >= keys)
            break;
        uint32_t vb[U][T::PARTS][4];
#pragma unroll
        for (int u = 0; u < U; ++u)
#pragma unroll
            for (int i = 0; i < T::PARTS; ++i)
                split_ldmatrix_transposed(vb[u][i],
                                          v + i * T::C_PART + (t * 32 + lane) * T::CP + u * 8);
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
            for (int x = list.FIRST; x <= LAST; ++x)
#pragma unroll
                for (int u = 0; u < U; ++u)
#pragma unroll
                    for (int m = 0; m < T::MT; ++m)
                        split_mma<T::HALF>(sum[x == LAST ? 0 : 1 + x % 2][m * U + u],
                                           p[m][list.first[x]][t * 2 + h],
                                           vb[u][list.second[x]][h * 2],
                                           vb[u][list.second[x]][h * 2 + 1]);
    }
#pragma unroll
    for (int m = 0; m < T::MT; ++m)
#pragma unroll
        for (int u = 0; u < U; ++u)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                float &to = o[m * (T::O / T::MT) + u][e];
                const float small = sum[1][m * U + u][e] + sum[2][m * U + u][e];
                to = fmaf(sum[0][m * U + u][e] + small, now[m][e >> 1], to * before[m][e >> 1]);
            }
}

#endif
