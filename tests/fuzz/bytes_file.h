/* bytes_file.h: bytes as a file that readers can open by path, without a disk. */
#ifndef ATTNPLUG_TESTS_BYTES_FILE_H
#define ATTNPLUG_TESTS_BYTES_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* A descriptor and its path; both die with bytes_file_close. */
struct bytes_file {
    int fd;
    char path[40];
};

static inline struct bytes_file bytes_file_open(const uint8_t *data, size_t size)
{
    struct bytes_file f = {memfd_create("bytes", MFD_CLOEXEC), ""};
    if (f.fd < 0 || (size && write(f.fd, data, size) != (ssize_t)size))
        abort();
    (void)snprintf(f.path, sizeof f.path, "/proc/self/fd/%d", f.fd);
    return f;
}

static inline void bytes_file_close(struct bytes_file *f)
{
    close(f->fd);
}

/* libFuzzer's entry point; driver.c calls it with the seed corpus where there is no libFuzzer. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
