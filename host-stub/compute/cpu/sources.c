/* sources.c: what enters a model or changes its size: embeddings, timesteps, enlargement. */
#include "cpu.h"

#include <math.h>

/* -- nearest enlargement ----------------------------------------------------------------------- */

struct upsample {
    attn_tensor x;
    struct rows y;
    int64_t out_height, out_width;
};

static void upsample_lines(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct upsample *u = arg;
    const attn_tensor *x = &u->x;
    (void)thread;
    for (int64_t line = begin; line < end; ++line) {
        const float *in =
            (const float *)x->data + line / u->out_height * x->stride[0] +
            nearest_index(line % u->out_height, x->shape[1], u->out_height) * x->stride[1];
        for (int64_t i = 0; i < u->out_width; ++i)
            memcpy(rows_at(&u->y, line * u->out_width + i),
                   in + nearest_index(i, x->shape[2], u->out_width) * x->stride[2],
                   (size_t)x->shape[3] * sizeof(float));
    }
}

attn_status cpu_upsample(attn_work *w, const attn_tensor *x, const attn_tensor *y)
{
    if (check_upsample(w, x, y) != ATTN_OK)
        return w->status;
    uint64_t mark = work_mark(w);
    attn_tensor in = rows_input(w, x), out = rows_output(w, y);
    if (w->status == ATTN_OK && !work_dry(w)) {
        struct upsample u = {
            .x = in, .y = rows_of(&out), .out_height = y->shape[1], .out_width = y->shape[2]};
        int64_t line = y->shape[2] * y->shape[3];
        parallel(cpu_of(w), y->shape[0] * y->shape[1], 1 + 16384 / (line ? line : 1),
                 upsample_lines, &u);
    }
    rows_finish(w, &out, y);
    work_reset(w, mark);
    return w->status;
}

/* -- embeddings -------------------------------------------------------------------------------- */

static attn_status embed_rows(attn_work *w, const attn_tensor *ids, const attn_tensor *table,
                              const attn_tensor *positions, const attn_tensor *out)
{
    const struct kernels *k = cpu_of(w)->kernels;
    const int64_t n = ids->shape[1], width = tensor_last(out);
    struct rows y = rows_of(out);
    int64_t buffer_shape[] = {width};
    float *position = work_take(w, NULL, 1, buffer_shape).data;
    if (work_dry(w) || w->status != ATTN_OK)
        return w->status;
    for (int64_t row = 0; row < y.count; ++row) {
        const int32_t *id =
            (const int32_t *)ids->data + row / n * ids->stride[0] + row % n * ids->stride[1];
        if (*id < 0 || *id >= table->shape[0])
            return work_fail(w, ATTN_INVALID, "embed: id %d: expected 0 to %lld", *id,
                             (long long)table->shape[0] - 1);
        float *to = rows_at(&y, row);
        const char *from = (const char *)table->data;
        rows_load(k, table, from + *id * table->stride[0] * (table->bits / 8), table->stride[1],
                  width, to);
        if (!tensor_here(positions))
            continue;
        from = (const char *)positions->data;
        rows_load(k, positions, from + row % n * positions->stride[0] * (positions->bits / 8),
                  positions->stride[1], width, position);
        k->combine(width, 1.0f, to, 1.0f, position, to);
    }
    return ATTN_OK;
}

attn_status cpu_embed(attn_work *w, const attn_tensor *ids, const attn_tensor *table,
                      const attn_tensor *positions, const attn_tensor *y)
{
    if (check_embed(w, ids, table, positions, y) != ATTN_OK)
        return w->status;
    uint64_t mark = work_mark(w);
    attn_tensor out = rows_output(w, y);
    if (embed_rows(w, ids, table, positions, &out) == ATTN_OK)
        rows_finish(w, &out, y);
    work_reset(w, mark);
    return w->status;
}

/* -- timesteps --------------------------------------------------------------------------------- */

/* Rounded to fp32 at each step, where torch rounds: the arguments of the sines reach 1000, and a
 * more exact frequency would be a different angle. */
static void sinusoids(float t, int64_t dim, bool flip, float freq_shift, float *y)
{
    const int64_t half = dim / 2;
    const float log_period = -9.210340371976184f;
    for (int64_t i = 0; i < half; ++i) {
        float exponent = log_period * (float)i / ((float)half - freq_shift);
        float angle = t * expf(exponent);
        y[flip ? half + i : i] = sinf(angle);
        y[flip ? i : half + i] = cosf(angle);
    }
    if (dim % 2)
        y[dim - 1] = 0.0f;
}

attn_status cpu_timestep(attn_work *w, const attn_tensor *t, int32_t flip_sin_to_cos,
                         float freq_shift, const attn_tensor *y)
{
    if (check_timestep(w, t, y) != ATTN_OK)
        return w->status;
    uint64_t mark = work_mark(w);
    attn_tensor out = rows_output(w, y);
    struct rows rows = rows_of(&out);
    for (int64_t i = 0; i < rows.count && !work_dry(w) && w->status == ATTN_OK; ++i)
        sinusoids(((const float *)t->data)[i * t->stride[0]], rows.length, flip_sin_to_cos != 0,
                  freq_shift, rows_at(&rows, i));
    rows_finish(w, &out, y);
    work_reset(w, mark);
    return w->status;
}
