/* picture_read.h: pictures from PNG, JPEG and WebP files, as Pillow's convert("RGB") has them.
 *
 * Transparency is dropped, colour profiles and gamma are not looked at, samples of 16 bits become 8
 * as in Pillow 10.2 (colours by their upper half, greys cut off at 255), and a camera's orientation
 * (EXIF) is not applied: CLIPImageProcessor does not either. */
#ifndef ATTNPLUG_PIPELINE_PICTURE_READ_H
#define ATTNPLUG_PIPELINE_PICTURE_READ_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

struct picture {
    uint8_t *pixels; /* [height, width, 3], the owner's to free with picture_clear */
    size_t height, width;
};

/* As many as Pillow takes before it calls a picture a bomb. */
#define PICTURE_MOST_PIXELS 178956970u

/* ATTN_NOT_FOUND, ATTN_IO; ATTN_INVALID names the file and what is wrong with it; ATTN_UNSUPPORTED
 * where it is of a kind that is not read, or one that this build has no library for. */
attn_status picture_read(const char *path, struct picture *out, attn_error *err);
/* The same of bytes in memory; `name` is for texts. */
attn_status picture_decode(const uint8_t *bytes, size_t n, const char *name, struct picture *out,
                           attn_error *err);
void picture_clear(struct picture *p);

/* Room for a picture of this size, checked; what it holds is not set. */
attn_status picture_take(const char *name, uint64_t height, uint64_t width, struct picture *out,
                         attn_error *err);

/* One for each format: bytes that begin like one. */
attn_status png_decode(const uint8_t *bytes, size_t n, const char *name, struct picture *out,
                       attn_error *err);
attn_status jpeg_decode(const uint8_t *bytes, size_t n, const char *name, struct picture *out,
                        attn_error *err);
attn_status webp_decode(const uint8_t *bytes, size_t n, const char *name, struct picture *out,
                        attn_error *err);

#endif
