/* elementwise.cu: operations on elements that lie at the same place of several tensors. */
#include "launchers.h"
#include "walk.cuh"

#define THREADS 256

enum kind { COPY, FILL, SCALE, COMBINE, ACTIVATE, EPILOGUE, GEGLU, GUIDE, GUIDE_SAG };

template <int KIND, int W>
static __device__ __forceinline__ pack<W> apply(const struct walk &w, const pack<W> *x)
{
    pack<W> y;
    const float scale = KIND == GUIDE || KIND == GUIDE_SAG ? *w.scale : 0.0f;
#pragma unroll
    for (int i = 0; i < W; ++i) {
        if (KIND == COPY || KIND == ACTIVATE)
            y.v[i] = x[0].v[i];
        else if (KIND == FILL)
            y.v[i] = w.alpha;
        else if (KIND == SCALE)
            y.v[i] = w.alpha * x[0].v[i];
        else if (KIND == COMBINE)
            y.v[i] = w.alpha * x[0].v[i] + w.beta * x[1].v[i];
        else if (KIND == EPILOGUE)
            y.v[i] = x[0].v[i] + x[1].v[i];
        else if (KIND == GEGLU)
            y.v[i] = (x[0].v[i] + x[2].v[i]) * gelu(x[1].v[i] + x[3].v[i]);
        else if (KIND == GUIDE)
            y.v[i] = x[0].v[i] + scale * (x[1].v[i] - x[0].v[i]);
        else
            y.v[i] = x[0].v[i] + scale * (x[1].v[i] - x[2].v[i]);
    }
    if (KIND == ACTIVATE || KIND == EPILOGUE)
        activate(y, w.act);
    if (KIND == EPILOGUE) {
#pragma unroll
        for (int i = 0; i < W; ++i)
            y.v[i] = w.alpha * y.v[i] + w.beta * x[2].v[i];
    }
    return y;
}

/* Inputs of each kind. */
template <int KIND>
constexpr int inputs_of = KIND == FILL                                        ? 0
                          : KIND == COPY || KIND == SCALE || KIND == ACTIVATE ? 1
                          : KIND == COMBINE || KIND == GUIDE                  ? 2
                          : KIND == GEGLU                                     ? 4
                                                                              : 3;

/* W elements at `base` (of their rows) + `column`. */
template <int KIND, int W>
static __device__ __forceinline__ void walk_at(const struct walk &w, const int64_t *base,
                                               int64_t column)
{
    constexpr int N = inputs_of<KIND>;
    struct raw_pack raw[N + 1];
    pack<W> x[N + 1];
#pragma unroll
    for (int j = 0; j < N; ++j) { /* first all loads, then what they mean */
        raw[j] = raw_pack{};
        if (!w.data[j])
            continue;
        const int64_t at = base[j] + column * w.stride[j][3];
        if (W > 1 && w.stride[j][3])
            raw[j] = raw_load(w.data[j], at, w.type[j]);
        else if (w.type[j] == F32)
            raw[j].low.x = ((const uint32_t *)w.data[j])[at];
        else
            raw[j].low.x = ((const uint16_t *)w.data[j])[at];
    }
#pragma unroll
    for (int j = 0; j < N; ++j) {
        if constexpr (W > 1) {
            if (w.data[j] && w.stride[j][3]) {
                x[j] = raw_value(raw[j], w.type[j]);
                continue;
            }
        }
        const uint32_t bits = raw[j].low.x;
        const float v = w.type[j] == F32 ? __uint_as_float(bits) : unpack2(bits, w.type[j]).x;
#pragma unroll
        for (int i = 0; i < W; ++i)
            x[j].v[i] = v;
    }
    pack<W> y = apply<KIND, W>(w, x);
    pack_store<W>(w.data[N], base[N] + column * (W > 1 ? 1 : w.stride[N][3]), w.type[N], y);
}

template <int KIND, int W>
static __global__ void __launch_bounds__(THREADS) walk_kernel(const __grid_constant__ struct walk w)
{
    constexpr int N = inputs_of<KIND>;
    const int64_t id = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (id >= w.total)
        return;
    int64_t base[N + 1], row, column = id;
#pragma unroll
    for (int j = 0; j <= N; ++j)
        base[j] = 0;
    if (w.total != w.packs) { /* more than one row */
        if (w.total <= UINT32_MAX) {
            row = (uint32_t)id / (uint32_t)w.packs;
            column = (uint32_t)id - (uint32_t)row * (uint32_t)w.packs;
        } else {
            row = id / w.packs;
            column = id - row * w.packs;
        }
#pragma unroll
        for (int d = 2; d >= 0; --d) {
            if (w.shape[d] == 1)
                continue;
            int64_t rest =
                w.total <= UINT32_MAX ? (uint32_t)row / (uint32_t)w.shape[d] : row / w.shape[d];
            int64_t i = row - rest * w.shape[d];
#pragma unroll
            for (int j = 0; j <= N; ++j)
                base[j] += i * w.stride[j][d];
            row = rest;
        }
    }
    if (W == 1 || (column + 1) * W <= w.shape[3]) {
        walk_at<KIND, W>(w, base, column * W);
    } else {
        for (int64_t i = column * W; i < w.shape[3]; ++i)
            walk_at<KIND, 1>(w, base, i);
    }
}

template <int KIND> static int walk_launch(struct walk *w, void *stream)
{
    bool packs = walk_in_packs(w);
    if (!w->total)
        return 0;
    const int64_t blocks = (w->total + THREADS - 1) / THREADS;
    if (blocks > INT32_MAX)
        return cudaErrorInvalidValue;
    if (packs)
        walk_kernel<KIND, PACK><<<(unsigned)blocks, THREADS, 0, (cudaStream_t)stream>>>(*w);
    else
        walk_kernel<KIND, 1><<<(unsigned)blocks, THREADS, 0, (cudaStream_t)stream>>>(*w);
    return (int)cudaGetLastError();
}

int walk_copy(struct walk *w, void *stream)
{
    return walk_launch<COPY>(w, stream);
}

extern "C" int kernel_fill(float value, const attn_tensor *dst, void *stream)
{
    struct walk w = {};
    walk_open(&w, 0, NULL, dst);
    w.alpha = value;
    return walk_launch<FILL>(&w, stream);
}

extern "C" int kernel_combine(float alpha, const attn_tensor *a, float beta, const attn_tensor *b,
                              const attn_tensor *y, void *stream)
{
    const attn_tensor *inputs[] = {a, b};
    bool two = tensor_here(b) && beta != 0.0f;
    struct walk w = {};
    walk_open(&w, two ? 2 : 1, inputs, y);
    w.alpha = alpha;
    w.beta = beta;
    return two ? walk_launch<COMBINE>(&w, stream) : walk_launch<SCALE>(&w, stream);
}

extern "C" int kernel_activate(int32_t act, const attn_tensor *x, const attn_tensor *y,
                               void *stream)
{
    struct walk w = {};
    walk_open(&w, 1, &x, y);
    w.act = act;
    return walk_launch<ACTIVATE>(&w, stream);
}

extern "C" int kernel_epilogue(float alpha, int32_t act, const attn_tensor *x,
                               const attn_tensor *bias, float beta, const attn_tensor *residual,
                               const attn_tensor *y, void *stream)
{
    const attn_tensor *inputs[] = {x, bias, beta != 0.0f ? residual : NULL};
    struct walk w = {};
    walk_open(&w, 3, inputs, y);
    w.alpha = alpha;
    w.beta = beta;
    w.act = act;
    return walk_launch<EPILOGUE>(&w, stream);
}

/* The last dimension from `first` on, `count` long. */
static attn_tensor slice_last(const attn_tensor *t, int64_t first, int64_t count)
{
    attn_tensor s = *t;
    s.data = (char *)t->data + first * t->stride[t->rank - 1] * (t->bits / 8);
    s.shape[t->rank - 1] = count;
    return s;
}

extern "C" int kernel_geglu(const attn_tensor *x, const attn_tensor *bias, const attn_tensor *y,
                            void *stream)
{
    const int64_t c = tensor_last(y);
    const attn_tensor a = slice_last(x, 0, c), g = slice_last(x, c, c);
    attn_tensor ba = {}, bg = {};
    if (tensor_here(bias)) {
        ba = slice_last(bias, 0, c);
        bg = slice_last(bias, c, c);
    }
    const attn_tensor *inputs[] = {&a, &g, &ba, &bg};
    struct walk w = {};
    walk_open(&w, 4, inputs, y);
    return walk_launch<GEGLU>(&w, stream);
}

extern "C" int kernel_guide(const attn_tensor *uncond, const attn_tensor *cond, const float *scale,
                            const attn_tensor *y, void *stream)
{
    const attn_tensor *inputs[] = {uncond, cond};
    struct walk w = {};
    walk_open(&w, 2, inputs, y);
    w.scale = scale;
    return walk_launch<GUIDE>(&w, stream);
}

extern "C" int kernel_guide_sag(const attn_tensor *guided, const attn_tensor *reference,
                                const attn_tensor *degraded, const float *scale,
                                const attn_tensor *y, void *stream)
{
    const attn_tensor *inputs[] = {guided, reference, degraded};
    struct walk w = {};
    walk_open(&w, 3, inputs, y);
    w.scale = scale;
    return walk_launch<GUIDE_SAG>(&w, stream);
}
