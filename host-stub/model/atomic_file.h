/* A file that appears whole or not at all: written beside its place, renamed onto it when done. */
#ifndef ATTNPLUG_MODEL_ATOMIC_FILE_H
#define ATTNPLUG_MODEL_ATOMIC_FILE_H

#include <stdio.h>

#include "error.h"

typedef struct {
    FILE *stream; /* where to write */
    char *path;   /* the file's final place, links resolved */
    char *
        written; /* what `stream` writes: a temporary name, or `path` itself for a pipe or device */
} atomic_file;

/* Opens a temporary file beside `path`. A link to a file that is there is followed, so the link
 * survives and its target is replaced; a pipe or device is written in place. ATTN_IO, naming the
 * path, where nothing can be written there, ATTN_INVALID for a folder. After success exactly one of
 * atomic_file_commit and atomic_file_discard must follow. */
attn_status atomic_file_open(atomic_file *file, const char *path, attn_error *err);

/* Flushes, checks that each byte was taken and renames onto the final place. On failure the
 * temporary file is gone and whatever stood at the place before stands there still. */
attn_status atomic_file_commit(atomic_file *file, attn_error *err);

/* Gives the write up and removes the temporary file. */
void atomic_file_discard(atomic_file *file);

#endif
