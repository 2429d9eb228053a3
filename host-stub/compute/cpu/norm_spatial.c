/* norm_spatial.c: a group norm modulated by a picture of its own (diffusers' SpatialNorm), and the
 * norms that plugins call. */
#include "cpu.h"

struct modulation {
    int64_t height, width, z_height, z_width, channels;
    float *n;              /* [B, height, width, channels] */
    const float *by, *add; /* [B, z_height, z_width, channels] */
};

/* Convolutions of one pixel and nearest enlargement commute: zq stays small. */
static void modulate_lines(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct modulation *m = arg;
    (void)thread;
    for (int64_t line = begin; line < end; ++line) {
        int64_t batch = line / m->height;
        int64_t zy = nearest_index(line % m->height, m->z_height, m->height);
        for (int64_t x = 0; x < m->width; ++x) {
            int64_t zx = nearest_index(x, m->z_width, m->width);
            int64_t z = ((batch * m->z_height + zy) * m->z_width + zx) * m->channels;
            float *n = m->n + (line * m->width + x) * m->channels;
            for (int64_t c = 0; c < m->channels; ++c)
                n[c] = n[c] * m->by[z + c] + m->add[z + c];
        }
    }
}

static attn_status spatial(attn_work *w, const attn_norm *norm, const attn_tensor *x,
                           const attn_tensor *zq, const attn_tensor *y)
{
    attn_tensor in = tensor_channels_last(x), out = tensor_channels_last(y),
                z = tensor_channels_last(zq);
    attn_norm plain = *norm;
    plain.kind = ATTN_NORM_GROUP;
    attn_tensor n = work_take(w, NULL, 4, in.shape);
    const int64_t z_shape[] = {z.shape[0], z.shape[1], z.shape[2], in.shape[3]};
    attn_tensor by = work_take(w, NULL, 4, z_shape), add = work_take(w, NULL, 4, z_shape);
    cpu_norm(w, &plain, ACT_NONE, &in, NULL, NULL, NULL, NULL, &n);
    cpu_linear(w, 1.0f, &z, &norm->conv_y, 0.0f, NULL, &by);
    cpu_linear(w, 1.0f, &z, &norm->conv_b, 0.0f, NULL, &add);
    if (w->status == ATTN_OK && !work_dry(w)) {
        struct modulation m = {.height = in.shape[1],
                               .width = in.shape[2],
                               .z_height = z.shape[1],
                               .z_width = z.shape[2],
                               .channels = in.shape[3],
                               .n = n.data,
                               .by = by.data,
                               .add = add.data};
        parallel(cpu_of(w), in.shape[0] * m.height, 1, modulate_lines, &m);
    }
    return cpu_copy(w, &n, &out);
}

attn_status cpu_plugin_norm(attn_work *w, const attn_norm *norm, const attn_tensor *x,
                            const attn_tensor *zq, const attn_tensor *y)
{
    if (w->status != ATTN_OK || norm->kind != ATTN_NORM_SPATIAL)
        return w->status != ATTN_OK ? w->status
                                    : cpu_norm(w, norm, ACT_NONE, x, NULL, NULL, NULL, NULL, y);
    if (check_spatial(w, x, zq, y) != ATTN_OK)
        return w->status;
    uint64_t mark = work_mark(w);
    spatial(w, norm, x, zq, y);
    work_reset(w, mark);
    return w->status;
}
