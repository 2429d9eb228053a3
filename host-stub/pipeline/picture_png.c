/* picture_png.c: PNG files by libpng, every colour type and depth. */
#include "picture_read.h"

#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

struct source {
    const uint8_t *at;
    size_t left;
};

struct reading {
    const char *name;
    struct source source;
    struct picture *out;
    attn_error *err;
    attn_status status; /* of what is not libpng's to say */
    int depth;          /* the file's, of one sample */
    char message[128];
    uint8_t *samples; /* as the file has them, at least a byte each */
    png_bytep *rows;
};

static void message_keep(png_structp png, png_const_charp text)
{
    struct reading *r = png_get_error_ptr(png);
    (void)snprintf(r->message, sizeof r->message, "%s", text);
    png_longjmp(png, 1);
}

static void warning_drop(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static void bytes_give(png_structp png, png_bytep to, size_t n)
{
    struct source *s = png_get_io_ptr(png);
    if (n > s->left) {
        png_error(png, "the file ends too early");
    }
    memcpy(to, s->at, n);
    s->at += n;
    s->left -= n;
}

/* -- samples to pixels ------------------------------------------------------------------------- */

/* Samples of one or two bytes; of 16 bits the upper half. */
static void colours_convert(const uint8_t *in, uint8_t *out, size_t width, size_t channels,
                            size_t bytes)
{
    const size_t green = channels < 3 ? 0 : bytes;
    for (size_t x = 0; x < width; x++, in += channels * bytes, out += 3) {
        out[0] = in[0];
        out[1] = in[green];
        out[2] = in[2 * green];
    }
}

static void greys_convert(const uint8_t *in, uint8_t *out, size_t width, int depth)
{
    for (size_t x = 0; x < width; x++, out += 3) {
        const unsigned wide = depth == 16 ? 256u * in[2 * x] + in[2 * x + 1] : 0;
        const unsigned grey = depth == 16  ? (wide > 255 ? 255 : wide)
                              : depth == 8 ? in[x]
                                           : in[x] * 255u / ((1u << depth) - 1);
        memset(out, (int)grey, 3);
    }
}

/* An index past the palette's end is black, as in Pillow. */
static void palette_convert(const uint8_t *in, uint8_t *out, size_t width, const png_color *palette,
                            int n)
{
    for (size_t x = 0; x < width; x++, out += 3) {
        const png_color black = {0, 0, 0};
        const png_color c = in[x] < n ? palette[in[x]] : black;
        out[0] = c.red;
        out[1] = c.green;
        out[2] = c.blue;
    }
}

static void rows_convert(png_structp png, png_infop info, const struct reading *r)
{
    const int depth = r->depth;
    const int type = png_get_color_type(png, info);
    const size_t width = r->out->width;
    png_colorp palette = NULL;
    int n = 0;
    (void)png_get_PLTE(png, info, &palette, &n);
    for (size_t y = 0; y < r->out->height; y++) {
        uint8_t *out = r->out->pixels + 3 * width * y;
        if (type == PNG_COLOR_TYPE_PALETTE) {
            palette_convert(r->rows[y], out, width, palette, n);
        } else if (type == PNG_COLOR_TYPE_GRAY) {
            greys_convert(r->rows[y], out, width, depth);
        } else {
            colours_convert(r->rows[y], out, width, png_get_channels(png, info),
                            depth == 16 ? 2 : 1);
        }
    }
}

/* -- reading ----------------------------------------------------------------------------------- */

static attn_status rows_take(struct reading *r, size_t row_bytes)
{
    const size_t height = r->out->height;
    r->samples = calloc(height, row_bytes);
    r->rows = calloc(height, sizeof *r->rows);
    if (!r->samples || !r->rows) {
        return attn_fail(r->err, ATTN_NOMEM, "%s: no memory for its samples", r->name);
    }
    for (size_t y = 0; y < height; y++) {
        r->rows[y] = r->samples + y * row_bytes;
    }
    return ATTN_OK;
}

/* Apart from the function that owns things: a longjmp lands here, where nothing is to be freed. */
static int decode(png_structp png, png_infop info, struct reading *r)
{
    if (setjmp(png_jmpbuf(png))) {
        return -1;
    }
    png_set_read_fn(png, &r->source, bytes_give);
    png_read_info(png, info);
    r->status = picture_take(r->name, png_get_image_height(png, info),
                             png_get_image_width(png, info), r->out, r->err);
    if (r->status) {
        return 0;
    }
    r->depth = png_get_bit_depth(png, info);
    png_set_packing(png);
    (void)png_set_interlace_handling(png);
    png_read_update_info(png, info);
    r->status = rows_take(r, png_get_rowbytes(png, info));
    if (r->status) {
        return 0;
    }
    png_read_image(png, r->rows);
    png_read_end(png, NULL);
    return 0;
}

attn_status png_decode(const uint8_t *bytes, size_t n, const char *name, struct picture *out,
                       attn_error *err)
{
    struct reading r = {
        .name = name, .source = {bytes, n}, .out = out, .err = err, .message = "out of memory"};
    png_infop info = NULL;
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &r, message_keep, warning_drop);
    int wrong = -1;
    if (png && (info = png_create_info_struct(png))) {
        wrong = decode(png, info, &r);
    }
    if (!wrong && !r.status) {
        rows_convert(png, info, &r);
    }
    png_destroy_read_struct(&png, &info, NULL);
    free(r.samples);
    free(r.rows);
    return wrong ? attn_fail(err, ATTN_INVALID, "%s: cannot read the PNG: %s", name, r.message)
                 : r.status;
}
