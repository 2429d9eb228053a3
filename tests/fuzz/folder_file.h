/* folder_file.h: a folder whose files are bytes in memory, for readers that take a folder. */
#ifndef ATTNPLUG_TESTS_FOLDER_FILE_H
#define ATTNPLUG_TESTS_FOLDER_FILE_H

#include "bytes_file.h"

#include <string.h>

/* A folder of its own under /tmp, made once and gone when the process ends. */
static char folder_path_made[64];

static inline void folder_remove(void)
{
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf -- '%s'", folder_path_made);
    if (folder_path_made[0] && system(command) != 0)
        fprintf(stderr, "%s stays\n", folder_path_made);
}

static inline const char *folder_of_bytes(void)
{
    if (!folder_path_made[0]) {
        strcpy(folder_path_made, "/tmp/attnplug-fuzz-XXXXXX");
        if (!mkdtemp(folder_path_made))
            abort();
        (void)atexit(folder_remove);
    }
    return folder_path_made;
}

/* The file `name` of the folder holds these bytes; NULL: there is no such file.  The descriptor to
 * close, -1 for none. */
static inline int folder_put(const char *name, const uint8_t *data, size_t size)
{
    char at[128];
    (void)snprintf(at, sizeof at, "%s/%s", folder_of_bytes(), name);
    (void)unlink(at);
    if (!data)
        return -1;
    struct bytes_file f = bytes_file_open(data, size);
    if (symlink(f.path, at) != 0)
        abort();
    return f.fd;
}

static inline void folder_close(int fd)
{
    if (fd >= 0)
        close(fd);
}

#endif
