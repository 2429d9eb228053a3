#include "picture_read.h"

#include <stdlib.h>
#include <string.h>

#include "file_bytes.h"

/* No picture of PICTURE_MOST_PIXELS needs more. */
#define MOST_BYTES (UINT64_C(1) << 31)

attn_status picture_take(const char *name, uint64_t height, uint64_t width, struct picture *out,
                         attn_error *err)
{
    if (!height || !width || height > PICTURE_MOST_PIXELS / width) {
        return attn_fail(
            err, ATTN_INVALID, "%s: a picture of %llu x %llu pixels, expected 1 to %u of them",
            name, (unsigned long long)width, (unsigned long long)height, PICTURE_MOST_PIXELS);
    }
    *out = (struct picture){malloc((size_t)(height * width) * 3), (size_t)height, (size_t)width};
    return out->pixels ? ATTN_OK
                       : attn_fail(err, ATTN_NOMEM, "%s: no memory for %llu x %llu pixels", name,
                                   (unsigned long long)width, (unsigned long long)height);
}

void picture_clear(struct picture *p)
{
    free(p->pixels);
    *p = (struct picture){0};
}

attn_status picture_decode(const uint8_t *bytes, size_t n, const char *name, struct picture *out,
                           attn_error *err)
{
    attn_status status;
    *out = (struct picture){0};
    if (n >= 8 && memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) == 0) {
        status = png_decode(bytes, n, name, out, err);
    } else if (n >= 3 && memcmp(bytes, "\xff\xd8\xff", 3) == 0) {
        status = jpeg_decode(bytes, n, name, out, err);
    } else if (n >= 12 && memcmp(bytes, "RIFF", 4) == 0 && memcmp(bytes + 8, "WEBP", 4) == 0) {
        status = webp_decode(bytes, n, name, out, err);
    } else {
        status =
            attn_fail(err, ATTN_UNSUPPORTED,
                      "%s: no picture in a format that is read: expected PNG, JPEG or WebP", name);
    }
    if (status) {
        picture_clear(out);
    }
    return status;
}

attn_status picture_read(const char *path, struct picture *out, attn_error *err)
{
    uint8_t *bytes = NULL;
    size_t n = 0;
    *out = (struct picture){0};
    attn_status status = file_bytes_read(path, MOST_BYTES, "a picture", &bytes, &n, err);
    if (!status) {
        status = picture_decode(bytes, n, path, out, err);
    }
    free(bytes);
    return status;
}
