/* pickle.h: files of Python's pickle format, which this project does not read: reading one runs
 * whatever program it holds. */
#ifndef ATTNPLUG_MODEL_PICKLE_H
#define ATTNPLUG_MODEL_PICKLE_H

#include "error.h"

/* Whether the file is a pickle, by its first bytes or, where they cannot be read, its ending:
 * torch.save writes a zip archive, before torch 1.6 a bare pickle. */
int32_t pickle_is(const char *path);

/* ATTN_UNSUPPORTED: says why such a file is not read and how it becomes a .safetensors file. */
attn_status pickle_refuse(const char *path, attn_error *err);

#endif
