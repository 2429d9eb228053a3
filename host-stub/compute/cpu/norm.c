/* norm.c: group and layer normalisation.
 *
 * A group norm sums in double over blocks of rows, then becomes one multiplication and one addition
 * per element: with the time embedding `add`, the norm's own weight and bias, and the modulation
 * `scale` and `shift` all folded into a factor and a term for each batch and channel.
 */
#include "cpu.h"

#include <math.h>

#define BLOCK_ROWS 64 /* rows of one block of sums, at least */

struct group_norm {
    const struct cpu *cpu;
    int64_t batch, rows, channels, groups; /* rows of one batch */
    int64_t width[2];                      /* channels of x, of x2 */
    struct rows x[2], y;
    bool even[2];               /* rows of a batch lie equally far apart */
    int64_t block_rows, blocks; /* of a batch */
    double *sums;               /* [batch][blocks][2][channels] */
    float *factor, *term;       /* [batch][channels] */
    float *vectors[5];          /* weight, bias [channels], add, scale, shift [batch][channels] */
    double eps;
    enum activation act;
};

static bool rows_even(const attn_tensor *t)
{
    return t->rank != 4 || t->shape[1] == 1 || t->stride[1] == t->stride[2] * t->shape[2];
}

static void sum_blocks(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct group_norm *g = arg;
    (void)thread;
    for (int64_t unit = begin; unit < end; ++unit) {
        int64_t batch = unit / g->blocks, first = unit % g->blocks * g->block_rows;
        int64_t n = g->rows - first < g->block_rows ? g->rows - first : g->block_rows;
        double *sum = g->sums + unit * 2 * g->channels, *square = sum + g->channels;
        memset(sum, 0, 2 * (size_t)g->channels * sizeof *sum);
        for (int p = 0; p < 2 && g->width[p]; ++p) {
            int64_t row = batch * g->rows + first, at = p ? g->width[0] : 0;
            const struct rows *x = &g->x[p];
            int64_t together = g->even[p] ? n : 1;
            int64_t stride = x->stride[2] / (int64_t)sizeof(float);
            for (int64_t r = 0; r < n; r += together)
                g->cpu->kernels->moments(together, g->width[p], rows_at(x, row + r), stride,
                                         sum + at, square + at);
        }
    }
}

/* Factor and term of one group: (x + add - mean) / deviation * weight + bias, modulated. */
static void fold_group(const struct group_norm *g, int64_t batch, int64_t group, const double *sum,
                       const double *square)
{
    const int64_t width = g->channels / g->groups, first = group * width;
    const float *weight = g->vectors[0], *bias = g->vectors[1];
    const float *add = g->vectors[2] ? g->vectors[2] + batch * g->channels : NULL;
    const float *scale = g->vectors[3] ? g->vectors[3] + batch * g->channels : NULL;
    const float *shift = g->vectors[4] ? g->vectors[4] + batch * g->channels : NULL;
    const double rows = (double)g->rows;
    double total = 0.0, squares = 0.0;
    for (int64_t c = first; c < first + width; ++c) {
        double a = add ? add[c] : 0.0;
        total += sum[c] + rows * a;
        squares += square[c] + 2.0 * a * sum[c] + rows * a * a;
    }
    double n = rows * (double)width, mean = total / n, variance = squares / n - mean * mean;
    double inverse = 1.0 / sqrt((variance > 0.0 ? variance : 0.0) + g->eps);
    for (int64_t c = first; c < first + width; ++c) {
        double factor = inverse * (weight ? weight[c] : 1.0);
        double term = (add ? add[c] : 0.0) * factor - mean * factor + (bias ? bias[c] : 0.0);
        if (scale) {
            factor *= 1.0 + scale[c];
            term *= 1.0 + scale[c];
        }
        g->factor[batch * g->channels + c] = (float)factor;
        g->term[batch * g->channels + c] = (float)(term + (shift ? shift[c] : 0.0));
    }
}

static void fold(const struct group_norm *g)
{
    for (int64_t batch = 0; batch < g->batch; ++batch) {
        double *sum = g->sums + batch * g->blocks * 2 * g->channels;
        for (int64_t block = 1; block < g->blocks; ++block) {
            for (int64_t i = 0; i < 2 * g->channels; ++i)
                sum[i] += sum[block * 2 * g->channels + i];
        }
        for (int64_t group = 0; group < g->groups; ++group)
            fold_group(g, batch, group, sum, sum + g->channels);
    }
}

static void apply_rows(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct group_norm *g = arg;
    (void)thread;
    for (int64_t row = begin; row < end; ++row) {
        const float *factor = g->factor + row / g->rows * g->channels;
        const float *term = g->term + row / g->rows * g->channels;
        float *y = rows_at(&g->y, row);
        g->cpu->kernels->affine(g->act, g->width[0], rows_at(&g->x[0], row), factor, term, y);
        if (g->width[1])
            g->cpu->kernels->affine(g->act, g->width[1], rows_at(&g->x[1], row),
                                    factor + g->width[0], term + g->width[0], y + g->width[0]);
    }
}

/* Rows of elements enough to be worth a thread's while. */
static int64_t row_grain(int64_t channels)
{
    return 1 + 16384 / (channels ? channels : 1);
}

/* A vector or [batch, channels] as contiguous fp32; NULL if absent. */
static float *vector_load(attn_work *w, const attn_tensor *t)
{
    if (!tensor_here(t))
        return NULL;
    attn_tensor copy = work_take(w, NULL, t->rank, t->shape);
    cpu_copy(w, t, &copy);
    return copy.data;
}

/* Sums, and what they become; 0 rows leave the scratch as it is. */
static attn_status group_fold(attn_work *w, struct group_norm *g)
{
    attn_tensor f64 = {.code = ATTN_CODE_FLOAT, .bits = 64};
    int64_t threads = g->cpu->base.host.max_threads;
    g->block_rows = (g->rows + 4 * threads - 1) / (4 * threads);
    if (g->block_rows < BLOCK_ROWS)
        g->block_rows = BLOCK_ROWS;
    g->blocks = (g->rows + g->block_rows - 1) / g->block_rows;
    const int64_t sums[] = {g->batch * g->blocks, 2, g->channels};
    const int64_t folded[] = {g->batch, g->channels};
    g->factor = work_take(w, NULL, 2, folded).data;
    g->term = work_take(w, NULL, 2, folded).data;
    uint64_t mark = work_mark(w);
    g->sums = work_take(w, &f64, 3, sums).data;
    work_reset(w, mark);
    if (work_dry(w) || w->status != ATTN_OK || !g->batch || !g->rows)
        return w->status;
    parallel(g->cpu, g->batch * g->blocks, 1, sum_blocks, g);
    fold(g);
    return w->status;
}

static struct group_norm group_of(attn_work *w, const struct norm_call *n)
{
    const attn_tensor *vectors[] = {&n->norm->weight, &n->norm->bias, n->add, n->scale, n->shift};
    const attn_tensor *x = n->x;
    struct group_norm g = {.cpu = cpu_of(w),
                           .batch = x->shape[0],
                           .rows = x->rank == 4 ? x->shape[1] * x->shape[2] : x->shape[1],
                           .channels = tensor_last(x),
                           .groups = n->norm->groups,
                           .eps = n->norm->eps,
                           .act = n->act};
    attn_tensor in = rows_input(w, x);
    g.x[0] = rows_of(&in);
    g.even[0] = rows_even(&in);
    g.width[0] = tensor_last(x);
    if (tensor_here(n->x2)) {
        attn_tensor in2 = rows_input(w, n->x2);
        g.x[1] = rows_of(&in2);
        g.even[1] = rows_even(&in2);
        g.width[1] = tensor_last(n->x2);
        g.channels += g.width[1];
    }
    for (int i = 0; i < 5; ++i)
        g.vectors[i] = vector_load(w, vectors[i]);
    return g;
}

static attn_status group(attn_work *w, const struct norm_call *n, const attn_tensor *y)
{
    attn_tensor out = rows_output(w, y);
    struct group_norm g = group_of(w, n);
    g.y = rows_of(&out);
    if (group_fold(w, &g) != ATTN_OK || work_dry(w) || !g.batch || !g.rows)
        return w->status;
    parallel(g.cpu, g.batch * g.rows, row_grain(g.channels), apply_rows, &g);
    return rows_finish(w, &out, y);
}

struct layer_norm {
    const struct cpu *cpu;
    struct rows x, y;
    const float *weight, *bias;
    float eps;
    enum activation act;
};

static void layer_rows(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct layer_norm *l = arg;
    (void)thread;
    for (int64_t row = begin; row < end; ++row) {
        float *y = rows_at(&l->y, row);
        l->cpu->kernels->layer_norm(l->x.length, l->eps, rows_at(&l->x, row), l->weight, l->bias,
                                    y);
        if (l->act != ACT_NONE)
            l->cpu->kernels->activate(l->act, l->x.length, y, y);
    }
}

static attn_status layer(attn_work *w, const attn_norm *norm, enum activation act,
                         const attn_tensor *x, const attn_tensor *y)
{
    attn_tensor in = rows_input(w, x), out = rows_output(w, y);
    struct layer_norm l = {.cpu = cpu_of(w),
                           .x = rows_of(&in),
                           .y = rows_of(&out),
                           .weight = vector_load(w, &norm->weight),
                           .bias = vector_load(w, &norm->bias),
                           .eps = norm->eps,
                           .act = act};
    if (work_dry(w) || w->status != ATTN_OK)
        return w->status;
    parallel(l.cpu, l.x.count, row_grain(l.x.length), layer_rows, &l);
    return rows_finish(w, &out, y);
}

attn_status cpu_norm(attn_work *w, const attn_norm *norm, enum activation act, const attn_tensor *x,
                     const attn_tensor *x2, const attn_tensor *add, const attn_tensor *scale,
                     const attn_tensor *shift, const attn_tensor *y)
{
    const struct norm_call n = {norm, act, x, x2, add, scale, shift};
    if (check_norm(w, &n, y) != ATTN_OK)
        return w->status;
    uint64_t mark = work_mark(w);
    if (norm->kind == ATTN_NORM_GROUP)
        group(w, &n, y);
    else
        layer(w, norm, act, x, y);
    work_reset(w, mark);
    return w->status;
}

attn_status cpu_norm_fold(attn_work *w, const struct norm_call *n, struct folded_norm *out)
{
    attn_tensor y = *n->x; /* what the shapes of y would be */
    y.shape[y.rank - 1] += tensor_here(n->x2) ? tensor_last(n->x2) : 0;
    if (check_norm(w, n, &y) != ATTN_OK)
        return w->status;
    struct group_norm g = group_of(w, n);
    group_fold(w, &g);
    *out = (struct folded_norm){.act = n->act, .factor = g.factor, .term = g.term};
    return w->status;
}
