#include "picture.h"

#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "atomic_file.h"

/* PNG's own limit on either side (PNG specification, third edition, section 11.2.1). */
#define PNG_LONGEST_SIDE 2147483647u

static void message_keep(png_structp png, png_const_charp text)
{
    char *message = png_get_error_ptr(png);
    snprintf(message, 128, "%s", text);
    png_longjmp(png, 1);
}

static void warning_drop(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static void parameters_add(png_structp png, png_infop info, const char *parameters)
{
    int ascii = 1;
    for (const char *c = parameters; *c; c++) {
        ascii &= (unsigned char)*c < 0x80;
    }
    png_text text = {.compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE,
                     .key = (char *)"parameters",
                     .text = (char *)parameters,
                     .lang = (char *)"",
                     .lang_key = (char *)""};
    if (ascii) {
        text.text_length = strlen(parameters);
    } else {
        text.itxt_length = strlen(parameters);
    }
    png_set_text(png, info, &text, 1);
}

/* Apart from the function that owns things: a longjmp lands here, where nothing is to be freed.
 * Returns 0 when the picture was written. */
static int picture_encode(png_structp png, png_infop info, FILE *stream, const uint8_t *pixels,
                          size_t height, size_t width, const char *parameters)
{
    if (setjmp(png_jmpbuf(png))) {
        return -1;
    }
    png_init_io(png, stream);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_sRGB(png, info, PNG_sRGB_INTENT_PERCEPTUAL);
    if (parameters) {
        parameters_add(png, info, parameters);
    }
    png_write_info(png, info);
    for (size_t y = 0; y < height; y++) {
        png_write_row(png, pixels + y * width * 3);
    }
    png_write_end(png, NULL);
    return 0;
}

attn_status picture_write_png(const char *path, const uint8_t *pixels, size_t height, size_t width,
                              const char *parameters, attn_error *err)
{
    char message[128] = "out of memory";
    if (!height || !width || height > PNG_LONGEST_SIDE || width > PNG_LONGEST_SIDE / 3) {
        return attn_fail(err, ATTN_INVALID, "%s: a picture of %zu x %zu pixels cannot be a PNG",
                         path, width, height);
    }
    atomic_file file;
    attn_status status = atomic_file_open(&file, path, err);
    if (status) {
        return status;
    }
    png_infop info = NULL;
    png_structp png =
        png_create_write_struct(PNG_LIBPNG_VER_STRING, message, message_keep, warning_drop);
    int done = -1;
    if (png && (info = png_create_info_struct(png))) {
        done = picture_encode(png, info, file.stream, pixels, height, width, parameters);
    }
    png_destroy_write_struct(&png, &info);
    if (done && !ferror(file.stream)) {
        atomic_file_discard(&file);
        return attn_fail(err, ATTN_INVALID, "%s: cannot write the picture: %s", path, message);
    }
    return atomic_file_commit(&file, err); /* which says why bytes were not taken */
}
