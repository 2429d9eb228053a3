/* conv_winograd.c: 3 x 3 convolutions by Winograd's algorithm, as oneDNN has it: less than half the
 * time of its direct ones, for weights of four times the size.
 *
 * It reads and writes blocks of channels.  Pictures stay channels-last: a band of rows at a time is
 * laid out in blocks, convolved, and brought back, small enough to be still in a cache at each of
 * the three.  What else is to be done to the numbers happens on these two ways: enlargement, or a
 * norm and its activation, on the way in, the residual on the way out.
 */
#include "conv_weights.h"

/* Pixels of one call at most, where that is more than four rows; measured. */
#define CALL_PIXELS 4096
/* Laying weights out (25 to 50 ns each) is paid back by so many pixels, counted over all steps of
 * a picture; where a picture takes one run, not three a step, by more. */
#define WORTH_PIXELS  4096
#define SELDOM_PIXELS 16384
/* From so many pixels on whatever they weigh: below, reading large weights takes the time. */
#define LARGE_PIXELS  1024
#define SMALL_WEIGHTS (INT64_C(1) << 18) /* in x out */

struct bands {
    const struct cpu *cpu;
    const struct conv_call *call;
    struct onednn_conv shape; /* of one call */
    attn_tensor x[2], residual, y;
    int64_t height; /* of x, after it was enlarged */
    int64_t blocks_in, blocks_out;
    int64_t picture, row; /* where the band begins: rows of y */
    int64_t fresh;        /* rows of the band above this were stored before */
    float *in, *out;
};

static bool small_weights(const struct conv *conv)
{
    return conv->in_channels * conv->out_channels <= SMALL_WEIGHTS;
}

/* For y: convolutions of this file leave a picture its size.  Those of large weights take pictures
 * one by one: for other batches oneDNN may want the weights in another layout. */
static struct onednn_conv band_shape(const struct conv *conv, const attn_tensor *y)
{
    const int64_t height = y->shape[1], width = y->shape[2], pixels = height * width;
    const bool together = small_weights(conv) && y->shape[0] * pixels <= CALL_PIXELS;
    struct onednn_conv shape = conv_shape(conv, together ? y->shape[0] : 1, height, width);
    shape.winograd = true;
    if (pixels > CALL_PIXELS) {
        int64_t rows = CALL_PIXELS / width / 4 * 4;
        shape.out_height = rows < 4 ? 4 : rows;
        shape.halo = shape.out_height < height;
        if (!shape.halo)
            shape.out_height = height;
        shape.height = shape.out_height + (shape.halo ? 2 : 0);
    }
    return shape;
}

static bool pays(const attn_work *w, const struct conv *conv, int64_t pixels)
{
    if (conv->seldom ? pixels < SELDOM_PIXELS : pixels * pass_runs(work_pass(w)) < WORTH_PIXELS)
        return false;
    return pixels >= LARGE_PIXELS || small_weights(conv);
}

bool conv_is_winograd(attn_work *w, const struct conv *conv, const attn_tensor *y)
{
    const bool same =
        conv->kernel == 3 && conv->stride == 1 && conv->pad_low == 1 && conv->pad_high == 1;
    const int64_t pixels = y->rank == 4 ? y->shape[1] * y->shape[2] : 0;
    if (!same || conv->in_channels < CHANNEL_BLOCK || conv->out_channels < CHANNEL_BLOCK ||
        !conv_weights_stay(conv) || !y->shape[0] || !pays(w, conv, pixels))
        return false;
    const struct onednn_conv shape = band_shape(conv, y);
    return conv_plan(w, &shape) != NULL;
}

/* -- the way in -------------------------------------------------------------------------------- */

static const float *pixels_at(const attn_tensor *t, int64_t picture, int64_t row)
{
    return (const float *)t->data + picture * t->stride[0] + row * t->stride[1];
}

/* A block whose channels come from both inputs, some pixels at a time. */
static void block_of_two(const struct bands *b, const float *const *x, int64_t first, int64_t n,
                         const float *factor, const float *term, float *y)
{
    const struct folded_norm *norm = b->call->norm;
    const int64_t left = b->x[0].shape[3] - first, width = b->shape.width;
    float both[32 * CHANNEL_BLOCK];
    for (int64_t at = 0; at < width; at += 32) {
        const int64_t pixels = width - at < 32 ? width - at : 32;
        for (int64_t i = 0; i < pixels; ++i) {
            float *to = both + i * CHANNEL_BLOCK;
            memcpy(to, x[0] + (at + i) * b->x[0].stride[2] + first, (size_t)left * sizeof *to);
            memcpy(to + left, x[1] + (at + i) * b->x[1].stride[2], (size_t)(n - left) * sizeof *to);
        }
        b->cpu->kernels->block_in(norm ? norm->act : ACT_NONE, pixels, n, both, CHANNEL_BLOCK,
                                  factor, term, y + at * CHANNEL_BLOCK);
    }
}

/* Pixels of one block that lie at the end of a row, spread over all of it: from left to right, as
 * none is overwritten before it has been read. */
static void spread(float *row, int64_t from, int64_t width)
{
    const float *pixels = row + (width - from) * CHANNEL_BLOCK;
    for (int64_t i = 0; i < width; ++i)
        memmove(row + i * CHANNEL_BLOCK, pixels + nearest_index(i, from, width) * CHANNEL_BLOCK,
                CHANNEL_BLOCK * sizeof *row);
}

/* A block of one row: channels [first, first + n). */
static void block_of_row(const struct bands *b, const float *const *x, int64_t picture,
                         int64_t first, float *to)
{
    const struct folded_norm *norm = b->call->norm;
    const int64_t channels = b->shape.in, half = b->x[0].shape[3], left = channels - first;
    const int64_t n = left < CHANNEL_BLOCK ? left : CHANNEL_BLOCK;
    const int64_t width = b->x[0].shape[2], more = b->shape.width - width;
    const float *factor = norm ? norm->factor + picture * channels + first : NULL;
    const float *term = norm ? norm->term + picture * channels + first : NULL;
    if (x[1] && first < half && first + n > half) {
        block_of_two(b, x, first, n, factor, term, to);
        return;
    }
    const int part = x[1] && first >= half;
    b->cpu->kernels->block_in(norm ? norm->act : ACT_NONE, width, n,
                              x[part] + first - (part ? half : 0), b->x[part].stride[2], factor,
                              term, to + more * CHANNEL_BLOCK);
    if (more)
        spread(to, width, b->shape.width);
}

/* Row y_row of the band is row `row` of a picture, or padding. */
static void row_in(const struct bands *b, int64_t picture, int64_t row, int64_t y_row, float *to)
{
    const int64_t line = b->shape.width * CHANNEL_BLOCK, plane = b->shape.height * line;
    const bool outside = row < 0 || row >= b->height;
    const int64_t from = outside ? 0 : nearest_index(row, b->x[0].shape[1], b->height);
    const float *x[2] = {pixels_at(&b->x[0], picture, from),
                         b->call->x2 ? pixels_at(&b->x[1], picture, from) : NULL};
    to += y_row * line;
    for (int64_t first = 0; first < b->shape.in; first += CHANNEL_BLOCK, to += plane) {
        if (outside)
            memset(to, 0, (size_t)line * sizeof *to);
        else
            block_of_row(b, x, picture, first, to);
    }
}

static void rows_in(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct bands *b = arg;
    const int64_t above = b->shape.halo ? 1 : 0;
    (void)thread;
    for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t picture = unit / b->shape.height, row = unit % b->shape.height;
        float *to =
            b->in + picture * b->blocks_in * b->shape.height * b->shape.width * CHANNEL_BLOCK;
        row_in(b, b->picture + picture, b->row - above + row, row, to);
    }
}

/* -- the way out ------------------------------------------------------------------------------- */

static void rows_out(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct bands *b = arg;
    const struct onednn_conv *s = &b->shape;
    const int64_t rows = s->out_height - b->fresh;
    const int64_t plane = s->out_height * s->out_width * CHANNEL_BLOCK;
    (void)thread;
    for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t picture = unit / rows, row = b->fresh + unit % rows;
        const float *from =
            b->out + picture * b->blocks_out * plane + row * s->out_width * CHANNEL_BLOCK;
        float *y = (float *)(uintptr_t)pixels_at(&b->y, b->picture + picture, b->row + row);
        const float *add =
            b->call->residual ? pixels_at(&b->residual, b->picture + picture, b->row + row) : NULL;
        for (int64_t first = 0; first < s->out; first += CHANNEL_BLOCK, from += plane) {
            const int64_t n = s->out - first < CHANNEL_BLOCK ? s->out - first : CHANNEL_BLOCK;
            b->cpu->kernels->block_out(b->call->act, s->out_width, n, from,
                                       add ? add + first : NULL, b->residual.stride[2], y + first,
                                       b->y.stride[2]);
        }
    }
}

/* -- run --------------------------------------------------------------------------------------- */

static int64_t grain(int64_t width, int64_t channels)
{
    return 1 + 8192 / (width * channels);
}

static attn_status run_band(attn_work *w, struct bands *b)
{
    const struct onednn_conv *s = &b->shape;
    parallel(b->cpu, s->batch * s->height, grain(s->width, s->in), rows_in, b);
    if (conv_execute(w, b->call->conv, s, b->in, b->out) == ATTN_OK)
        parallel(b->cpu, s->batch * (s->out_height - b->fresh), grain(s->width, s->out), rows_out,
                 b);
    return w->status;
}

/* The last band of a picture ends where the picture does and may repeat rows of the one before. */
static attn_status run_bands(attn_work *w, struct bands *b)
{
    const int64_t pictures = b->y.shape[0], height = b->y.shape[1], rows = b->shape.out_height;
    for (b->picture = 0; b->picture < pictures; b->picture += b->shape.batch) {
        for (int64_t row = 0; row < height && w->status == ATTN_OK; row += rows) {
            b->row = row + rows > height ? height - rows : row;
            b->fresh = row - b->row;
            run_band(w, b);
        }
    }
    return w->status;
}

attn_status conv_winograd_run(attn_work *w, const struct conv_call *call)
{
    struct bands b = {.cpu = cpu_of(w), .call = call, .shape = band_shape(call->conv, call->y)};
    const struct onednn_conv *s = &b.shape;
    b.height = call->y->shape[1];
    b.blocks_in = (s->in + CHANNEL_BLOCK - 1) / CHANNEL_BLOCK;
    b.blocks_out = (s->out + CHANNEL_BLOCK - 1) / CHANNEL_BLOCK;
    b.x[0] = rows_input(w, call->x);
    if (call->x2)
        b.x[1] = rows_input(w, call->x2);
    if (call->residual)
        b.residual = rows_input(w, call->residual);
    b.y = rows_output(w, call->y);
    const int64_t in[] = {s->batch * b.blocks_in, s->height, s->width, CHANNEL_BLOCK};
    const int64_t out[] = {s->batch * b.blocks_out, s->out_height, s->out_width, CHANNEL_BLOCK};
    b.in = work_take(w, NULL, 4, in).data;
    b.out = work_take(w, NULL, 4, out).data;
    if (work_dry(w))
        return conv_execute(w, call->conv, s, NULL, NULL);
    if (w->status != ATTN_OK || run_bands(w, &b) != ATTN_OK)
        return w->status;
    return rows_finish(w, &b.y, call->y);
}
