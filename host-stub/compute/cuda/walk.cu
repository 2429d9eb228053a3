/* walk.cu: see walk.cuh. */
#include "launchers.h"
#include "walk.cuh"

static void walk_swap(struct walk *w, int a, int b)
{
    int64_t shape = w->shape[a];
    w->shape[a] = w->shape[b];
    w->shape[b] = shape;
    for (int j = 0; j <= w->n; ++j) {
        int64_t stride = w->stride[j][a];
        w->stride[j][a] = w->stride[j][b];
        w->stride[j][b] = stride;
    }
}

/* The output's smallest stride last; dimensions of size 1 first. */
static void walk_sort(struct walk *w)
{
    for (int end = 3; end > 0; --end) {
        for (int i = 0; i < end; ++i) {
            int64_t a = w->stride[w->n][i], b = w->stride[w->n][i + 1];
            a = w->shape[i] == 1 ? INT64_MAX : a < 0 ? -a : a;
            b = w->shape[i + 1] == 1 ? INT64_MAX : b < 0 ? -b : b;
            if (a < b)
                walk_swap(w, i, i + 1);
        }
    }
}

static bool walk_fits(const struct walk *w, int i)
{
    bool fits = true;
    for (int j = 0; j <= w->n; ++j)
        fits = fits && w->stride[j][i] == w->stride[j][i + 1] * w->shape[i + 1];
    return fits || w->shape[i] == 1;
}

/* Dimensions i and i + 1 become one at i + 1; what was before moves up by one. */
static void walk_merge(struct walk *w, int i)
{
    w->shape[i + 1] *= w->shape[i];
    for (int d = i; d > 0; --d)
        w->shape[d] = w->shape[d - 1];
    w->shape[0] = 1;
    for (int j = 0; j <= w->n; ++j) {
        for (int d = i; d > 0; --d)
            w->stride[j][d] = w->stride[j][d - 1];
        w->stride[j][0] = 0;
    }
}

void walk_open(struct walk *w, int n, const attn_tensor *const *inputs, const attn_tensor *out)
{
    attn_tensor y = tensor_rank4(out);
    w->n = n;
    memcpy(w->shape, y.shape, sizeof w->shape);
    for (int j = 0; j <= n; ++j) {
        if (j < n && !tensor_here(inputs[j]))
            continue;
        attn_tensor t = j < n ? tensor_rank4(inputs[j]) : y;
        w->data[j] = t.data;
        w->type[j] = tensor_type(&t);
        memcpy(w->stride[j], t.stride, sizeof t.stride);
    }
    walk_sort(w);
    /* three pairs of neighbours; after a merge the next pair is at the same place */
    for (int i = 2, pairs = 3; pairs > 0; --pairs) {
        if (walk_fits(w, i))
            walk_merge(w, i);
        else
            --i;
    }
}

static bool tensor_in_packs(const struct walk *w, int j)
{
    int64_t size = w->type[j] == F32 ? 4 : 2;
    bool fits = aligned16(w->data[j]);
    for (int d = 0; d < 3; ++d)
        fits = fits && w->stride[j][d] * size % 16 == 0;
    return fits && w->stride[j][3] == 1;
}

bool walk_in_packs(struct walk *w)
{
    bool fits = w->shape[3] > 1;
    for (int j = 0; j <= w->n; ++j) {
        bool splat = j < w->n && w->stride[j][3] == 0;
        fits = fits && (!w->data[j] || splat || tensor_in_packs(w, j));
    }
    w->packs = fits ? (w->shape[3] + PACK - 1) / PACK : w->shape[3];
    w->total = w->packs * w->shape[0] * w->shape[1] * w->shape[2];
    return fits;
}
