#include "file_bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attn_host.h"

static attn_status failed(const char *path, const char *expected, attn_error *err)
{
    const int number = errno;
    return attn_fail(err, number == ENOENT ? ATTN_NOT_FOUND : ATTN_IO, "%s: %s, expected %s", path,
                     strerror(number), expected);
}

/* All of them, or errno says why not: a file that became shorter counts as damaged. */
static int bytes_take(int fd, uint8_t *bytes, size_t n)
{
    for (size_t used = 0; used < n;) {
        const ssize_t got = read(fd, bytes + used, n - used);
        if (got == 0) {
            errno = EIO;
        }
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return -1;
        }
        used += got > 0 ? (size_t)got : 0;
    }
    bytes[n] = 0;
    return 0;
}

static attn_status opened_read(int fd, const char *path, uint64_t most, const char *expected,
                               uint8_t **bytes, size_t *n, attn_error *err)
{
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return failed(path, expected, err);
    }
    if (!S_ISREG(info.st_mode)) {
        return attn_fail(err, ATTN_INVALID, "%s: %s, expected %s", path,
                         S_ISDIR(info.st_mode) ? "a folder" : "not a file", expected);
    }
    if ((uint64_t)info.st_size > most) {
        return attn_fail(err, ATTN_INVALID, "%s: larger than %llu MiB, expected %s", path,
                         (unsigned long long)(most >> 20), expected);
    }
    *n = (size_t)info.st_size;
    *bytes = malloc(*n + 1);
    if (!*bytes) {
        return attn_fail(err, ATTN_NOMEM, "%s: no memory for %zu bytes", path, *n);
    }
    if (bytes_take(fd, *bytes, *n) != 0) {
        const attn_status status = failed(path, expected, err);
        free(*bytes);
        *bytes = NULL;
        return status;
    }
    return ATTN_OK;
}

attn_status file_bytes_read(const char *path, uint64_t most, const char *expected, uint8_t **bytes,
                            size_t *n, attn_error *err)
{
    /* O_NONBLOCK: a pipe that nobody writes to would keep open() waiting. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    *bytes = NULL;
    *n = 0;
    if (fd < 0) {
        return failed(path, expected, err);
    }
    const attn_status status = opened_read(fd, path, most, expected, bytes, n, err);
    (void)close(fd);
    return status;
}
