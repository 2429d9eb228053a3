/* image.h: plugin code in this process.
 *
 * A file is copied into sealed memory (memfd_create) and opened from there, so that nothing that
 * happens to the file afterwards, overwriting in place included, reaches code that runs.  The copy
 * is what is judged, probed and mapped: the same bytes throughout.  Equal contents share one image,
 * and images stay for the life of the process: plugins are never unloaded.
 */
#ifndef ATTNPLUG_LOADER_IMAGE_H
#define ATTNPLUG_LOADER_IMAGE_H

#include "elf_head.h"

#include "attn_host.h"

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

/* What tells one state of a file from another. */
typedef struct {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified, changed;
} file_key;

file_key file_key_of(const struct stat *st);
bool file_key_equal(const file_key *a, const file_key *b);

typedef struct image image;

typedef struct {
    const char *path;                                        /* for texts, and to open in place */
    int fd;                                                  /* the file, open for reading */
    bool in_place;                                           /* dlopen the path itself */
    void (*log)(void *ctx, int32_t level, const char *text); /* may be NULL */
    void *log_ctx;
} image_source;

/* A private copy of a file at rest. */
typedef struct {
    int fd; /* -1: none */
    uint64_t size;
    file_key key; /* of the file when it was copied */
} image_copy;

/* Waits for a file that is being written to settle, then copies it. The caller closes copy->fd
 * unless image_open has taken it. */
attn_status image_copy_make(const image_source *source, image_copy *copy, attn_error *err);

/* dlopens the copy, or finds the image that has its bytes; heads are what was read from the copy.
 * *verdict says what the file is where it fails.  Takes copy->fd on success. */
attn_status image_open(const image_source *source, image_copy *copy, const elf_heads *heads,
                       const image **out, uint32_t *verdict, attn_error *err);

const attn_op_api *image_op(const image *im);               /* NULL: has none */
const attn_processor_api *image_processor(const image *im); /* NULL: has none */

#endif
