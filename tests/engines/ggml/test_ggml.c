/* test_ggml.c FILE.so [--bench]: an attention plugin in graphs of a real ggml, against attention in
 * double precision; and timed beside ggml's own ggml_flash_attn_ext.  Built by run.sh. */
#include "attn_ggml.h"
#include "ggml-cpu.h"

#include <math.h>
#include <time.h>

typedef struct {
    const char *what;
    int64_t b, h, hk, nq, nk, d;
    bool mask, permuted, half_kv;
} shape;

static const shape shapes[] = {
    {"SD 1.5's first block, a part", 2, 8, 8, 200, 200, 40, false, false, false},
    {"77 keys, no padding", 2, 8, 8, 130, 77, 40, false, false, false},
    {"as projections leave them", 2, 5, 5, 65, 33, 64, false, true, false},
    {"keys and values in f16", 1, 4, 4, 64, 48, 80, false, false, true},
    {"a mask in f16, grouped queries", 1, 8, 2, 50, 70, 64, true, false, false},
    {"one query", 1, 2, 2, 1, 9, 8, false, false, false},
};

static uint64_t seed = 20;
static float normal(void)
{
    double sum = 0;
    for (int i = 0; i < 12; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        sum += (double)(seed >> 11) / 9007199254740992.0;
    }
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)((sum - 6) * (seed >> 57 == 0 ? 8 : 1)); /* about 1 % of outliers */
}

/* [d, n, h, b] in ggml's order, or the same as a view of [d, h, n, b]. */
static struct ggml_tensor *tensor(struct ggml_context *ctx, const shape *s, int64_t n, int64_t h,
                                  bool half)
{
    struct ggml_tensor *t = s->permuted ? ggml_new_tensor_4d(ctx, GGML_TYPE_F32, s->d, h, n, s->b)
                                        : ggml_new_tensor_4d(ctx, GGML_TYPE_F32, s->d, n, h, s->b);
    for (int64_t i = 0; i < ggml_nelements(t); i++) {
        float x = normal();
        ((float *)t->data)[i] = half ? ggml_fp16_to_fp32(ggml_fp32_to_fp16(x)) : x;
    }
    return s->permuted ? ggml_permute(ctx, t, 0, 2, 1, 3) : t;
}

static double at(const struct ggml_tensor *t, int64_t d, int64_t n, int64_t h, int64_t b)
{
    h %= t->ne[2], b %= t->ne[3];
    const char *p = (const char *)t->data + d * (int64_t)t->nb[0] + n * (int64_t)t->nb[1] +
                    h * (int64_t)t->nb[2] + b * (int64_t)t->nb[3];
    return t->type == GGML_TYPE_F16 ? ggml_fp16_to_fp32(*(const ggml_fp16_t *)p)
                                    : *(const float *)p;
}

/* Relative L2 error of out [d, h, nq, b]; NaN counts as wrong. */
static double error_of(const shape *s, const struct ggml_tensor *q, const struct ggml_tensor *k,
                       const struct ggml_tensor *v, const struct ggml_tensor *mask, double scale,
                       const struct ggml_tensor *out)
{
    double wrong = 0, all = 0;
    double *p = malloc((size_t)s->nk * sizeof *p);
    for (int64_t row = 0; row < s->b * s->h * s->nq; row++) {
        int64_t i = row % s->nq, h = row / s->nq % s->h, b = row / s->nq / s->h,
                hk = h / (s->h / s->hk);
        double top = -INFINITY, sum = 0;
        for (int64_t j = 0; j < s->nk; j++) {
            p[j] = mask ? at(mask, j, i, h, b) : 0;
            for (int64_t d = 0; d < s->d; d++) {
                p[j] += scale * at(q, d, i, h, b) * at(k, d, j, hk, b);
            }
            top = fmax(top, p[j]);
        }
        for (int64_t j = 0; j < s->nk; j++) {
            sum += p[j] = exp(p[j] - top);
        }
        for (int64_t d = 0; d < s->d; d++) {
            double want = 0;
            for (int64_t j = 0; j < s->nk; j++) {
                want += p[j] / sum * at(v, d, j, hk, b);
            }
            double got = at(out, d, h, i, b);
            wrong += (got - want) * (got - want), all += want * want;
        }
    }
    free(p);
    return sqrt(wrong / all);
}

static struct ggml_context *context(size_t bytes)
{
    struct ggml_init_params params = {bytes, NULL, false};
    return ggml_init(params);
}

/* Three layers in one graph, so that nodes follow one another; the last one's result is judged. */
static int check(attn_ggml *a, const shape *s, int threads)
{
    struct ggml_context *ctx = context((size_t)256 << 20);
    double scale = 1 / sqrt((double)s->d), worst = 0;
    struct ggml_tensor *q = tensor(ctx, s, s->nq, s->h, false),
                       *k = tensor(ctx, s, s->nk, s->hk, s->half_kv),
                       *v = tensor(ctx, s, s->nk, s->hk, s->half_kv), *mask = NULL;
    struct ggml_tensor *k_in = k, *v_in = v;
    if (s->half_kv) {
        k_in = ggml_cast(ctx, k, GGML_TYPE_F16), v_in = ggml_cast(ctx, v, GGML_TYPE_F16);
    }
    if (s->mask) {
        mask = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, s->nk, s->nq, 1, 1);
        for (int64_t i = 0; i < ggml_nelements(mask); i++) {
            ((ggml_fp16_t *)mask->data)[i] = ggml_fp32_to_fp16(i % 3 == 0 ? -INFINITY : normal());
        }
    }
    struct ggml_tensor *out[3];
    struct ggml_cgraph *graph = ggml_new_graph(ctx);
    for (int i = 0; i < 3; i++) {
        out[i] = attn_ggml_attend(ctx, a, q, k_in, v_in, mask, (float)scale);
        if (!out[i]) {
            printf("%s: refused\n", s->what);
            ggml_free(ctx);
            return 1;
        }
        ggml_build_forward_expand(graph, out[i]);
    }
    bool computed = true;
    for (int turn = 0; turn < 20 && computed; turn++) {
        memset(out[2]->data, 0xff, ggml_nbytes(out[2]));
        computed = ggml_graph_compute_with_ctx(ctx, graph, threads) == GGML_STATUS_SUCCESS &&
                   !attn_ggml_failed(a);
        worst = turn % 10 == 0 && computed ? fmax(worst, error_of(s, q, k, v, mask, scale, out[2]))
                                           : worst;
        computed = computed && memcmp(out[0]->data, out[2]->data, ggml_nbytes(out[0])) == 0;
    }
    bool right = computed && worst < 2e-6;
    printf("%-32s %d threads: %.2g %s\n", s->what, threads, worst, right ? "" : "WRONG");
    attn_ggml_forget(a);
    ggml_free(ctx);
    return !right;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int compare(const void *x, const void *y)
{
    double d = *(const double *)x - *(const double *)y;
    return d < 0 ? -1 : d > 0;
}

/* Median milliseconds of a graph of one attention.  a NULL: ggml's own. */
static double time_of(attn_ggml *a, const shape *s, int threads)
{
    enum { TURNS = 9 };
    double ms[TURNS];
    struct ggml_context *ctx = context((size_t)512 << 20);
    float scale = 1 / sqrtf((float)s->d);
    struct ggml_tensor *q = tensor(ctx, s, s->nq, s->h, false),
                       *k = tensor(ctx, s, s->nk, s->hk, false),
                       *v = tensor(ctx, s, s->nk, s->hk, false);
    if (s->half_kv) { /* converted before the clock starts, as a cache of keys and values would be
                       */
        struct ggml_cgraph *before = ggml_new_graph(ctx);
        k = ggml_cast(ctx, k, GGML_TYPE_F16), v = ggml_cast(ctx, v, GGML_TYPE_F16);
        ggml_build_forward_expand(before, k), ggml_build_forward_expand(before, v);
        ggml_graph_compute_with_ctx(ctx, before, threads);
        k->op = v->op = GGML_OP_NONE;
    }
    struct ggml_cgraph *graph = ggml_new_graph(ctx);
    struct ggml_tensor *out = a ? attn_ggml_attend(ctx, a, q, k, v, NULL, scale)
                                : ggml_flash_attn_ext(ctx, q, k, v, NULL, scale, 0, 0);
    ggml_build_forward_expand(graph, out);
    struct ggml_cplan plan = ggml_graph_plan(graph, threads, NULL);
    plan.work_data = malloc(plan.work_size + 1);
    for (int i = -2; i < TURNS; i++) {
        double start = seconds();
        ggml_graph_compute(graph, &plan);
        ms[i < 0 ? 0 : i] = 1e3 * (seconds() - start);
    }
    qsort(ms, TURNS, sizeof *ms, compare);
    free(plan.work_data);
    if (a) {
        attn_ggml_forget(a);
    }
    ggml_free(ctx);
    return ms[TURNS / 2];
}

static void bench(attn_ggml *a, int threads)
{
    static const shape rows[] = {
        {"4096 x 4096, D 40", 1, 8, 8, 4096, 4096, 40, false, false, false},
        {"4096 x 4096, D 64", 1, 10, 10, 4096, 4096, 64, false, false, false},
        {"1024 x 1024, D 80", 1, 8, 8, 1024, 1024, 80, false, false, false},
        {"4096 x 77, D 40", 1, 8, 8, 4096, 77, 40, false, false, false},
    };
    printf("| shape (B1) | ggml, f32 keys | ggml, f16 keys | this | ratio to the faster "
           "|\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        shape half = rows[i];
        half.half_kv = true;
        double own = time_of(NULL, &rows[i], threads), own16 = time_of(NULL, &half, threads),
               ours = time_of(a, &rows[i], threads);
        printf("| %s, H%d | %.1f ms | %.1f ms | %.1f ms | %.2f |\n", rows[i].what, (int)rows[i].h,
               own, own16, ours, fmin(own, own16) / ours);
    }
}

int main(int argc, char **argv)
{
    char why[256] = "";
    int failed = 0;
    if (argc < 2) {
        fprintf(stderr, "usage: test_ggml FILE.so [--bench]\n");
        return 2;
    }
    for (int threads = 1; threads <= 4 && !failed; threads *= 2) {
        attn_ggml *a = attn_ggml_open(argv[1], threads, why, sizeof why);
        if (!a) {
            fprintf(stderr, "%s\n", why);
            return 1;
        }
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            failed += check(a, &shapes[i], threads);
        }
        if (threads == 2 && argc > 2 && !failed) {
            bench(a, threads);
        }
        attn_ggml_close(a);
    }
    failed += attn_ggml_open("/nowhere/at-all.so", 1, why, sizeof why) != NULL ||
              !strstr(why, "at-all.so");
    printf(failed ? "%d failed\n" : "all right\n", failed);
    return failed != 0;
}
