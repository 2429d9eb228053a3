/* bench_onednn.c: oneDNN at the sizes of bench.c, to measure against: convolutions channels-last
 * and in the layout that it likes best, linears with weights in rows and packed.
 *
 *   build/tests/compute/bench_onednn        (built where oneDNN 2.6 or 3.x is installed)
 *
 * The two versions differ in how a primitive is described; PRIMITIVE below is all of it.
 */
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static dnnl_engine_t engine;
static dnnl_stream_t stream;

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t desc;
typedef const_dnnl_memory_desc_t const_desc;

static desc describe(int n, const dnnl_dims_t dims, dnnl_format_tag_t tag)
{
    desc d = NULL;
    (void)dnnl_memory_desc_create_with_tag(&d, n, dims, dnnl_f32, tag);
    return d;
}

static dnnl_status_t conv_desc(dnnl_primitive_desc_t *pd, desc x, desc w, desc y,
                               const dnnl_dims_t stride, const dnnl_dims_t pad)
{
    const dnnl_dims_t none = {0, 0};
    return dnnl_convolution_forward_primitive_desc_create(pd, engine, dnnl_forward_inference,
                                                          dnnl_convolution_direct, x, w, NULL, y,
                                                          stride, none, pad, pad, NULL);
}

static dnnl_status_t linear_desc(dnnl_primitive_desc_t *pd, desc x, desc w, desc y)
{
    return dnnl_matmul_primitive_desc_create(pd, engine, x, w, NULL, y, NULL);
}
#else
typedef dnnl_memory_desc_t desc;
typedef const dnnl_memory_desc_t *const_desc;

static desc describe(int n, const dnnl_dims_t dims, dnnl_format_tag_t tag)
{
    desc d;
    memset(&d, 0, sizeof d);
    (void)dnnl_memory_desc_init_by_tag(&d, n, dims, dnnl_f32, tag);
    return d;
}

static dnnl_status_t conv_desc(dnnl_primitive_desc_t *pd, desc x, desc w, desc y,
                               const dnnl_dims_t stride, const dnnl_dims_t pad)
{
    dnnl_convolution_desc_t d;
    dnnl_status_t status = dnnl_convolution_forward_desc_init(
        &d, dnnl_forward_inference, dnnl_convolution_direct, &x, &w, NULL, &y, stride, pad, pad);
    return status == dnnl_success ? dnnl_primitive_desc_create(pd, &d, NULL, engine, NULL) : status;
}

static dnnl_status_t linear_desc(dnnl_primitive_desc_t *pd, desc x, desc w, desc y)
{
    dnnl_matmul_desc_t d;
    dnnl_status_t status = dnnl_matmul_desc_init(&d, &x, &w, NULL, &y);
    return status == dnnl_success ? dnnl_primitive_desc_create(pd, &d, NULL, engine, NULL) : status;
}
#endif

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static dnnl_memory_t memory_of(const_desc d)
{
    dnnl_memory_t m = NULL;
    size_t bytes = dnnl_memory_desc_get_size(d);
    float *data = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    for (size_t i = 0; data && i < bytes / sizeof *data; ++i)
        data[i] = (float)(i % 17) * 0.01f;
    (void)dnnl_memory_create(&m, d, engine, data);
    return m;
}

static void time_it(const char *name, dnnl_status_t status, dnnl_primitive_desc_t pd, double flops)
{
    static const dnnl_query_t queries[] = {dnnl_query_src_md, dnnl_query_weights_md,
                                           dnnl_query_dst_md};
    static const int kinds[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    dnnl_primitive_t primitive = NULL;
    dnnl_exec_arg_t args[3];
    double times[2000];
    const char *implementation = "";
    int n = 0;
    if (status != dnnl_success || dnnl_primitive_create(&primitive, pd) != dnnl_success) {
        printf("%-44s not available\n", name);
        return;
    }
    (void)dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&implementation);
    for (int i = 0; i < 3; ++i)
        args[i] =
            (dnnl_exec_arg_t){kinds[i], memory_of(dnnl_primitive_desc_query_md(pd, queries[i], 0))};
    for (double start = now(); n < 5 || (now() - start < 0.3 && n < 2000); ++n) {
        double t = now();
        (void)dnnl_primitive_execute(primitive, stream, 3, args);
        (void)dnnl_stream_wait(stream);
        times[n] = now() - t;
    }
    qsort(times, (size_t)n, sizeof *times, by_value);
    printf("%-44s %9.1f us %7.1f GFLOP/s  %s\n", name, times[n / 2] * 1e6,
           flops / times[n / 2] * 1e-9, implementation);
    for (int i = 0; i < 3; ++i) {
        void *data = NULL;
        (void)dnnl_memory_get_data_handle(args[i].memory, &data);
        (void)dnnl_memory_destroy(args[i].memory);
        free(data);
    }
    (void)dnnl_primitive_destroy(primitive);
    (void)dnnl_primitive_desc_destroy(pd);
}

static void conv(int b, int size, int in, int out, int kernel, int step)
{
    const dnnl_dims_t xs = {b, in, size, size}, ws = {out, in, kernel, kernel};
    const dnnl_dims_t ys = {b, out, size / step, size / step}, stride = {step, step};
    const dnnl_dims_t pad = {kernel / 2, kernel / 2};
    for (int last = 1; last >= 0; --last) {
        char name[96];
        dnnl_primitive_desc_t pd = NULL;
        dnnl_format_tag_t tag = last ? dnnl_nhwc : dnnl_format_tag_any;
        (void)snprintf(name, sizeof name, "conv%d B%d %dx%d %d -> %d%s, %s", kernel, b, size, size,
                       in, out, step > 1 ? " /2" : "", last ? "channels-last" : "its choice");
        dnnl_status_t status =
            conv_desc(&pd, describe(4, xs, tag), describe(4, ws, dnnl_format_tag_any),
                      describe(4, ys, tag), stride, pad);
        time_it(name, status, pd,
                2.0 * b * (double)ys[2] * (double)ys[3] * out * in * kernel * kernel);
    }
}

static void linear(int m, int k, int n)
{
    const dnnl_dims_t xs = {m, k}, ws = {k, n}, ys = {m, n};
    for (int packed = 0; packed < 2; ++packed) {
        char name[96];
        dnnl_primitive_desc_t pd = NULL;
        (void)snprintf(name, sizeof name, "linear %d x %d x %d, %s", m, k, n,
                       packed ? "packed" : "in rows");
        dnnl_status_t status = linear_desc(&pd, describe(2, xs, dnnl_ab),
                                           describe(2, ws, packed ? dnnl_format_tag_any : dnnl_ba),
                                           describe(2, ys, dnnl_ab));
        time_it(name, status, pd, 2.0 * m * k * n);
    }
}

int main(void)
{
    static const int convs[][6] = {
        {2, 32, 60, 60, 3, 1},   {2, 16, 120, 120, 3, 1},   {2, 8, 240, 240, 3, 1},
        {1, 8, 240, 240, 3, 1},  {2, 32, 60, 60, 3, 2},     {2, 32, 180, 60, 1, 1},
        {1, 128, 32, 32, 3, 1},  {2, 64, 320, 320, 3, 1},   {2, 64, 320, 320, 3, 2},
        {2, 32, 640, 640, 3, 1}, {2, 16, 1280, 1280, 3, 1}, {2, 8, 1280, 1280, 3, 1},
        {2, 64, 640, 320, 1, 1}, {1, 512, 128, 128, 3, 1}};
    static const int linears[][3] = {{512, 120, 120},   {512, 480, 120},  {128, 240, 240},
                                     {128, 960, 240},   {8192, 320, 320}, {8192, 320, 2560},
                                     {8192, 1280, 320}, {512, 5120, 1280}};
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) != dnnl_success)
        return 77;
    const dnnl_version_t *v = dnnl_version();
    printf("oneDNN %d.%d.%d\n", v->major, v->minor, v->patch);
    for (size_t i = 0; i < sizeof convs / sizeof *convs; ++i)
        conv(convs[i][0], convs[i][1], convs[i][2], convs[i][3], convs[i][4], convs[i][5]);
    for (size_t i = 0; i < sizeof linears / sizeof *linears; ++i)
        linear(linears[i][0], linears[i][1], linears[i][2]);
    return 0;
}
