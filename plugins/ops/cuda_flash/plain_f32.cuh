/* fp32 key_mass of few keys: plain multiply-adds. Parts on tensor cores (split_attention.cuh) need
 * five kernels in a row for it; where the work is small, their starts and ends are most of the
 * time.
 *
 * A block has 16 RT queries of one head and all scores of them in shared memory: Q K, 64 keys at a
 * time; the softmax, a warp a row; the columns' sums; then P V. Keys and values come through the
 * same two buffers. Of a tile a thread has RT rows, 16 apart, and 4 keys, 16 apart, or 4 columns
 * next to each other.
 */
#ifndef FLASH_PLAIN_F32_CUH
#define FLASH_PLAIN_F32_CUH

#include <cstdint>

#include "flash_plain.h"

#define FLASH_DEVICE __device__ __forceinline__

enum { PLAIN_THREADS = 256, PLAIN_APART = 16 }; /* PLAIN_APART: from a thread's row to its next */

/* ---- loads ---- */

FLASH_DEVICE uint32_t plain_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

template <int BYTES> FLASH_DEVICE void plain_copy(float *to, const float *from, bool in)
{
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(plain_address(to)),
                     "l"(from), "r"(in ? 16 : 0)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(plain_address(to)),
                     "l"(from), "r"(in ? 4 : 0)
                     : "memory");
}

template <int BYTES>
FLASH_DEVICE void plain_copy_rows(float *to, int pitch, int rows, int columns, const float *from,
                                  int64_t stride, int valid, int width)
{
    constexpr int PER = BYTES / 4;
    for (int r = threadIdx.x >> 5; r < rows; r += PLAIN_THREADS / 32)
        for (int c = (threadIdx.x & 31) * PER; c < columns; c += 32 * PER) {
            const bool in = r < valid && c < width;
            plain_copy<BYTES>(to + r * pitch + c, in ? from + r * stride + c : from, in);
        }
}

/* A warp a row: `rows` rows of `width` elements, zeros where there are none and up to a multiple
 * of 4. */
FLASH_DEVICE void plain_load(float *to, int pitch, int rows, const flash_view &v, int64_t at,
                             int row0, int valid, int width)
{
    const float *from = (const float *)v.data + at + row0 * v.row;
    const int columns = (width + 3) / 4 * 4;
    if (width % 4 == 0 && v.row % 4 == 0 && ((uintptr_t)from & 15) == 0)
        plain_copy_rows<16>(to, pitch, rows, columns, from, v.row, valid - row0, width);
    else
        plain_copy_rows<4>(to, pitch, rows, columns, from, v.row, valid - row0, width);
}

FLASH_DEVICE void plain_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* all but the newest load of this thread are there */
FLASH_DEVICE void plain_wait()
{
    asm volatile("cp.async.wait_group 1;" ::: "memory");
}

/* ---- a block's place ---- */

template <int RT> struct PlainBlock {
    const flash_problem &a;
    int b, h, hkv, tile, row0;
    int row, key;   /* the thread's first row of the tile, first of its keys */
    int pq, pk, ps; /* floats from a row to the next: of queries, of keys and values, of scores */
    float *queries, *buffers, *scores, *inverse;

    FLASH_DEVICE PlainBlock(const flash_problem &p, float *smem) : a(p)
    {
        constexpr int ROWS = RT * PLAIN_APART;
        const int per_head = (p.nq + ROWS - 1) / ROWS, bh = blockIdx.x / per_head,
                  lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
        tile = blockIdx.x;
        b = bh / p.h;
        h = bh - b * p.h;
        hkv = h / (p.h / p.hkv);
        row0 = (blockIdx.x - bh * per_head) * ROWS;
        row = (lane >> 3) + (warp >> 1) * 4;
        key = (lane & 7) + (warp & 1) * 8;
        pq = flash_plain_pitch(p.d);
        pk = flash_plain_pitch(p.d > p.dv ? p.d : p.dv);
        ps = flash_plain_pitch((p.nk + FLASH_PLAIN_TILE - 1) / FLASH_PLAIN_TILE * FLASH_PLAIN_TILE);
        queries = smem;
        buffers = queries + ROWS * pq;
        scores = buffers + 2 * FLASH_PLAIN_TILE * pk;
        inverse = scores + ROWS * ps;
    }
    FLASH_DEVICE float *buffer(int i) const
    {
        return buffers + (i & 1) * FLASH_PLAIN_TILE * pk;
    }
    FLASH_DEVICE int tiles() const
    {
        return (a.nk + FLASH_PLAIN_TILE - 1) / FLASH_PLAIN_TILE;
    }
    /* The i-th of all tiles of keys, then of values. */
    FLASH_DEVICE void ask(int i) const
    {
        const int n = tiles(), first = (i < n ? i : i - n) * FLASH_PLAIN_TILE;
        if (i < n)
            plain_load(buffer(i), pk, FLASH_PLAIN_TILE, a.k, b * a.k.batch + hkv * a.k.head, first,
                       a.nk, a.d);
        else if (i < 2 * n)
            plain_load(buffer(i), pk, FLASH_PLAIN_TILE, a.v, b * a.v.batch + hkv * a.v.head, first,
                       a.nk, a.dv);
        plain_commit();
    }
};

/* ---- the products ---- */

FLASH_DEVICE float plain_dot(float sum, const float4 &x, const float4 &y)
{
    return fmaf(x.w, y.w, fmaf(x.z, y.z, fmaf(x.y, y.y, fmaf(x.x, y.x, sum))));
}

template <int RT> FLASH_DEVICE void plain_scores(const PlainBlock<RT> &t, int i)
{
    const float *keys = t.buffer(i) + t.key * t.pk, *queries = t.queries + t.row * t.pq;
    float s[RT][4] = {};
#pragma unroll 2
    for (int c = 0; c < t.a.d; c += 4) {
        float4 q[RT], k[4];
#pragma unroll
        for (int r = 0; r < RT; ++r)
            q[r] = *(const float4 *)(queries + r * PLAIN_APART * t.pq + c);
#pragma unroll
        for (int j = 0; j < 4; ++j)
            k[j] = *(const float4 *)(keys + j * 16 * t.pk + c);
#pragma unroll
        for (int r = 0; r < RT; ++r)
#pragma unroll
            for (int j = 0; j < 4; ++j)
                s[r][j] = plain_dot(s[r][j], q[r], k[j]);
    }
    float *to = t.scores + t.row * t.ps + i * FLASH_PLAIN_TILE + t.key;
#pragma unroll
    for (int r = 0; r < RT; ++r)
#pragma unroll
        for (int j = 0; j < 4; ++j)
            to[r * PLAIN_APART * t.ps + j * 16] = s[r][j];
}

/* o += P V of a tile of values; pass p has the columns from 64 p on */
template <int RT, int PASSES>
FLASH_DEVICE void plain_values(const PlainBlock<RT> &t, int i, float4 (&o)[PASSES][RT])
{
    const float *p = t.scores + t.row * t.ps + i * FLASH_PLAIN_TILE,
                *values = t.buffer(t.tiles() + i) + t.key * 4;
    const int keys = min(t.a.nk - i * FLASH_PLAIN_TILE, (int)FLASH_PLAIN_TILE);
#pragma unroll 1
    for (int k = 0; k < keys; k += 4) {
        float4 x[RT];
#pragma unroll
        for (int r = 0; r < RT; ++r)
            x[r] = *(const float4 *)(p + r * PLAIN_APART * t.ps + k);
#pragma unroll
        for (int pass = 0; pass < PASSES; ++pass)
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                if (pass * 64 + t.key * 4 >= t.a.dv)
                    continue;
                const float4 v = *(const float4 *)(values + (k + j) * t.pk + pass * 64);
#pragma unroll
                for (int r = 0; r < RT; ++r) {
                    const float w = j == 0 ? x[r].x : j == 1 ? x[r].y : j == 2 ? x[r].z : x[r].w;
                    float4 &sum = o[pass][r];
                    sum.x = fmaf(w, v.x, sum.x);
                    sum.y = fmaf(w, v.y, sum.y);
                    sum.z = fmaf(w, v.z, sum.z);
                    sum.w = fmaf(w, v.w, sum.w);
                }
            }
    }
}

/* ---- between them ---- */

FLASH_DEVICE float plain_warp_max(float x)
{
#pragma unroll
    for (int bit = 16; bit > 0; bit /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, bit));
    return x;
}

FLASH_DEVICE float plain_warp_sum(float x)
{
#pragma unroll
    for (int bit = 16; bit > 0; bit /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, bit);
    return x;
}

/* Scores become exponentials below the row's largest; their sum's inverse is kept. A warp a row. */
template <int RT> FLASH_DEVICE void plain_softmax(const PlainBlock<RT> &t)
{
    constexpr int MOST = FLASH_PLAIN_KEYS / 32;
    const flash_problem &a = t.a;
    const int lane = threadIdx.x & 31;
    const float c = a.scale * 1.4426950408889634f;
    for (int r = threadIdx.x >> 5; r < RT * PLAIN_APART; r += PLAIN_THREADS / 32) {
        float *row = t.scores + r * t.ps, x[MOST], most = -INFINITY, sum = 0.f;
#pragma unroll
        for (int i = 0; i < MOST; ++i) {
            x[i] = lane + i * 32 < a.nk ? row[lane + i * 32] * c : -INFINITY;
            most = fmaxf(most, x[i]);
        }
        most = plain_warp_max(most);
#pragma unroll
        for (int i = 0; i < MOST; ++i) {
            x[i] = exp2f(x[i] - most);
            if (lane + i * 32 < t.tiles() * FLASH_PLAIN_TILE)
                row[lane + i * 32] = x[i];
            sum += x[i];
        }
        sum = plain_warp_sum(sum);
        if (lane == 0) {
            t.inverse[r] = 1.f / sum;
            if (a.lse.data && t.row0 + r < a.nq)
                ((float *)
                     a.lse.data)[t.b * a.lse.batch + t.h * a.lse.head + (t.row0 + r) * a.lse.row] =
                    (most + log2f(sum)) * 0.69314718055994531f;
        }
    }
}

/* What each key receives from the block's queries: a row of the partial sums. */
template <int RT> FLASH_DEVICE void plain_column_sums(const PlainBlock<RT> &t)
{
    const int rows = min(t.a.nq - t.row0, RT * PLAIN_APART);
    for (int key = threadIdx.x; key < t.a.nk; key += PLAIN_THREADS) {
        float sum = 0.f;
        for (int r = 0; r < rows; ++r)
            sum = fmaf(t.scores[r * t.ps + key], t.inverse[r], sum);
        ((float *)t.a.scratch)[(int64_t)t.tile * t.a.nk + key] = sum;
    }
}

template <int RT, int PASSES>
FLASH_DEVICE void plain_store(const PlainBlock<RT> &t, const float4 (&o)[PASSES][RT])
{
    const flash_problem &a = t.a;
#pragma unroll
    for (int r = 0; r < RT; ++r) {
        const int row = t.row0 + t.row + r * PLAIN_APART;
        if (row >= a.nq)
            break;
        const float f = t.inverse[t.row + r * PLAIN_APART];
        float *out = (float *)a.out.data + t.b * a.out.batch + t.h * a.out.head + row * a.out.row;
        const bool whole = a.dv % 4 == 0 && ((uintptr_t)out & 15) == 0;
#pragma unroll
        for (int pass = 0; pass < PASSES; ++pass) {
            const int c = pass * 64 + t.key * 4;
            const float4 x = o[pass][r];
            const float y[4] = {x.x * f, x.y * f, x.z * f, x.w * f};
            if (whole && c < a.dv)
                *(float4 *)(out + c) = make_float4(y[0], y[1], y[2], y[3]);
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (!whole && c + i < a.dv)
                    out[c + i] = y[i];
        }
    }
}

template <int RT, int PASSES>
__global__ void __launch_bounds__(PLAIN_THREADS)
    plain_kernel(const __grid_constant__ flash_problem a)
{
    extern __shared__ float4 raw[];
    const PlainBlock<RT> t(a, (float *)raw);
    const int n = t.tiles();
    float4 o[PASSES][RT] = {};
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
    plain_load(t.queries, t.pq, RT * PLAIN_APART, a.q, t.b * a.q.batch + t.h * a.q.head, t.row0,
               a.nq, a.d);
    t.ask(0);
    t.ask(1);
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
    for (int i = 0; i < 2 * n; ++i) {
        plain_wait();
        __syncthreads();
        if (i == n) {
            plain_softmax<RT>(t);
            __syncthreads();
            plain_column_sums<RT>(t);
        }
        if (i < n)
            plain_scores<RT>(t, i);
        else
            plain_values<RT, PASSES>(t, i - n, o);
        __syncthreads();
        t.ask(i + 2);
    }
    plain_store<RT, PASSES>(t, o);
}

#endif
