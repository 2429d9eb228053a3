/* image_copy.c: a private copy of a plugin file, taken while nobody writes it. */
#include "image.h"

#include "error.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_EXEC /* Linux 6.3: say whether the memfd may be a program */
#define MFD_NOEXEC_SEAL 0x0008U
#define MFD_EXEC        0x0010U
#endif

/* A writer may have left the file half done within the clock's last tick without its times telling:
 * a file younger than this is not yet at rest. */
#define REST_NS   20000000LL
#define MAX_TRIES 100
#define MAX_BYTES (INT64_C(1) << 32)

file_key file_key_of(const struct stat *st)
{
    return (file_key){st->st_dev, st->st_ino, st->st_size, st->st_mtim, st->st_ctim};
}

static bool time_equal(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

bool file_key_equal(const file_key *a, const file_key *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           time_equal(&a->modified, &b->modified) && time_equal(&a->changed, &b->changed);
}

static bool at_rest(const file_key *key)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t age = (int64_t)(now.tv_sec - key->changed.tv_sec) * 1000000000LL +
                  (now.tv_nsec - key->changed.tv_nsec);
    return age < 0 || age > REST_NS; /* a change in the future says nothing about rest */
}

static int memory_file(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    char label[128];
    (void)snprintf(label, sizeof label, "%s", name);
    const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int fd = memfd_create(label, flags | MFD_EXEC);
    if (fd < 0 && errno == EINVAL) {
        fd = memfd_create(label, flags); /* before Linux 6.3 */
    } else if (fd < 0 && errno == EACCES) {
        /* vm.memfd_noexec 2: no memfd may be run as a program; its pages may still be mapped */
        fd = memfd_create(label, flags | MFD_NOEXEC_SEAL);
    }
    return fd;
}

static bool write_all(int fd, const char *bytes, size_t n)
{
    while (n) {
        ssize_t put = write(fd, bytes, n);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            return false;
        }
        bytes += put;
        n -= (size_t)put;
    }
    return true;
}

/* Copies `size` bytes; a file that ends early is an error of errno 0. */
static bool copy_bytes(int from, int to, off_t size)
{
    enum { CHUNK = 1 << 16 };
    char *chunk = malloc(CHUNK);
    bool ok = chunk != NULL;
    for (off_t done = 0; ok && done < size;) {
        size_t want = size - done < CHUNK ? (size_t)(size - done) : CHUNK;
        ssize_t got = pread(from, chunk, want, done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got == 0) {
            errno = 0;
        }
        ok = got > 0 && write_all(to, chunk, (size_t)got);
        done += got > 0 ? got : 0;
    }
    free(chunk);
    return ok;
}

/* One try. UNSUPPORTED: the file changed meanwhile, or is too young; try again. */
static attn_status copy_once(const image_source *source, int fd, image_copy *copy, attn_error *err)
{
    struct stat before, after;
    if (fstat(source->fd, &before) != 0 || ftruncate(fd, 0) != 0 || lseek(fd, 0, SEEK_SET) != 0) {
        return attn_fail(err, ATTN_IO, "%s: %s", source->path, strerror(errno));
    }
    if (before.st_size > MAX_BYTES) {
        return attn_fail(err, ATTN_INVALID, "%s: %lld bytes, expected at most %lld", source->path,
                         (long long)before.st_size, (long long)MAX_BYTES);
    }
    copy->key = file_key_of(&before);
    if (!at_rest(&copy->key)) {
        return ATTN_UNSUPPORTED;
    }
    bool copied = copy_bytes(source->fd, fd, before.st_size);
    int why = errno;
    if (fstat(source->fd, &after) != 0) {
        return attn_fail(err, ATTN_IO, "%s: %s", source->path, strerror(errno));
    }
    file_key key = file_key_of(&after);
    if (!file_key_equal(&key, &copy->key)) {
        return ATTN_UNSUPPORTED;
    }
    if (!copied) {
        return attn_fail(err, ATTN_IO, "%s: copying it to memory: %s", source->path,
                         why ? strerror(why) : "it ends early");
    }
    copy->size = (uint64_t)before.st_size;
    return ATTN_OK;
}

/* Where a file asks for an executable stack, or does not rule it out, the dynamic linker makes
 * every thread's stack executable, those of threads to come included, and nobody can take that
 * back.  So the copy does not ask: its PT_GNU_STACK, or a header that nothing needs in place of a
 * missing one, says that the stack is for data.  Bytes that are no ELF file are left to who judges
 * them. */
static bool plain_stack(int fd)
{
    Elf64_Ehdr h;
    Elf64_Phdr p;
    off_t spare = -1;
    if (pread(fd, &h, sizeof h, 0) != (ssize_t)sizeof h ||
        memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 || h.e_phentsize != sizeof p ||
        h.e_phoff > MAX_BYTES) {
        return true;
    }
    for (int i = 0; i < h.e_phnum; i++) {
        const off_t at = (off_t)h.e_phoff + i * (off_t)sizeof p;
        if (pread(fd, &p, sizeof p, at) != (ssize_t)sizeof p) {
            return true;
        }
        if (p.p_type == PT_GNU_STACK) {
            const Elf64_Word flags = p.p_flags & ~(Elf64_Word)PF_X;
            return flags == p.p_flags ||
                   pwrite(fd, &flags, sizeof flags, at + (off_t)offsetof(Elf64_Phdr, p_flags)) ==
                       (ssize_t)sizeof flags;
        }
        spare = p.p_type == PT_NULL || (p.p_type == PT_NOTE && spare < 0) ? at : spare;
    }
    p = (Elf64_Phdr){.p_type = PT_GNU_STACK, .p_flags = PF_R | PF_W, .p_align = 16};
    return spare < 0 || pwrite(fd, &p, sizeof p, spare) == (ssize_t)sizeof p;
}

attn_status image_copy_make(const image_source *source, image_copy *copy, attn_error *err)
{
    *copy = (image_copy){.fd = -1};
    int fd = memory_file(source->path);
    if (fd < 0) {
        return attn_fail(err, ATTN_NOMEM, "%s: memory for a copy: %s", source->path,
                         strerror(errno));
    }
    attn_status status = ATTN_UNSUPPORTED;
    for (int i = 0; i < MAX_TRIES && status == ATTN_UNSUPPORTED; i++) {
        if (i) {
            nanosleep(&(struct timespec){0, REST_NS / 2}, NULL);
        }
        status = copy_once(source, fd, copy, err);
    }
    if (status == ATTN_UNSUPPORTED) {
        status = attn_fail(err, ATTN_BUSY, "%s: is being written all the time", source->path);
    }
    if (status == ATTN_OK && !plain_stack(fd)) {
        status = attn_fail(err, ATTN_IO, "%s: its copy: %s", source->path, strerror(errno));
    }
    if (status == ATTN_OK &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0) {
        status = attn_fail(err, ATTN_IO, "%s: sealing its copy: %s", source->path, strerror(errno));
    }
    if (status != ATTN_OK) {
        close(fd);
        return status;
    }
    copy->fd = fd;
    return ATTN_OK;
}
