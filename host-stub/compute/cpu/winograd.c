/* winograd.c: F(2 x 2, 3 x 3): four pixels of y from sixteen of x with 16 multiplications in place
 * of 36 (Lavin and Gray 2016, Fast Algorithms for Convolutional Neural Networks):
 *
 *   y = A' [(G w G') . (B' x B)] A
 *
 * The products over channels are 16 small matrix products, done by the tiles of gemm.c's kernels.
 * A task takes a block of tiles: transforms their pixels into scratch that stays in the second
 * cache, then for one panel of weights after the other multiplies and transforms back.  The weights
 * are 16/9 as large, so large ones stay with the direct way.
 */
#include "winograd.h"
#include "pack.h"

#include <stdlib.h>

#define POSITIONS   16
#define TILES       48           /* of a block, at most: four tiles of the kernels */
#define BLOCK_BYTES (768u << 10) /* transformed pixels of a block, about */
#define EXTRA_BYTES (UINT64_C(16) << 20)

struct job {
    const struct gemm *g;
    float *scratch;
    int64_t scratch_floats; /* of one thread */
    int64_t channels, width, panels;
    int64_t across, down, tiles; /* tiles of a line, of a picture, of all */
    int64_t block, blocks;       /* tiles of a task */
    int64_t panel_block;         /* panels of a task */
};

bool winograd_pays(int64_t in_channels, int64_t out_channels)
{
    uint64_t extra = (uint64_t)(in_channels * out_channels) * (16 - 9) * sizeof(float);
    return in_channels >= 16 && out_channels >= 16 && extra <= EXTRA_BYTES;
}

/* G g G' of one filter. */
static void transform_filter(const float *g, double u[POSITIONS])
{
    double t[4][3];
    for (int j = 0; j < 3; ++j) {
        double a = g[j], b = g[3 + j], c = g[6 + j];
        t[0][j] = a;
        t[1][j] = 0.5 * (a + b + c);
        t[2][j] = 0.5 * (a - b + c);
        t[3][j] = c;
    }
    for (int i = 0; i < 4; ++i) {
        u[4 * i] = t[i][0];
        u[4 * i + 1] = 0.5 * (t[i][0] + t[i][1] + t[i][2]);
        u[4 * i + 2] = 0.5 * (t[i][0] - t[i][1] + t[i][2]);
        u[4 * i + 3] = t[i][2];
    }
}

struct filters {
    const struct cpu *cpu;
    const attn_tensor *weight;
    float *u; /* [16][out][in] */
};

static void transform_filters(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct filters *f = arg;
    const attn_tensor *w = f->weight;
    const int64_t in = w->shape[1], all = w->shape[0] * in;
    (void)thread;
    for (int64_t o = begin; o < end; ++o) {
        for (int64_t i = 0; i < in; ++i) {
            float g[9];
            double u[POSITIONS];
            for (int64_t line = 0; line < 3; ++line) {
                int64_t at = o * w->stride[0] + i * w->stride[1] + line * w->stride[2];
                rows_load(f->cpu->kernels, w, (const char *)w->data + at * (w->bits / 8),
                          w->stride[3], 3, g + 3 * line);
            }
            transform_filter(g, u);
            for (int p = 0; p < POSITIONS; ++p)
                f->u[p * all + o * in + i] = (float)u[p];
        }
    }
}

float *winograd_pack(const struct cpu *c, const attn_tensor *weight)
{
    const int64_t out = weight->shape[0], in = weight->shape[1];
    struct pack_source sources[POSITIONS];
    struct pack_shape shape = {.columns = out, .n_sources = POSITIONS, .sources = sources};
    struct filters f = {.cpu = c, .weight = weight};
    f.u = malloc((size_t)(POSITIONS * out * in) * sizeof(float));
    if (!f.u)
        return NULL;
    parallel(c, out, 4, transform_filters, &f);
    for (int p = 0; p < POSITIONS; ++p)
        sources[p] = (struct pack_source){.type = c->base.dtype,
                                          .data = f.u + p * out * in,
                                          .column_stride = in,
                                          .depth_stride = 1,
                                          .depth = in};
    size_t bytes = pack_floats(c->kernels, &shape) * sizeof(float);
    float *panels = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    if (panels)
        pack_panels(c, &shape, panels);
    free(f.u);
    return panels;
}

/* -- run -----------------------------------------------------------------------------------------
 */

/* Tiles of a block: whole rounds of the kernels' tiles, within the cache. */
static int64_t block_tiles(const struct cpu *c, int64_t channels)
{
    int64_t rows = c->kernels->tile_rows;
    int64_t fit = (int64_t)BLOCK_BYTES / (POSITIONS * channels * (int64_t)sizeof(float));
    fit = fit > TILES ? TILES : fit;
    return fit < rows ? rows : fit / rows * rows;
}

/* Of one thread: transformed pixels [16][block][channels], sums [16][block][width]. */
static int64_t thread_floats(const struct cpu *c, int64_t channels)
{
    int64_t block = block_tiles(c, channels);
    return POSITIONS * block * (channels + 2 * c->kernels->lanes);
}

uint64_t winograd_scratch(const struct cpu *c, int64_t in_channels)
{
    return (uint64_t)thread_floats(c, in_channels) * c->base.host.max_threads * sizeof(float);
}

/* Where tile t begins: its picture, and its first pixel of y. */
static void tile_place(const struct job *j, int64_t t, int64_t *batch, int64_t *y, int64_t *x)
{
    *x = t % j->across * 2;
    *y = t / j->across % j->down * 2;
    *batch = t / j->across / j->down;
}

static void transform_tiles(const struct job *j, int64_t first, int64_t n, float *v)
{
    const struct gemm *g = j->g;
    const struct window *w = g->window;
    const int64_t stride = n * j->channels;
    for (int64_t t = 0; t < n; ++t) {
        int64_t batch, y, x, at = 0;
        tile_place(j, first + t, &batch, &y, &x);
        for (int32_t part = 0; part < g->parts; at += g->depth[part++]) {
            const float *pixel[POSITIONS];
            for (int p = 0; p < POSITIONS; ++p) {
                int64_t iy = y + p / 4 - w->pad, ix = x + p % 4 - w->pad;
                bool inside = iy >= 0 && iy < w->in_height && ix >= 0 && ix < w->in_width;
                pixel[p] = inside ? g->x[part] + batch * w->batch_stride[part] +
                                        iy * w->row_stride[part] + ix * w->pixel_stride[part]
                                  : g->zeros;
            }
            g->cpu->kernels->winograd_input(g->depth[part], pixel, v + t * j->channels + at,
                                            stride);
        }
    }
}

/* sums[p][t] = v[p][t] times position p's weights of one panel. */
static void multiply(const struct job *j, const float *v, int64_t n, const float *panel,
                     int32_t vectors, float *sums)
{
    const struct kernels *k = j->g->cpu->kernels;
    static const float zero_bias[PANEL_MAX];
    const float *x[TILE_ROWS_MAX];
    float *y[TILE_ROWS_MAX];
    const int64_t width = vectors * k->lanes;
    struct tile tile = {.x = x,
                        .segments = 1,
                        .parts = 1,
                        .depth = {(int32_t)j->channels},
                        .vectors = vectors,
                        .columns = (int32_t)width,
                        .alpha = 1.0f,
                        .bias = zero_bias,
                        .y = y};
    for (int p = 0; p < POSITIONS; ++p) {
        tile.panel = panel + p * j->channels * width;
        int64_t rounds = (n + k->tile_rows - 1) / k->tile_rows;
        for (int64_t t = 0; t < n; t += tile.rows, --rounds) {
            tile.rows = (int32_t)((n - t + rounds - 1) / rounds);
            for (int32_t r = 0; r < tile.rows; ++r) {
                x[r] = v + (p * n + t + r) * j->channels;
                y[r] = sums + (p * n + t + r) * width;
            }
            k->tile(&tile);
        }
    }
}

static void transform_back(const struct job *j, int64_t first, int64_t n, int64_t column,
                           int64_t width, const float *sums)
{
    const struct gemm *g = j->g;
    const struct window *w = g->window;
    float *to[4];
    const float *c[4];
    struct winograd_output o = {.stride = n * width,
                                .columns =
                                    g->columns - column < width ? g->columns - column : width,
                                .bias = g->bias + column,
                                .activation = g->activation,
                                .c = g->c.data ? c : NULL,
                                .y = to};
    for (int64_t t = 0; t < n; ++t) {
        int64_t batch, y, x;
        tile_place(j, first + t, &batch, &y, &x);
        for (int p = 0; p < 4; ++p) {
            int64_t oy = y + p / 2, ox = x + p % 2;
            bool inside = oy < w->out_height && ox < w->out_width;
            int64_t row = (batch * w->out_height + oy) * w->out_width + ox;
            to[p] = inside ? (float *)rows_at(&g->y, row) + column : NULL;
            c[p] = inside && g->c.data ? (const float *)rows_at(&g->c, row) + column : NULL;
        }
        o.sums = sums + t * width;
        g->cpu->kernels->winograd_output(&o);
    }
}

static void run_tasks(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct job *j = arg;
    const int64_t lanes = j->g->cpu->kernels->lanes;
    const int64_t padded = gemm_padded(j->g->cpu->kernels, j->g->columns, false);
    float *v = j->scratch + thread * j->scratch_floats;
    float *sums = v + POSITIONS * j->block * j->channels;
    int64_t transformed = -1;
    for (int64_t task = begin; task < end; ++task) {
        int64_t block = task % j->blocks, first = block * j->block;
        int64_t n = j->tiles - first < j->block ? j->tiles - first : j->block;
        int64_t panel = task / j->blocks * j->panel_block, last = panel + j->panel_block;
        if (transformed != block)
            transform_tiles(j, first, n, v);
        transformed = block;
        for (; panel < j->panels && panel < last; ++panel) {
            int64_t column = panel * j->width, left = padded - column;
            int32_t vectors = left >= j->width ? 2 : 1;
            multiply(j, v, n, j->g->panels + column * POSITIONS * j->channels, vectors, sums);
            transform_back(j, first, n, column, vectors * lanes, sums);
        }
    }
}

void winograd_run(const struct gemm *g, float *scratch)
{
    const struct cpu *c = g->cpu;
    const struct window *w = g->window;
    struct job j = {.g = g,
                    .scratch = scratch,
                    .channels = g->depth[0] + (g->parts == 2 ? g->depth[1] : 0),
                    .width = 2 * c->kernels->lanes,
                    .across = (w->out_width + 1) / 2,
                    .down = (w->out_height + 1) / 2};
    if (!g->rows)
        return;
    j.scratch_floats = thread_floats(c, j.channels);
    j.panels = (gemm_padded(c->kernels, g->columns, false) + j.width - 1) / j.width;
    j.tiles = g->rows / (w->out_height * w->out_width) * j.down * j.across;
    j.block = block_tiles(c, j.channels);
    j.blocks = (j.tiles + j.block - 1) / j.block;
    /* Equal blocks; where there are few, threads share the panels too. */
    j.block = (j.tiles + j.blocks - 1) / j.blocks;
    j.blocks = (j.tiles + j.block - 1) / j.block;
    int64_t wanted = 3 * (int64_t)c->base.host.max_threads;
    int64_t panel_blocks = (wanted + j.blocks - 1) / j.blocks;
    panel_blocks = panel_blocks > j.panels ? j.panels : panel_blocks;
    j.panel_block = (j.panels + panel_blocks - 1) / panel_blocks;
    panel_blocks = (j.panels + j.panel_block - 1) / j.panel_block;
    parallel(c, j.blocks * panel_blocks, 1, run_tasks, &j);
}
