/* gemm.c: cuts a matrix product into tiles and hands them to the threads.
 *
 * A task is a block of rows times a block of panels that stays in the second cache.  Within a task
 * the tile's rows of x stay in the first cache while the panels go by.  Weights are read from
 * memory once per block of rows, x once per block of panels.
 */
#include "gemm.h"

#define SEGMENTS_MAX   (2 * 25) /* 5 x 5 taps of two parts */
#define PANEL_BYTES    (768u << 10)
#define TASKS_A_THREAD 4

struct blocks {
    const struct gemm *g;
    int64_t depth;       /* of the whole product */
    int64_t panels;      /* of the weights */
    int64_t panel_block; /* panels of a task */
    int64_t row_block;   /* rows of a task, whole tiles */
    int64_t row_blocks;
    int64_t width; /* of a full panel */
};

int64_t gemm_padded(const struct kernels *k, int64_t columns, bool gated)
{
    int64_t vectors = (columns + k->lanes - 1) / k->lanes;
    return vectors * k->lanes * (gated ? 2 : 1);
}

static void point_linear(const struct gemm *g, int64_t row, int32_t n, const float **x)
{
    for (int32_t p = 0; p < g->parts; ++p) {
        for (int32_t r = 0; r < n; ++r)
            x[p * TILE_ROWS_MAX + r] = rows_at(&g->x_rows[p], row + r);
    }
}

static void point_pixel(const struct gemm *g, int64_t batch, int64_t oy, int64_t ox, int32_t r,
                        const float **x)
{
    const struct window *w = g->window;
    int32_t segment = 0;
    for (int64_t ky = 0; ky < w->kernel; ++ky) {
        int64_t iy = oy * w->stride + ky - w->pad;
        for (int64_t kx = 0; kx < w->kernel; ++kx) {
            int64_t ix = ox * w->stride + kx - w->pad;
            bool inside = iy >= 0 && iy < w->in_height && ix >= 0 && ix < w->in_width;
            for (int32_t p = 0; p < g->parts; ++p, ++segment) {
                x[segment * TILE_ROWS_MAX + r] = inside ? g->x[p] + batch * w->batch_stride[p] +
                                                              iy * w->row_stride[p] +
                                                              ix * w->pixel_stride[p]
                                                        : g->zeros;
            }
        }
    }
}

static void point_window(const struct gemm *g, int64_t row, int32_t n, const float **x)
{
    const struct window *w = g->window;
    int64_t ox = row % w->out_width, rest = row / w->out_width;
    int64_t oy = rest % w->out_height, batch = rest / w->out_height;
    for (int32_t r = 0; r < n; ++r) {
        point_pixel(g, batch, oy, ox, r, x);
        if (++ox < w->out_width)
            continue;
        ox = 0;
        if (++oy < w->out_height)
            continue;
        oy = 0;
        ++batch;
    }
}

/* One tile against the panels [from, to). */
static void tile_panels(const struct blocks *b, struct tile *t, int64_t from, int64_t to,
                        float *const *y, const float *const *c)
{
    const struct gemm *g = b->g;
    const int64_t lanes = g->cpu->kernels->lanes;
    const int64_t padded = gemm_padded(g->cpu->kernels, g->columns, g->gated);
    const int64_t columns_a_panel = g->gated ? lanes : b->width;
    float *y_here[TILE_ROWS_MAX];
    const float *c_here[TILE_ROWS_MAX];
    t->y = y_here;
    t->c = g->c.data ? c_here : NULL;
    for (int64_t panel = from; panel < to; ++panel) {
        int64_t left = padded - panel * b->width, column = panel * columns_a_panel;
        t->vectors = left >= b->width ? 2 : 1;
        t->panel = g->panels + panel * b->width * b->depth;
        t->bias = g->bias + panel * b->width;
        t->columns = (int32_t)(g->columns - column < columns_a_panel ? g->columns - column
                                                                     : columns_a_panel);
        for (int32_t r = 0; r < t->rows; ++r) {
            y_here[r] = y[r] + column;
            c_here[r] = g->c.data ? c[r] + column : NULL;
        }
        g->cpu->kernels->tile(t);
    }
}

static void run_block(const struct blocks *b, int64_t row, int64_t row_end, int64_t from,
                      int64_t to)
{
    const struct gemm *g = b->g;
    const float *x[SEGMENTS_MAX * TILE_ROWS_MAX];
    float *y[TILE_ROWS_MAX];
    const float *c[TILE_ROWS_MAX];
    const int64_t full = g->cpu->kernels->tile_rows;
    struct tile t = {.x = x,
                     .segments = g->taps * g->parts,
                     .parts = g->parts,
                     .depth = {(int32_t)g->depth[0], (int32_t)g->depth[1]},
                     .gated = g->gated,
                     .activation = g->activation,
                     .alpha = g->alpha,
                     .beta = g->beta};
    int64_t tiles = (row_end - row + full - 1) / full;
    for (; row < row_end; row += t.rows, --tiles) {
        /* Equal tiles: the last one must not be a sliver. */
        t.rows = (int32_t)((row_end - row + tiles - 1) / tiles);
        if (g->window)
            point_window(g, row, t.rows, x);
        else
            point_linear(g, row, t.rows, x);
        for (int32_t r = 0; r < t.rows; ++r) {
            y[r] = rows_at(&g->y, row + r);
            c[r] = g->c.data ? rows_at(&g->c, row + r) : NULL;
        }
        tile_panels(b, &t, from, to, y, c);
    }
}

static void run_tasks(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct blocks *b = arg;
    (void)thread;
    for (int64_t task = begin; task < end; ++task) {
        int64_t row = task % b->row_blocks * b->row_block;
        int64_t panel = task / b->row_blocks * b->panel_block;
        int64_t row_end = row + b->row_block, panel_end = panel + b->panel_block;
        run_block(b, row, row_end < b->g->rows ? row_end : b->g->rows, panel,
                  panel_end < b->panels ? panel_end : b->panels);
    }
}

void gemm_run(const struct gemm *g)
{
    const struct kernels *k = g->cpu->kernels;
    struct blocks b = {.g = g, .width = 2 * k->lanes};
    if (!g->rows || !g->columns)
        return;
    b.depth = g->taps * (g->depth[0] + (g->parts == 2 ? g->depth[1] : 0));
    int64_t padded = gemm_padded(k, g->columns, g->gated);
    b.panels = (padded + b.width - 1) / b.width;
    int64_t panel_bytes = b.depth * b.width * (int64_t)sizeof(float);
    b.panel_block = panel_bytes ? (int64_t)PANEL_BYTES / panel_bytes : b.panels;
    if (b.panel_block < 1)
        b.panel_block = 1;
    if (b.panel_block > b.panels)
        b.panel_block = b.panels;
    int64_t panel_blocks = (b.panels + b.panel_block - 1) / b.panel_block;
    b.panel_block = (b.panels + panel_blocks - 1) / panel_blocks;
    int64_t tiles = (g->rows + k->tile_rows - 1) / k->tile_rows;
    int64_t wanted = TASKS_A_THREAD * (int64_t)g->cpu->base.host.max_threads;
    int64_t row_blocks = (wanted + panel_blocks - 1) / panel_blocks;
    if (row_blocks > tiles)
        row_blocks = tiles;
    int64_t tiles_a_block = (tiles + row_blocks - 1) / row_blocks;
    b.row_block = tiles_a_block * k->tile_rows;
    b.row_blocks = (g->rows + b.row_block - 1) / b.row_block;
    parallel(g->cpu, b.row_blocks * panel_blocks, 1, run_tasks, &b);
}
