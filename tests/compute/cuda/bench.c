/* Times in a CUDA graph, fp16, beside the least traffic that the operation needs at the rate that a
 * large copy reaches: "warm" reuses its buffers, as a model's activations stay in the second cache,
 * "cold" goes round through more memory than the cache holds. */
#include "device.h"

#include <cuda_runtime_api.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAUNCHES 32 /* of a graph */
#define ROUNDS   15
#define SETS_MAX 32
#define COLD     (int64_t)192000000 /* bytes */

enum operation { GROUP, LAYER, GEGLU, ACTIVATE, COPY, TURN, EPILOGUE, UPSAMPLE, SAG, MIX };

struct row {
    const char *name;
    enum operation op;
    int64_t shape[4]; /* of y */
    int64_t second;   /* channels of x2, within shape */
};

struct set {
    attn_tensor x, x2, y, vector;
    void *scratch, *memory;
};

static attn_tensor tensor(void *data, enum dtype type, uint32_t rank, const int64_t *shape)
{
    attn_tensor t = {.data = data,
                     .device_type = ATTN_DEVICE_CUDA,
                     .code = ATTN_CODE_FLOAT,
                     .bits = type == F32 ? 32 : 16,
                     .lanes = 1,
                     .rank = rank};
    int64_t step = 1;
    for (int64_t d = (int64_t)rank - 1; d >= 0; --d) {
        t.shape[d] = shape[d];
        t.stride[d] = step;
        step *= shape[d];
    }
    return t;
}

static int64_t row_bytes(const struct row *r)
{
    const int64_t n = r->shape[0] * r->shape[1] * r->shape[2] * r->shape[3];
    switch (r->op) {
    case GEGLU:
    case EPILOGUE:
        return 6 * n;
    case UPSAMPLE:
        return n / 2 + 2 * n;
    case SAG:
        return 8 * n;
    case MIX:
        return 12 * n;
    default:
        return 4 * n;
    }
}

static struct kernel_norm norm_of(const struct row *r, struct set *s)
{
    return (struct kernel_norm){.groups = 32,
                                .eps = 1e-5f,
                                .act = r->op == GROUP ? KERNEL_ACT_SILU : KERNEL_ACT_NONE,
                                .x = &s->x,
                                .x2 = r->second ? &s->x2 : NULL,
                                .weight = &s->vector,
                                .bias = &s->vector,
                                .y = &s->y};
}

/* x, x2 and y one after the other; zeros, so that nothing is a NaN. */
static struct set set_make(const struct row *r)
{
    const int64_t n = r->shape[0] * r->shape[1] * r->shape[2] * r->shape[3];
    const enum dtype type = r->op == SAG || r->op == MIX ? F32 : F16;
    int64_t x[4], x2[4], vector[1] = {2 * r->shape[3]};
    struct set s = {0};
    memcpy(x, r->shape, sizeof x);
    memcpy(x2, r->shape, sizeof x2);
    x[3] -= r->second;
    x2[3] = r->second ? r->second : r->shape[3];
    if (r->op == GEGLU)
        x[3] *= 2;
    if (r->op == UPSAMPLE) {
        x[1] /= 2;
        x[2] /= 2;
    }
    s.memory = device_take((size_t)(16 * n));
    if (cudaMemset(s.memory, 0, (size_t)(16 * n)) != cudaSuccess)
        fail_msg("cudaMemset");
    s.x = tensor(s.memory, type, 4, x);
    s.x2 = tensor((char *)s.memory + 4 * n, type, 4, x2);
    s.y = tensor((char *)s.memory + 8 * n, type, 4, r->shape);
    s.vector = tensor((char *)s.memory + 12 * n, F16, 1, vector);
    if (r->op == GROUP || r->op == LAYER)
        s.vector.shape[0] = r->shape[3];
    if (r->op == TURN) { /* channels first to channels last */
        s.x.stride[3] = r->shape[1] * r->shape[2];
        s.x.stride[2] = 1;
        s.x.stride[1] = r->shape[2];
    }
    struct kernel_norm norm = norm_of(r, &s);
    s.scratch =
        device_take(r->op == GROUP ? (size_t)attn_cuda_kernels.group_norm_scratch(&norm) : 1);
    return s;
}

static void launch(const struct row *r, struct set *s, void *stream)
{
    const struct cuda_kernels *k = &attn_cuda_kernels;
    const struct kernel_norm norm = norm_of(r, s);
    const int64_t cells[] = {r->shape[0], r->shape[1] * r->shape[2] / 64};
    const attn_tensor mass = tensor((char *)s->vector.data, F32, 2, cells);
    const attn_tensor *in[] = {&s->x, &s->x2}, *out[] = {&s->y};
    int error = 0;
    switch (r->op) {
    case GROUP:
        error = k->group_norm(&norm, s->scratch, stream);
        break;
    case LAYER:
        error = k->layer_norm(&norm, stream);
        break;
    case GEGLU:
        error = k->geglu(&s->x, &s->vector, &s->y, stream);
        break;
    case ACTIVATE:
        error = k->activate(KERNEL_ACT_SILU, &s->x, &s->y, stream);
        break;
    case COPY:
    case TURN:
        error = k->copy(&s->x, &s->y, stream);
        break;
    case EPILOGUE: {
        attn_tensor bias = s->vector;
        bias.shape[0] = r->shape[3];
        error = k->epilogue(1.0f, KERNEL_ACT_NONE, &s->x, &bias, 1.0f, &s->x2, &s->y, stream);
        break;
    }
    case UPSAMPLE:
        error = k->upsample(&s->x, &s->y, stream);
        break;
    case SAG:
        error = k->sag_degrade(&mass, r->shape[1] / 8, r->shape[2] / 8, NULL, &s->x, &s->y, stream);
        break;
    case MIX:
        error = k->mix(1, out, 2, in, mass.data, NULL, stream);
        break;
    }
    expect_launched(error, r->name);
}

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Median microseconds of one launch. */
static double time_of(const struct row *r, struct set *sets, int n_sets, cudaStream_t stream)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t begin, end;
    float ms[ROUNDS];
    int failed = 0;
    launch(r, &sets[0], stream);
    failed |= cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
    for (int i = 0; i < LAUNCHES; ++i)
        launch(r, &sets[i % n_sets], stream);
    failed |= cudaStreamEndCapture(stream, &graph) || cudaGraphInstantiate(&exec, graph, 0) ||
              cudaEventCreate(&begin) || cudaEventCreate(&end);
    for (int i = -3; i < ROUNDS && !failed; ++i) {
        failed |= cudaEventRecord(begin, stream) || cudaGraphLaunch(exec, stream) ||
                  cudaEventRecord(end, stream) || cudaEventSynchronize(end) ||
                  cudaEventElapsedTime(&ms[i < 0 ? 0 : i], begin, end);
    }
    if (failed)
        fail_msg("%s: %s", r->name, cudaGetErrorString(cudaGetLastError()));
    qsort(ms, ROUNDS, sizeof *ms, by_value);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return ms[ROUNDS / 2] * 1e3 / LAUNCHES;
}

/* Bytes read and written in a microsecond by a large copy. */
static double rate_of_memory(cudaStream_t stream)
{
    const size_t bytes = 512u << 20;
    char *from = device_take(bytes), *to = device_take(bytes);
    cudaEvent_t begin, end;
    float ms = 0.0f, best = 1e9f;
    cudaEventCreate(&begin);
    cudaEventCreate(&end);
    for (int i = 0; i < 6; ++i) {
        cudaEventRecord(begin, stream);
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
        cudaEventRecord(end, stream);
        if (cudaEventSynchronize(end) != cudaSuccess ||
            cudaEventElapsedTime(&ms, begin, end) != cudaSuccess)
            fail_msg("timing a copy: %s", cudaGetErrorString(cudaGetLastError()));
        best = ms < best ? ms : best;
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    device_free(from);
    device_free(to);
    return 2.0 * (double)bytes / (best * 1e3);
}

static void time_row(const struct row *r, double rate, cudaStream_t stream)
{
    const int64_t bytes = row_bytes(r);
    struct set sets[SETS_MAX];
    int64_t n = (COLD + bytes - 1) / bytes;
    n = n < 1 ? 1 : n < SETS_MAX ? n : SETS_MAX;
    for (int64_t i = 0; i < n; ++i)
        sets[i] = set_make(r);
    const double warm = time_of(r, sets, 1, stream), cold = time_of(r, sets, (int)n, stream);
    const double floor = (double)bytes / rate;
    printf("%-34s %8.2f %8.2f %8.2f %6.2f %6.2f\n", r->name, warm, cold, floor, warm / floor,
           cold / floor);
    for (int64_t i = 0; i < n; ++i) {
        device_free(sets[i].memory);
        device_free(sets[i].scratch);
    }
}

static void time_all(void **unused)
{
    static const struct row rows[] = {
        {"group norm 2x64x64x320 silu", GROUP, {2, 64, 64, 320}, 0},
        {"group norm 2x64x64x(640+320)", GROUP, {2, 64, 64, 960}, 320},
        {"group norm 2x32x32x640", GROUP, {2, 32, 32, 640}, 0},
        {"group norm 2x32x32x(1280+640)", GROUP, {2, 32, 32, 1920}, 640},
        {"group norm 2x16x16x1280", GROUP, {2, 16, 16, 1280}, 0},
        {"group norm 2x16x16x(1280+1280)", GROUP, {2, 16, 16, 2560}, 1280},
        {"group norm 2x8x8x1280", GROUP, {2, 8, 8, 1280}, 0},
        {"group norm 1x64x64x320", GROUP, {1, 64, 64, 320}, 0},
        {"group norm 1x64x64x512 (VAE)", GROUP, {1, 64, 64, 512}, 0},
        {"group norm 1x256x256x512 (VAE)", GROUP, {1, 256, 256, 512}, 0},
        {"group norm 1x512x512x128 (VAE)", GROUP, {1, 512, 512, 128}, 0},
        {"layer norm 8192x320", LAYER, {1, 1, 8192, 320}, 0},
        {"layer norm 2048x640", LAYER, {1, 1, 2048, 640}, 0},
        {"layer norm 512x1280", LAYER, {1, 1, 512, 1280}, 0},
        {"layer norm 128x1280", LAYER, {1, 1, 128, 1280}, 0},
        {"layer norm 154x768", LAYER, {1, 1, 154, 768}, 0},
        {"geglu 8192x(2x1280)", GEGLU, {1, 1, 8192, 1280}, 0},
        {"geglu 4096x(2x1280)", GEGLU, {1, 1, 4096, 1280}, 0},
        {"geglu 2048x(2x2560)", GEGLU, {1, 1, 2048, 2560}, 0},
        {"geglu 512x(2x5120)", GEGLU, {1, 1, 512, 5120}, 0},
        {"silu 2x1280", ACTIVATE, {1, 1, 2, 1280}, 0},
        {"bias + residual 8192x320", EPILOGUE, {1, 1, 8192, 320}, 0},
        {"copy 2x64x64x320", COPY, {2, 64, 64, 320}, 0},
        {"NCHW to NHWC 2x64x64x320", TURN, {2, 64, 64, 320}, 0},
        {"upsample to 2x64x64x640", UPSAMPLE, {2, 64, 64, 640}, 0},
        {"sag_degrade 1x64x64x4", SAG, {1, 64, 64, 4}, 0},
        {"mix, 2 terms, 1x64x64x4", MIX, {1, 64, 64, 4}, 0},
    };
    cudaStream_t stream;
    struct cudaDeviceProp device;
    (void)unused;
    if (cudaStreamCreate(&stream) != cudaSuccess ||
        cudaGetDeviceProperties(&device, 0) != cudaSuccess)
        fail_msg("%s", cudaGetErrorString(cudaGetLastError()));
    const double rate = rate_of_memory(stream);
    printf("%s, fp16, microseconds in a graph; a large copy moves %.0f GB/s\n", device.name,
           rate / 1e3);
    printf("%-34s %8s %8s %8s %6s %6s\n", "", "warm", "cold", "floor", "warm/", "cold/");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i)
        time_row(&rows[i], rate, stream);
    cudaStreamDestroy(stream);
}

int bench(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(time_all)};
    return cmocka_run_group_tests_name("bench", tests, NULL, NULL);
}
