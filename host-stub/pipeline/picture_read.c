#include "picture_read.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "attn_host.h"

/* No picture of PICTURE_MOST_PIXELS needs more. */
#define MOST_BYTES ((off_t)1 << 31)

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

static attn_status failed(const char *path, attn_error *err)
{
    const int number = errno;
    return attn_fail(err, number == ENOENT ? ATTN_NOT_FOUND : ATTN_IO, "%s: %s, expected a picture",
                     path, strerror(number));
}

/* The whole file; *bytes is the caller's to free. */
static attn_status file_read(const char *path, FILE *file, uint8_t **bytes, size_t *n,
                             attn_error *err)
{
    struct stat info;
    if (fstat(fileno(file), &info) != 0) {
        return failed(path, err);
    }
    if (!S_ISREG(info.st_mode) || info.st_size > MOST_BYTES) {
        return attn_fail(err, ATTN_INVALID, "%s: %s, expected a picture", path,
                         S_ISDIR(info.st_mode)    ? "a folder"
                         : !S_ISREG(info.st_mode) ? "not a file"
                                                  : "larger than 2 GiB");
    }
    *n = (size_t)info.st_size;
    *bytes = malloc(*n + 1);
    if (!*bytes) {
        return attn_fail(err, ATTN_NOMEM, "%s: no memory for %zu bytes", path, *n);
    }
    errno = EIO;
    return fread(*bytes, 1, *n, file) == *n ? ATTN_OK : failed(path, err);
}

attn_status picture_read(const char *path, struct picture *out, attn_error *err)
{
    uint8_t *bytes = NULL;
    size_t n = 0;
    *out = (struct picture){0};
    FILE *file = fopen(path, "rbe");
    attn_status status = file ? file_read(path, file, &bytes, &n, err) : failed(path, err);
    if (!status) {
        status = picture_decode(bytes, n, path, out, err);
    }
    if (file) {
        (void)fclose(file);
    }
    free(bytes);
    return status;
}
