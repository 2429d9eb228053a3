#include "atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attn_host.h"

enum { TEMPORARY_TRIES = 100 };

static void file_forget(atomic_file *file)
{
    free(file->path);
    free(file->written);
    *file = (atomic_file){0};
}

/* Opens a new file named after `path`; open() rather than mkstemp(), so that the umask decides the
 * permissions as it does for any other file. */
static int temporary_open(const char *path, char **name)
{
    size_t size = strlen(path) + 48;
    char *text = malloc(size);
    if (!text) {
        return -1;
    }
    for (int i = 0; i < TEMPORARY_TRIES; i++) {
        snprintf(text, size, "%s.%ld-%d.tmp", path, (long)getpid(), i);
        int fd = open(text, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0) {
            *name = text;
            return fd;
        }
        if (errno != EEXIST) {
            break;
        }
    }
    int saved = errno;
    free(text);
    errno = saved;
    return -1;
}

attn_status atomic_file_open(atomic_file *file, const char *path, attn_error *err)
{
    struct stat info;
    int exists = stat(path, &info) == 0;
    *file = (atomic_file){0};
    if (exists && S_ISDIR(info.st_mode)) {
        return attn_fail(err, ATTN_INVALID, "%s: is a folder, expected a file to write", path);
    }
    file->path = exists ? realpath(path, NULL) : strdup(path);
    if (!file->path) {
        return attn_fail(err, ATTN_IO, "%s: cannot write: %s", path, strerror(errno));
    }
    int fd;
    if (exists && !S_ISREG(info.st_mode)) {
        file->written = strdup(file->path);
        fd = file->written ? open(file->path, O_WRONLY | O_CLOEXEC) : -1;
    } else {
        fd = temporary_open(file->path, &file->written);
    }
    file->stream = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (!file->stream) {
        attn_fail(err, ATTN_IO, "%s: cannot write: %s", path, strerror(errno));
        if (fd >= 0) {
            close(fd);
            atomic_file_discard(file);
        } else {
            file_forget(file);
        }
        return ATTN_IO;
    }
    return ATTN_OK;
}

attn_status atomic_file_commit(atomic_file *file, attn_error *err)
{
    int temporary = strcmp(file->path, file->written) != 0;
    int bad = ferror(file->stream) || fflush(file->stream) != 0;
    /* Without the sync a crash soon after the rename could leave the new name with no contents. */
    if (!bad && temporary) {
        bad = fsync(fileno(file->stream)) != 0;
    }
    int reason = errno;
    if (fclose(file->stream) != 0 && !bad) {
        bad = 1;
        reason = errno;
    }
    file->stream = NULL;
    if (!bad && temporary && rename(file->written, file->path) != 0) {
        bad = 1;
        reason = errno;
    }
    if (bad) {
        attn_fail(err, ATTN_IO, "%s: cannot write: %s", file->path, strerror(reason));
        atomic_file_discard(file);
        return ATTN_IO;
    }
    file_forget(file);
    return ATTN_OK;
}

void atomic_file_discard(atomic_file *file)
{
    if (file->stream) {
        fclose(file->stream);
    }
    if (file->path && file->written && strcmp(file->path, file->written) != 0) {
        unlink(file->written);
    }
    file_forget(file);
}
