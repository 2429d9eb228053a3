/* The reference on the GPU: plain loops with double sums, one block for a query or a key. */
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda_math_kernels.h"

#define THREADS 128

static __device__ double element(const void *data, int64_t at, int dtype)
{
    if (dtype == FLASH_F32)
        return ((const float *)data)[at];
    if (dtype == FLASH_F16)
        return __half2float(((const __half *)data)[at]);
    return __bfloat162float(((const __nv_bfloat16 *)data)[at]);
}

static __device__ void store(void *data, int64_t at, int dtype, double x)
{
    if (dtype == FLASH_F32)
        ((float *)data)[at] = (float)x;
    else if (dtype == FLASH_F16)
        ((__half *)data)[at] = __double2half(x);
    else
        ((__nv_bfloat16 *)data)[at] = __double2bfloat16(x);
}

/* scale q k + bias, minus infinity where query i may not see key j */
static __device__ double score(const flash_problem &a, int b, int h, int i, int j)
{
    const int hk = h / (a.h / a.hkv);
    const int64_t q = b * a.q.batch + h * a.q.head + i * a.q.row,
                  k = b * a.k.batch + hk * a.k.head + j * a.k.row;
    if (a.band && ((int64_t)j - i < a.band_lo || (int64_t)j - i > a.band_hi))
        return -INFINITY;
    if (a.mask.data &&
        !((const uint8_t *)
              a.mask.data)[b * a.mask.batch + h * a.mask.head + i * a.mask.row + j * a.mask.col])
        return -INFINITY;
    double s = 0;
    for (int d = 0; d < a.d; ++d)
        s += element(a.q.data, q + d * a.q.col, a.dtype) *
             element(a.k.data, k + d * a.k.col, a.dtype);
    s *= a.scale;
    if (a.bias.data)
        s += element(a.bias.data,
                     b * a.bias.batch + h * a.bias.head + i * a.bias.row + j * a.bias.col,
                     a.bias_dtype);
    return s;
}

/* of all threads, in a fixed order; `all` holds THREADS doubles */
static __device__ double block_max(double x, double *all)
{
    all[threadIdx.x] = x;
    __syncthreads();
    for (int n = THREADS / 2; n > 0; n /= 2) {
        if ((int)threadIdx.x < n)
            all[threadIdx.x] = fmax(all[threadIdx.x], all[threadIdx.x + n]);
        __syncthreads();
    }
    const double r = all[0];
    __syncthreads();
    return r;
}

static __device__ double block_sum(double x, double *all)
{
    all[threadIdx.x] = x;
    __syncthreads();
    for (int n = THREADS / 2; n > 0; n /= 2) {
        if ((int)threadIdx.x < n)
            all[threadIdx.x] += all[threadIdx.x + n];
        __syncthreads();
    }
    const double r = all[0];
    __syncthreads();
    return r;
}

/* One query: log-sum-exp, then probabilities THREADS keys at a time against the values. */
static __global__ void __launch_bounds__(THREADS)
    query_kernel(const __grid_constant__ flash_problem a)
{
    __shared__ double all[THREADS];
    const int i = blockIdx.x % a.nq, bh = blockIdx.x / a.nq, b = bh / a.h, h = bh % a.h,
              hk = h / (a.h / a.hkv), t = threadIdx.x;
    double most = -INFINITY, sum = 0;
    for (int j = t; j < a.nk; j += THREADS)
        most = fmax(most, score(a, b, h, i, j));
    most = block_max(most, all);
    const bool blind = most == -INFINITY;
    for (int j = t; j < a.nk; j += THREADS)
        sum += blind ? 0 : exp(score(a, b, h, i, j) - most);
    sum = block_sum(sum, all);
    const double lse = blind ? -INFINITY : most + log(sum);
    if (t == 0) {
        ((double *)a.scratch)[(int64_t)bh * a.nq + i] = lse;
        if (a.lse.data)
            ((float *)a.lse.data)[b * a.lse.batch + h * a.lse.head + i * a.lse.row] = (float)lse;
    }
    for (int first = 0; first < a.dv || first == 0; first += THREADS) {
        double out = 0;
        for (int j0 = 0; j0 < a.nk; j0 += THREADS) {
            const int j = j0 + t;
            all[t] = j < a.nk && !blind ? exp(score(a, b, h, i, j) - lse) : 0;
            if (first == 0 && a.probs.data && j < a.nk)
                ((float *)a.probs.data)[b * a.probs.batch + h * a.probs.head + i * a.probs.row +
                                        j * a.probs.col] = (float)all[t];
            __syncthreads();
            if (first + t < a.dv)
                for (int x = 0; x < THREADS && j0 + x < a.nk; ++x)
                    out += all[x] * element(a.v.data,
                                            b * a.v.batch + hk * a.v.head + (j0 + x) * a.v.row +
                                                (first + t) * a.v.col,
                                            a.dtype);
            __syncthreads();
        }
        if (first + t < a.dv)
            store(a.out.data,
                  b * a.out.batch + h * a.out.head + i * a.out.row + (first + t) * a.out.col,
                  a.dtype, out);
    }
}

/* One key: the mean over heads of its column's sum. */
static __global__ void __launch_bounds__(THREADS)
    mass_kernel(const __grid_constant__ flash_problem a)
{
    __shared__ double all[THREADS];
    const int j = blockIdx.x % a.nk, b = blockIdx.x / a.nk;
    const unsigned rows = (unsigned)(a.h * a.nq); /* up to INT_MAX: a step past it must not wrap */
    double sum = 0;
    for (unsigned n = threadIdx.x; n < rows; n += THREADS) {
        const int h = n / a.nq, i = n % a.nq;
        const double lse = ((const double *)a.scratch)[((int64_t)b * a.h + h) * a.nq + i];
        sum += lse == -INFINITY ? 0 : exp(score(a, b, h, i, j) - lse);
    }
    sum = block_sum(sum, all);
    if (threadIdx.x == 0)
        ((float *)a.key_mass.data)[b * a.key_mass.batch + j * a.key_mass.col] =
            (float)(a.h ? sum / a.h : 0);
}

int cuda_math_launch(const flash_problem *p, void *stream)
{
    const int64_t queries = (int64_t)p->b * p->h * p->nq, keys = (int64_t)p->b * p->nk;
    if (queries > 0)
        query_kernel<<<(unsigned)queries, THREADS, 0, (cudaStream_t)stream>>>(*p);
    cudaError_t code = cudaGetLastError();
    if (code == cudaSuccess && p->key_mass.data && keys > 0) {
        mass_kernel<<<(unsigned)keys, THREADS, 0, (cudaStream_t)stream>>>(*p);
        code = cudaGetLastError();
    }
    return (int)code;
}
