#include "vae_tiles.h"

#include "forward.h"

#include <stdlib.h>
#include <string.h>

/* Sides in latents and in pixels. */
struct tiling {
    attn_work *work;
    struct vae *vae;
    int64_t h, w, channels, factor;
    int64_t tile, step; /* latents: of a tile's side, from one tile to the next */
    int64_t fade, kept; /* pixels: that are faded, that a tile keeps */
    const float *latents;
    float *pixels;
};

static struct tiling tiling_of(attn_work *w, struct vae *v, int64_t h, int64_t width)
{
    struct tiling t = {.work = w,
                       .vae = v,
                       .h = h,
                       .w = width,
                       .channels = vae_latent_channels(v),
                       .factor = vae_factor(v)};
    t.tile = vae_sample_size(v) / t.factor;
    t.tile = t.tile > 0 ? t.tile : 1;
    t.step = t.tile * 3 / 4 > 0 ? t.tile * 3 / 4 : 1;
    t.fade = t.factor * (t.tile - t.step);
    t.kept = t.factor * t.step;
    return t;
}

int32_t vae_tiles_help(const struct vae *v, int64_t h, int64_t w)
{
    const int64_t tile = vae_sample_size(v) / vae_factor(v);
    return h > tile || w > tile;
}

static int64_t side_at(const struct tiling *t, int64_t at, int64_t whole)
{
    return whole - at < t->tile ? whole - at : t->tile;
}

/* A decoded tile: `out` host [factor rows, factor columns, 3]. */
static attn_status tile_decode(const struct tiling *t, int64_t y, int64_t x, float *out)
{
    attn_work *w = t->work;
    const int64_t rows = side_at(t, y, t->h), columns = side_at(t, x, t->w);
    const int64_t from[4] = {1, rows, columns, t->channels};
    const int64_t to[4] = {1, t->factor * rows, t->factor * columns, 3};
    const uint64_t mark = work_mark(w);
    const size_t line = (size_t)(columns * t->channels);
    float *packed = NULL;
    if (!work_dry(w)) {
        packed = malloc((size_t)rows * line * sizeof *packed);
        if (!packed) {
            return work_fail(w, ATTN_NOMEM, "no memory for a tile's latents");
        }
        for (int64_t i = 0; i < rows; i++) {
            memcpy(packed + (size_t)i * line, t->latents + ((y + i) * t->w + x) * t->channels,
                   line * sizeof *packed);
        }
    }
    const attn_tensor host_in = host_f32(packed, 4, from);
    const attn_tensor host_out = host_f32(out, 4, to);
    const attn_tensor latents = work_take(w, NULL, 4, from);
    const attn_tensor picture = work_take(w, NULL, 4, to);
    work_api(w)->write(w, &host_in, &latents);
    vae_decode(w, t->vae, &latents, &picture);
    work_api(w)->read(w, &picture, &host_out);
    work_api(w)->synchronize(w);
    work_reset(w, mark);
    free(packed);
    return w->status;
}

/* Fades the end of `before` into the beginning of `tile` along one side; lines of `n` floats that
 * lie `line` apart in each, steps along the side `a` and `b` apart. */
static void tile_fade(const float *before, float *tile, int64_t extent, int64_t lines, int64_t a,
                      int64_t b, int64_t a_line, int64_t b_line)
{
    for (int64_t i = 0; i < extent; i++) {
        const float into = (float)i / (float)extent;
        for (int64_t l = 0; l < lines; l++) {
            for (int64_t c = 0; c < 3; c++) {
                float *p = tile + i * b + l * b_line + c;
                *p = before[i * a + l * a_line + c] * (1 - into) + *p * into;
            }
        }
    }
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* One row of tiles; `above` is the row before it, or NULL. */
static attn_status row_decode(const struct tiling *t, int64_t y, float *const *above, float **row)
{
    const int64_t height = t->factor * side_at(t, y, t->h);
    int64_t n = 0;
    for (int64_t x = 0; x < t->w; x += t->step, n++) {
        const int64_t width = t->factor * side_at(t, x, t->w);
        if (tile_decode(t, y, x, row[n]) != ATTN_OK) {
            return t->work->status;
        }
        if (above) {
            const int64_t high = t->factor * side_at(t, y - t->step, t->h);
            const int64_t extent = least(least(high, height), t->fade);
            tile_fade(above[n] + (high - extent) * width * 3, row[n], extent, width, width * 3,
                      width * 3, 3, 3);
        }
        if (n) {
            const int64_t wide = t->factor * side_at(t, x - t->step, t->w);
            const int64_t extent = least(least(wide, width), t->fade);
            tile_fade(row[n - 1] + (wide - extent) * 3, row[n], extent, height, 3, 3, wide * 3,
                      width * 3);
        }
    }
    return t->work->status;
}

static void row_keep(const struct tiling *t, int64_t y, float *const *row)
{
    const int64_t rows = least(t->factor * side_at(t, y, t->h), t->kept);
    const int64_t top = y / t->step * t->kept, whole = t->factor * t->w;
    int64_t n = 0;
    for (int64_t x = 0; x < t->w; x += t->step, n++) {
        const int64_t width = t->factor * side_at(t, x, t->w), left = n * t->kept;
        const int64_t columns = least(least(width, t->kept), whole - left);
        for (int64_t i = 0; i < rows && top + i < t->factor * t->h && columns > 0; i++) {
            memcpy(t->pixels + ((top + i) * whole + left) * 3, row[n] + i * width * 3,
                   (size_t)columns * 3 * sizeof(float));
        }
    }
}

static attn_status plan(const struct tiling *t)
{
    for (int64_t y = 0; y < t->h; y += t->step) {
        for (int64_t x = 0; x < t->w; x += t->step) {
            tile_decode(t, y, x, NULL);
        }
    }
    return t->work->status;
}

attn_status vae_decode_tiles(attn_work *w, struct vae *v, int64_t h, int64_t width,
                             const float *latents, float *pixels)
{
    struct tiling t = tiling_of(w, v, h, width);
    t.latents = latents;
    t.pixels = pixels;
    if (work_dry(w)) {
        return plan(&t);
    }
    const int64_t n = (width + t.step - 1) / t.step, side = t.factor * t.tile;
    const size_t each = (size_t)(side * side * 3);
    float *memory = malloc(2 * (size_t)n * each * sizeof *memory);
    float **rows = malloc(2 * (size_t)n * sizeof *rows);
    if (memory && rows) {
        for (int64_t i = 0; i < 2 * n; i++) {
            rows[i] = memory + (size_t)i * each;
        }
        for (int64_t y = 0, i = 0; y < h && w->status == ATTN_OK; y += t.step, i++) {
            float **row = rows + (i & 1) * n, **above = i ? rows + (~i & 1) * n : NULL;
            if (row_decode(&t, y, above, row) == ATTN_OK) {
                row_keep(&t, y, row);
            }
        }
    } else {
        work_fail(w, ATTN_NOMEM, "no memory for two rows of tiles");
    }
    free(rows);
    free(memory);
    return w->status;
}
