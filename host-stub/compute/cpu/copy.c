/* copy.c: element by element: copy, fill, combine, activation.  Any strides, any float types.
 *
 * Every operation walks its tensors in pieces of one row.  Neighbouring dimensions that all tensors
 * lay out alike are merged first, so that contiguous tensors are one long row.
 */
#include "cpu.h"

#define PIECE 2048 /* elements of one piece: two buffers of them stay in the first cache */

struct walk {
    const struct cpu *cpu;
    int n; /* tensors; the last is written */
    attn_tensor t[3];
    struct rows rows[3];
    int64_t pieces; /* of a row */
    float alpha, beta;
    enum activation act;
    void (*piece)(const struct walk *walk, int64_t n, float *const *x, float *y);
};

/* Merges dimensions i and i + 1 of all tensors where that is possible. */
static void walk_merge(struct walk *w)
{
    uint32_t rank = 4;
    for (uint32_t i = 3; i-- > 0;) {
        bool fits = true;
        for (int j = 0; j < w->n; ++j) {
            const attn_tensor *t = &w->t[j];
            fits = fits && (t->shape[i] == 1 || t->stride[i] == t->stride[i + 1] * t->shape[i + 1]);
        }
        if (!fits)
            continue;
        --rank;
        for (int j = 0; j < w->n; ++j) {
            attn_tensor *t = &w->t[j];
            t->shape[i] *= t->shape[i + 1];
            t->stride[i] = t->stride[i + 1];
            for (uint32_t d = i + 1; d < 3; ++d) {
                t->shape[d] = t->shape[d + 1];
                t->stride[d] = t->stride[d + 1];
            }
            t->shape[3] = 1;
            t->stride[3] = 0;
        }
    }
    for (int j = 0; j < w->n; ++j) {
        w->t[j].rank = rank;
        w->t[j] = tensor_rank4(&w->t[j]);
    }
}

static float *piece_load(const struct walk *w, int j, int64_t row, int64_t from, int64_t n,
                         float *buffer)
{
    const attn_tensor *t = &w->t[j];
    char *at = (char *)rows_at(&w->rows[j], row) + from * t->stride[3] * (t->bits / 8);
    if (tensor_f32(t) && t->stride[3] == 1)
        return (float *)at;
    rows_load(w->cpu->kernels, t, at, t->stride[3], n, buffer);
    return buffer;
}

static void piece_store(const struct walk *w, int64_t row, int64_t from, int64_t n, const float *x)
{
    const attn_tensor *t = &w->t[w->n - 1];
    char *at = (char *)rows_at(&w->rows[w->n - 1], row) + from * t->stride[3] * (t->bits / 8);
    if (t->bits == 32) {
        float *y = (float *)at;
        for (int64_t i = 0; i < n; ++i)
            y[i * t->stride[3]] = x[i];
        return;
    }
    uint16_t half[PIECE];
    const struct kernels *k = w->cpu->kernels;
    (t->code == ATTN_CODE_BFLOAT ? k->f32_to_bf16 : k->f32_to_f16)(n, x, half);
    uint16_t *y = (uint16_t *)at;
    for (int64_t i = 0; i < n; ++i)
        y[i * t->stride[3]] = half[i];
}

static void walk_pieces(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct walk *w = arg;
    const attn_tensor *out = &w->t[w->n - 1];
    bool direct = tensor_f32(out) && out->stride[3] == 1;
    (void)thread;
    for (int64_t unit = begin; unit < end; ++unit) {
        int64_t row = unit / w->pieces, from = unit % w->pieces * PIECE;
        int64_t n = out->shape[3] - from < PIECE ? out->shape[3] - from : PIECE;
        float buffer[3][PIECE];
        float *x[2] = {NULL, NULL}, *y = buffer[2];
        for (int j = 0; j + 1 < w->n; ++j)
            x[j] = piece_load(w, j, row, from, n, buffer[j]);
        if (direct)
            y = (float *)((char *)rows_at(&w->rows[w->n - 1], row) + from * 4);
        w->piece(w, n, x, y);
        if (!direct)
            piece_store(w, row, from, n, y);
    }
}

/* The inputs of t are broadcast to the shape of the last. */
static void walk_run(struct walk *w)
{
    attn_tensor *out = &w->t[w->n - 1];
    if (!tensor_count(out))
        return;
    for (int j = 0; j < w->n; ++j) {
        w->t[j] = tensor_rank4(&w->t[j]);
        for (int d = 0; d < 4; ++d) {
            if (w->t[j].shape[d] == 1 && (j + 1 < w->n))
                w->t[j].stride[d] = 0;
        }
    }
    for (int j = 0; j + 1 < w->n; ++j)
        memcpy(w->t[j].shape, out->shape, sizeof out->shape);
    walk_merge(w);
    for (int j = 0; j < w->n; ++j)
        w->rows[j] = rows_of(&w->t[j]);
    w->pieces = (out->shape[3] - 1) / PIECE + 1;
    int64_t length = out->shape[3] < PIECE ? out->shape[3] : PIECE;
    int64_t grain = 8 * PIECE / length;
    parallel(w->cpu, w->rows[w->n - 1].count * w->pieces, grain, walk_pieces, w);
}

static void piece_copy(const struct walk *w, int64_t n, float *const *x, float *y)
{
    (void)w;
    if (x[0] != y)
        memmove(y, x[0], (size_t)n * sizeof *y);
}

static void piece_fill(const struct walk *w, int64_t n, float *const *x, float *y)
{
    (void)x;
    for (int64_t i = 0; i < n; ++i)
        y[i] = w->alpha;
}

static void piece_combine(const struct walk *w, int64_t n, float *const *x, float *y)
{
    w->cpu->kernels->combine(n, w->alpha, x[0], w->beta, x[1], y);
}

static void piece_scale(const struct walk *w, int64_t n, float *const *x, float *y)
{
    for (int64_t i = 0; i < n; ++i)
        y[i] = w->alpha * x[0][i];
}

static void piece_activate(const struct walk *w, int64_t n, float *const *x, float *y)
{
    w->cpu->kernels->activate(w->act, n, x[0], y);
}

void copy_convert(const struct cpu *c, const attn_tensor *src, const attn_tensor *dst)
{
    struct walk w = {.cpu = c, .n = 2, .t = {*src, *dst}, .piece = piece_copy};
    walk_run(&w);
}

attn_status cpu_copy(attn_work *w, const attn_tensor *src, const attn_tensor *dst)
{
    if (check_copy(w, src, dst) == ATTN_OK && !work_dry(w))
        copy_convert(cpu_of(w), src, dst);
    return w->status;
}

attn_status cpu_fill(attn_work *w, float value, const attn_tensor *dst)
{
    if (check_floats(w, "fill", 1, &dst) != ATTN_OK || work_dry(w))
        return w->status;
    struct walk walk = {.cpu = cpu_of(w), .n = 1, .t = {*dst}, .alpha = value, .piece = piece_fill};
    walk_run(&walk);
    return ATTN_OK;
}

attn_status cpu_combine(attn_work *w, float alpha, const attn_tensor *a, float beta,
                        const attn_tensor *b, const attn_tensor *out)
{
    if (check_combine(w, a, beta, b, out) != ATTN_OK || work_dry(w))
        return w->status;
    struct walk walk = {.cpu = cpu_of(w), .alpha = alpha, .beta = beta};
    if (tensor_here(b) && beta != 0.0f) {
        walk.n = 3;
        walk.t[0] = *a;
        walk.t[1] = *b;
        walk.piece = piece_combine;
    } else {
        walk.n = 2;
        walk.t[0] = *a;
        walk.piece = piece_scale;
    }
    walk.t[walk.n - 1] = *out;
    walk_run(&walk);
    return ATTN_OK;
}

attn_status cpu_activate(attn_work *w, enum activation act, const attn_tensor *x,
                         const attn_tensor *y)
{
    if (check_activate(w, x, y) != ATTN_OK || work_dry(w))
        return w->status;
    struct walk walk = {
        .cpu = cpu_of(w), .n = 2, .t = {*x, *y}, .act = act, .piece = piece_activate};
    walk_run(&walk);
    return ATTN_OK;
}
