/* sag.cu: what self-attention guidance does to a predicted picture (Hong et al. 2023; diffusers
 * v0.26.3, pipelines/stable_diffusion_sag/pipeline_stable_diffusion_sag.py, sag_masking and
 * gaussian_blur_2d): where the mid block looks most, it is blurred. */
#include "device.cuh"
#include "launchers.h"

#include <math.h>

#define RADIUS   4 /* of the 9 x 9 kernel */
#define TILE     16
#define HALO     (TILE + 2 * RADIUS)
#define CHANNELS 4 /* of a block */
#define THREADS  256

struct degrade {
    const float *key_mass; /* one of the two */
    const uint8_t *mask_in;
    int64_t mask_stride[2];
    const float *x0;
    float *out;
    int64_t x0_stride[4], out_stride[4];
    int32_t mh, mw, height, width, channels, groups; /* groups of CHANNELS */
    float kernel[2 * RADIUS + 1];
};

static __device__ __forceinline__ int reflect(int at, int size)
{
    at = at < 0 ? -at : at;
    at = at < size ? at : 2 * (size - 1) - at;
    return at < 0 ? 0 : at; /* beyond what any cell of the picture reads */
}

static __device__ __forceinline__ bool masked(const struct degrade &d, int64_t batch, int y, int x)
{
    const int64_t cell =
        (int64_t)nearest_index(y, d.mh, d.height) * d.mw + nearest_index(x, d.mw, d.width);
    const int64_t at = batch * d.mask_stride[0] + cell * d.mask_stride[1];
    return d.mask_in ? d.mask_in[at] != 0 : d.key_mass[at] > 1.0f;
}

/* One tile of one image: along the lines, then along the columns. */
static __global__ void __launch_bounds__(THREADS)
    degrade_kernel(const __grid_constant__ struct degrade d)
{
    __shared__ float in[HALO][HALO][CHANNELS];
    __shared__ float lines[HALO][TILE][CHANNELS];
    const int64_t batch = blockIdx.z / d.groups;
    const int first = (int)(blockIdx.z % d.groups) * CHANNELS;
    const int top = (int)blockIdx.y * TILE, left = (int)blockIdx.x * TILE;
    const int here = min(CHANNELS, d.channels - first);
    const float *x0 = d.x0 + batch * d.x0_stride[0] + first * d.x0_stride[3];
    for (int i = threadIdx.x; i < HALO * HALO * CHANNELS; i += THREADS) {
        const int c = i % CHANNELS, x = i / CHANNELS % HALO, y = i / CHANNELS / HALO;
        const int64_t from = reflect(top + y - RADIUS, d.height) * d.x0_stride[1] +
                             reflect(left + x - RADIUS, d.width) * d.x0_stride[2];
        in[y][x][c] = c < here ? x0[from + c * d.x0_stride[3]] : 0.0f;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < HALO * TILE * CHANNELS; i += THREADS) {
        const int c = i % CHANNELS, x = i / CHANNELS % TILE, y = i / CHANNELS / TILE;
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k <= 2 * RADIUS; ++k)
            sum += d.kernel[k] * in[y][x + k][c];
        lines[y][x][c] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * TILE * CHANNELS; i += THREADS) {
        const int c = i % CHANNELS, x = i / CHANNELS % TILE, y = i / CHANNELS / TILE;
        if (c >= here || left + x >= d.width || top + y >= d.height)
            continue;
        float v = in[y + RADIUS][x + RADIUS][c];
        if (masked(d, batch, top + y, left + x)) {
            v = 0.0f;
#pragma unroll
            for (int k = 0; k <= 2 * RADIUS; ++k)
                v += d.kernel[k] * lines[y + k][x][c];
        }
        d.out[batch * d.out_stride[0] + (top + y) * d.out_stride[1] + (left + x) * d.out_stride[2] +
              (first + c) * d.out_stride[3]] = v;
    }
}

static void gaussian(float *kernel)
{
    double sum = 0.0, value[2 * RADIUS + 1];
    for (int i = 0; i <= 2 * RADIUS; ++i) {
        value[i] = exp(-0.5 * (i - RADIUS) * (i - RADIUS));
        sum += value[i];
    }
    for (int i = 0; i <= 2 * RADIUS; ++i)
        kernel[i] = (float)(value[i] / sum);
}

extern "C" int kernel_sag_degrade(const attn_tensor *key_mass, int64_t mh, int64_t mw,
                                  const attn_tensor *mask_in, const attn_tensor *x0,
                                  const attn_tensor *out, void *stream)
{
    struct degrade d = {};
    const attn_tensor *mask = tensor_here(mask_in) ? mask_in : key_mass;
    if (tensor_here(mask_in))
        d.mask_in = (const uint8_t *)mask->data;
    else
        d.key_mass = (const float *)mask->data;
    memcpy(d.mask_stride, mask->stride, sizeof d.mask_stride);
    d.x0 = (const float *)x0->data;
    d.out = (float *)out->data;
    memcpy(d.x0_stride, x0->stride, sizeof d.x0_stride);
    memcpy(d.out_stride, out->stride, sizeof d.out_stride);
    d.mh = (int32_t)mh;
    d.mw = (int32_t)mw;
    d.height = (int32_t)x0->shape[1];
    d.width = (int32_t)x0->shape[2];
    d.channels = (int32_t)x0->shape[3];
    d.groups = (d.channels + CHANNELS - 1) / CHANNELS;
    gaussian(d.kernel);
    if (!tensor_count(x0))
        return 0;
    const int64_t planes = x0->shape[0] * d.groups;
    if (planes > 65535 || d.height <= RADIUS || d.width <= RADIUS)
        return cudaErrorInvalidValue;
    dim3 grid(blocks_of(d.width, TILE), blocks_of(d.height, TILE), (unsigned)planes);
    degrade_kernel<<<grid, THREADS, 0, (cudaStream_t)stream>>>(d);
    return (int)cudaGetLastError();
}
