/* bench_layouts.c: one 3 x 3 convolution in each of the ways that oneDNN 2.x has for it, which is
 * what conv_winograd.c was decided by.
 *
 *   OMP_NUM_THREADS=2 build/tests/compute/bench_layouts
 *
 * channels last: pictures as this project has them.  any: laid out as oneDNN likes best.  Winograd:
 * every variant that there is.  bf16 x 6: fp32's accuracy from the six products of three bf16 parts
 * of each number, laid side by side as channels.  Medians of as many runs as fit into 0.2 s, after
 * one; the time of laying weights out is a first run's.
 */
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if DNNL_VERSION_MAJOR < 3

enum { X, W, B, Y, S, TENSORS };

struct shape {
    int64_t batch, side, in, out;
};

static dnnl_engine_t engine;
static dnnl_stream_t stream;

static void must(dnnl_status_t status, const char *what)
{
    if (status == dnnl_success)
        return;
    fprintf(stderr, "bench_layouts: %s: status %d\n", what, (int)status);
    exit(1);
}

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

/* Memory of that layout; every second byte of an element is small, so that neither type has NaN. */
static dnnl_memory_t memory_of(const dnnl_memory_desc_t *layout)
{
    dnnl_memory_t m;
    void *data;
    must(dnnl_memory_create(&m, layout, engine, DNNL_MEMORY_ALLOCATE), "memory");
    must(dnnl_memory_get_data_handle(m, &data), "memory");
    memset(data, 0x3d, dnnl_memory_desc_get_size(layout));
    return m;
}

static double weights_seconds(const struct shape *s, int64_t in, const dnnl_memory_desc_t *layout,
                              dnnl_data_type_t type, dnnl_memory_t to)
{
    const dnnl_dims_t dims = {s->out, in, 3, 3};
    dnnl_memory_desc_t plain;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t reorder;
    must(dnnl_memory_desc_init_by_tag(&plain, 4, dims, type, dnnl_oihw), "weights");
    dnnl_memory_t from = memory_of(&plain);
    must(dnnl_reorder_primitive_desc_create(&desc, &plain, engine, layout, engine, NULL),
         "reorder");
    must(dnnl_primitive_create(&reorder, desc), "reorder");
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    double start = now();
    must(dnnl_primitive_execute(reorder, stream, 2, args), "reorder");
    must(dnnl_stream_wait(stream), "reorder");
    double seconds = now() - start;
    (void)dnnl_primitive_destroy(reorder);
    (void)dnnl_primitive_desc_destroy(desc);
    (void)dnnl_memory_destroy(from);
    return seconds;
}

static double median_seconds(dnnl_primitive_t primitive, const dnnl_exec_arg_t *args)
{
    double times[2000];
    int n = 0;
    must(dnnl_primitive_execute(primitive, stream, TENSORS, args), "convolution");
    for (double start = now(); n < 3 || (now() - start < 0.2 && n < 2000); ++n) {
        double t = now();
        must(dnnl_primitive_execute(primitive, stream, TENSORS, args), "convolution");
        must(dnnl_stream_wait(stream), "convolution");
        times[n] = now() - t;
    }
    qsort(times, (size_t)n, sizeof *times, by_value);
    return times[n / 2];
}

static void time_one(const char *name, const struct shape *s, int64_t in, dnnl_data_type_t type,
                     dnnl_primitive_desc_t desc)
{
    static const dnnl_query_t query[TENSORS] = {dnnl_query_src_md, dnnl_query_weights_md,
                                                dnnl_query_weights_md, dnnl_query_dst_md,
                                                dnnl_query_scratchpad_md};
    static const int id[TENSORS] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST,
                                    DNNL_ARG_SCRATCHPAD};
    const dnnl_memory_desc_t *layout[TENSORS];
    dnnl_exec_arg_t args[TENSORS];
    dnnl_primitive_t primitive;
    const char *how;
    for (int i = 0; i < TENSORS; ++i) {
        layout[i] = dnnl_primitive_desc_query_md(desc, query[i], i == B);
        args[i] = (dnnl_exec_arg_t){id[i], memory_of(layout[i])};
    }
    must(dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, (void *)&how), "query");
    must(dnnl_primitive_create(&primitive, desc), "convolution");
    double lay = weights_seconds(s, in, layout[W], type, args[W].memory);
    double t = median_seconds(primitive, args);
    double products = (double)(s->batch * s->side * s->side) * (double)(s->in * s->out) * 9.0;
    printf("%-14s B%lld %lldx%lld %lld -> %lld %9.0f us %6.0f GFLOP/s, weights x %.2f in %.1f ms, "
           "scratch %.1f MB, %s\n",
           name, (long long)s->batch, (long long)s->side, (long long)s->side, (long long)s->in,
           (long long)s->out, t * 1e6, 2e-9 * products / t,
           (double)dnnl_memory_desc_get_size(layout[W]) / (double)(36 * s->in * s->out), lay * 1e3,
           (double)dnnl_memory_desc_get_size(layout[S]) * 1e-6, how);
    (void)dnnl_primitive_destroy(primitive);
    for (int i = 0; i < TENSORS; ++i)
        (void)dnnl_memory_destroy(args[i].memory);
}

static void run(const char *name, const struct shape *s, int64_t parts, dnnl_data_type_t type,
                dnnl_format_tag_t tag, dnnl_alg_kind_t algorithm)
{
    const dnnl_dims_t x = {s->batch, s->in * parts, s->side, s->side}, one = {1, 1};
    const dnnl_dims_t w = {s->out, s->in * parts, 3, 3}, b = {s->out};
    const dnnl_dims_t y = {s->batch, s->out, s->side, s->side};
    dnnl_memory_desc_t l[4];
    dnnl_convolution_desc_t d;
    dnnl_primitive_attr_t attr;
    dnnl_primitive_desc_iterator_t all;
    must(dnnl_memory_desc_init_by_tag(&l[X], 4, x, type, tag), "x");
    must(dnnl_memory_desc_init_by_tag(&l[W], 4, w, type, dnnl_format_tag_any), "weights");
    must(dnnl_memory_desc_init_by_tag(&l[B], 1, b, dnnl_f32, dnnl_a), "bias");
    must(dnnl_memory_desc_init_by_tag(&l[Y], 4, y, dnnl_f32, tag), "y");
    must(dnnl_convolution_forward_desc_init(&d, dnnl_forward_inference, algorithm, &l[X], &l[W],
                                            &l[B], &l[Y], one, one, one),
         "convolution");
    must(dnnl_primitive_attr_create(&attr), "attributes");
    must(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user), "attributes");
    if (dnnl_primitive_desc_iterator_create(&all, &d, attr, engine, NULL) != dnnl_success) {
        printf("%-14s not here\n", name);
        (void)dnnl_primitive_attr_destroy(attr);
        return;
    }
    do {
        dnnl_primitive_desc_t desc = dnnl_primitive_desc_iterator_fetch(all);
        time_one(name, s, s->in * parts, type, desc);
        (void)dnnl_primitive_desc_destroy(desc);
    } while (algorithm == dnnl_convolution_winograd &&
             dnnl_primitive_desc_iterator_next(all) == dnnl_success);
    (void)dnnl_primitive_desc_iterator_destroy(all);
    (void)dnnl_primitive_attr_destroy(attr);
}

int main(void)
{
    static const struct shape shapes[] = {
        {2, 32, 60, 60},   {2, 16, 120, 120},  {2, 8, 240, 240},    {1, 8, 240, 240},
        {2, 64, 320, 320}, {2, 32, 640, 640},  {2, 16, 1280, 1280}, {2, 8, 1280, 1280},
        {1, 64, 512, 512}, {1, 256, 256, 256}, {1, 512, 128, 128},
    };
    must(dnnl_engine_create(&engine, dnnl_cpu, 0), "engine");
    must(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "stream");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) {
        const struct shape *s = &shapes[i];
        run("channels last", s, 1, dnnl_f32, dnnl_nhwc, dnnl_convolution_direct);
        run("any", s, 1, dnnl_f32, dnnl_format_tag_any, dnnl_convolution_direct);
        run("Winograd", s, 1, dnnl_f32, dnnl_format_tag_any, dnnl_convolution_winograd);
        if (s->in < 1280) /* where 2.6.3 crashes */
            run("bf16 x 6", s, 6, dnnl_bf16, dnnl_nhwc, dnnl_convolution_direct);
    }
    (void)dnnl_stream_destroy(stream);
    (void)dnnl_engine_destroy(engine);
    return 0;
}

#else

int main(void)
{
    puts("oneDNN 3.x has no Winograd for x86-64");
    return 77;
}

#endif
