/* picture_jpeg.c: JPEG files by libjpeg (libjpeg-turbo), where it was there at build time. */
#include "picture_read.h"

#if ATTNPLUG_JPEG
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

struct failing {
    struct jpeg_error_mgr manager; /* first: libjpeg hands it back as this */
    jmp_buf back;
    char message[JMSG_LENGTH_MAX];
};

struct reading {
    const char *name;
    const uint8_t *bytes;
    size_t n;
    struct picture *out;
    uint8_t *row; /* four samples a pixel: CMYK */
    attn_error *err;
    attn_status status; /* of what is not libjpeg's to say */
    struct failing failing;
};

static void message_keep(j_common_ptr jpeg)
{
    struct failing *f = (struct failing *)jpeg->err;
    f->manager.format_message(jpeg, f->message);
    longjmp(f->back, 1);
}

static void message_drop(j_common_ptr jpeg)
{
    (void)jpeg;
}

/* libjpeg would go on with grey where the file ends too early. */
static boolean bytes_end(j_decompress_ptr jpeg)
{
    ERREXIT(jpeg, JERR_INPUT_EOF);
    return FALSE;
}

/* Adobe's CMYK, which is inverted: the ink's absence. Pillow takes every CMYK file for that. */
static void cmyk_convert(const uint8_t *in, uint8_t *out, size_t width)
{
    for (size_t x = 0; x < width; x++, in += 4, out += 3) {
        for (int c = 0; c < 3; c++) {
            const unsigned ink = 255u - in[c];
            const unsigned scaled = ink * in[3] + 128;
            const int value = in[3] - (int)(((scaled >> 8) + scaled) >> 8);
            out[c] = (uint8_t)(value < 0 ? 0 : value);
        }
    }
}

static void rows_read(struct jpeg_decompress_struct *jpeg, struct reading *r)
{
    const size_t width = r->out->width;
    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *out = r->out->pixels + 3 * width * jpeg->output_scanline;
        JSAMPROW row = r->row ? r->row : out;
        (void)jpeg_read_scanlines(jpeg, &row, 1);
        if (r->row) {
            cmyk_convert(r->row, out, width);
        }
    }
}

/* Apart from the function that owns things: a longjmp lands here, where nothing is to be freed. */
static int decode(struct jpeg_decompress_struct *jpeg, struct reading *r)
{
    if (setjmp(r->failing.back)) {
        return -1;
    }
    jpeg_create_decompress(jpeg);
    jpeg_mem_src(jpeg, r->bytes, r->n);
    jpeg->src->fill_input_buffer = bytes_end;
    (void)jpeg_read_header(jpeg, TRUE);
    r->status = picture_take(r->name, jpeg->image_height, jpeg->image_width, r->out, r->err);
    if (r->status) {
        return 0;
    }
    const int cmyk = jpeg->num_components == 4;
    jpeg->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    r->row = cmyk ? malloc(4 * r->out->width) : NULL;
    if (cmyk && !r->row) {
        r->status = attn_fail(r->err, ATTN_NOMEM, "%s: no memory for a row", r->name);
        return 0;
    }
    (void)jpeg_start_decompress(jpeg);
    rows_read(jpeg, r);
    (void)jpeg_finish_decompress(jpeg);
    return 0;
}

attn_status jpeg_decode(const uint8_t *bytes, size_t n, const char *name, struct picture *out,
                        attn_error *err)
{
    struct jpeg_decompress_struct jpeg = {0};
    struct reading r = {.name = name, .bytes = bytes, .n = n, .out = out, .err = err};
    jpeg.err = jpeg_std_error(&r.failing.manager);
    r.failing.manager.error_exit = message_keep;
    r.failing.manager.output_message = message_drop;
    const int wrong = decode(&jpeg, &r);
    jpeg_destroy_decompress(&jpeg);
    free(r.row);
    return wrong ? attn_fail(err, ATTN_INVALID, "%s: cannot read the JPEG: %s", name,
                             r.failing.message)
                 : r.status;
}
#else
attn_status jpeg_decode(const uint8_t *bytes, size_t n, const char *name, struct picture *out,
                        attn_error *err)
{
    (void)bytes;
    (void)n;
    (void)out;
    return attn_fail(err, ATTN_UNSUPPORTED,
                     "%s: a JPEG, but this build has no libjpeg (libjpeg-dev); PNG is read", name);
}
#endif
