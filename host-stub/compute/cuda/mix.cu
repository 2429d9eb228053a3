/* mix.cu: a scheduler's arithmetic: sums of latents with coefficients that lie at the device. */
#include "device.cuh"
#include "launchers.h"

#define THREADS 128

struct mix {
    const void *x[KERNEL_MIX_INPUTS];
    void *y[KERNEL_MIX_OUTPUTS];
    int32_t x_type[KERNEL_MIX_INPUTS], y_type[KERNEL_MIX_OUTPUTS];
    int32_t n_x, n_y;
    const float *coefficients;
    const int32_t *step;
    int64_t packs, count;
};

template <int W>
static __device__ __forceinline__ void mix_at(const struct mix &m, const float *coefficients,
                                              int64_t at)
{
    pack<W> y[KERNEL_MIX_OUTPUTS] = {};
#pragma unroll
    for (int i = 0; i < KERNEL_MIX_INPUTS; ++i) {
        if (i >= m.n_x)
            break;
        pack<W> x = pack_load<W>(m.x[i], at, m.x_type[i]);
#pragma unroll
        for (int o = 0; o < KERNEL_MIX_OUTPUTS; ++o) {
            float c = o < m.n_y ? coefficients[o * m.n_x + i] : 0.0f;
            if (c == 0.0f)
                continue;
#pragma unroll
            for (int k = 0; k < W; ++k)
                y[o].v[k] += c * x.v[k];
        }
    }
#pragma unroll
    for (int o = 0; o < KERNEL_MIX_OUTPUTS; ++o) {
        if (o < m.n_y)
            pack_store<W>(m.y[o], at, m.y_type[o], y[o]);
    }
}

template <int W>
static __global__ void __launch_bounds__(THREADS) mix_kernel(const __grid_constant__ struct mix m)
{
    const int64_t id = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    const int64_t step = m.step ? *m.step : 0;
    const float *coefficients = m.coefficients + step * m.n_x * m.n_y;
    if (id >= m.packs)
        return;
    if (W == 1 || (id + 1) * W <= m.count) {
        mix_at<W>(m, coefficients, id * W);
    } else {
        for (int64_t i = id * W; i < m.count; ++i)
            mix_at<1>(m, coefficients, i);
    }
}

extern "C" int kernel_mix(uint32_t n_y, const attn_tensor *const *y, uint32_t n_x,
                          const attn_tensor *const *x, const float *coefficients,
                          const int32_t *step, void *stream)
{
    struct mix m = {};
    if (n_y < 1 || n_y > KERNEL_MIX_OUTPUTS || n_x > KERNEL_MIX_INPUTS)
        return cudaErrorInvalidValue;
    bool packs = true;
    for (uint32_t i = 0; i < n_x; ++i) {
        m.x[i] = x[i]->data;
        m.x_type[i] = tensor_type(x[i]);
        packs = packs && aligned16(x[i]->data);
    }
    for (uint32_t i = 0; i < n_y; ++i) {
        m.y[i] = y[i]->data;
        m.y_type[i] = tensor_type(y[i]);
        packs = packs && aligned16(y[i]->data);
    }
    m.n_x = (int32_t)n_x;
    m.n_y = (int32_t)n_y;
    m.coefficients = coefficients;
    m.step = step;
    m.count = tensor_count(y[0]);
    m.packs = packs ? (m.count + PACK - 1) / PACK : m.count;
    if (!m.count)
        return 0;
    const unsigned blocks = blocks_of(m.packs, THREADS);
    if (packs)
        mix_kernel<PACK><<<blocks, THREADS, 0, (cudaStream_t)stream>>>(m);
    else
        mix_kernel<1><<<blocks, THREADS, 0, (cudaStream_t)stream>>>(m);
    return (int)cudaGetLastError();
}

static __global__ void pick_kernel(const float *table, const int32_t *step, int64_t n,
                                   int64_t total, float *y)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < total)
        y[i] = table[(step ? *step : 0) * n + i % n];
}

extern "C" int kernel_step_pick(const float *table, const int32_t *step, int64_t n, int64_t repeat,
                                float *y, void *stream)
{
    if (n * repeat < 1)
        return 0;
    pick_kernel<<<blocks_of(n * repeat, THREADS), THREADS, 0, (cudaStream_t)stream>>>(
        table, step, n, n * repeat, y);
    return (int)cudaGetLastError();
}

static __global__ void advance_kernel(int32_t *step, int32_t by)
{
    *step += by;
}

extern "C" int kernel_step_advance(int32_t *step, int32_t by, void *stream)
{
    advance_kernel<<<1, 1, 0, (cudaStream_t)stream>>>(step, by);
    return (int)cudaGetLastError();
}
